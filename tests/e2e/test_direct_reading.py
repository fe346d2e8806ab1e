"""Images that lie on this machine are not fetched from Label Studio, on a real Label Studio."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from backend import telemetry
from backend.images.direct import Outcome, Place
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from jobs.local_run import run_locally
from jobs.run import Scope, Trigger
from tests.support.builders import photo, png_bytes
from tests.support.doctor import changed, wrong
from tests.support.live import MakeProject, Servers

COUNT = 12
MakeUploads = Callable[[], int]


class Served:
    """What Label Studio has served since this was made, by its own log."""

    def __init__(self, servers: Servers) -> None:
        self._log = servers.label_studio.log
        self._start = self._log.stat().st_size

    def images(self) -> list[str]:
        """The status of each answer to a request for an image."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            text = log.read().decode(errors="replace")
        # Two handlers write each line.
        lines = {line for line in text.splitlines() if '"GET /data/' in line}
        return [re.findall(r'HTTP/1.1" (\d+)', line)[0] for line in lines]


@pytest.fixture
def make_uploads(studio: LabelStudioClient, settings: Settings, label_config: str) -> MakeUploads:
    """Makes projects with uploads."""

    def make() -> int:
        project = int(studio.projects.create("uploads", label_config)["id"])
        token = settings.label_studio_api_key.get_secret_value()
        answer = requests.post(
            f"{settings.label_studio_url}/api/projects/{project}/import",
            files=[
                (f"file{n}", (f"{n}.png", png_bytes(photo(7000 + n, 320, 240)), "image/png"))
                for n in range(COUNT)
            ],
            headers={"Authorization": f"Token {token}"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text
        return project

    return make


@pytest.fixture
def on_the_disk(servers: Servers, settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a store of their own that let images be read from the disk."""
    return changed(
        settings,
        local_files_root=str(servers.files),
        uploads_root=str(servers.label_studio.log.parent / "media" / "upload"),
        store=str(tmp_path / "on-the-disk"),
    )


def contents(studio: LabelStudioClient, project: int) -> list[str]:
    """The content of each task's only prediction, in the order of the tasks."""
    found = studio.predictions.of_project(project)
    made = {one["task"]: json.dumps([one["score"], one["result"]]) for one in found}
    assert len(made) == len(found) == COUNT
    return [made[task] for task in sorted(made)]


def reads(place: Place, outcome: Outcome) -> int:
    return int(telemetry.DIRECT_READS.labels(place, outcome)._value.get())


@pytest.mark.parametrize("place", [Place.LOCAL_FILES, Place.UPLOADS])
def test_a_run_reads_them_from_the_disk_and_predicts_the_same(
    place: Place,
    servers: Servers,
    settings: Settings,
    on_the_disk: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
    make_uploads: MakeUploads,
    tmp_path: Path,
) -> None:
    first, second = (
        make_project(COUNT) if place is Place.LOCAL_FILES else make_uploads() for _ in range(2)
    )
    seen = Served(servers)
    fetching = changed(settings, store=str(tmp_path / "fetched"))
    assert connect(fetching, studio, Runtime(fetching), first).failures == {}
    assert seen.images() == ["200"] * COUNT
    seen, before = Served(servers), reads(place, Outcome.READ)
    assert connect(on_the_disk, studio, Runtime(on_the_disk), second).failures == {}
    # One of the folder: that is how Label Studio says that it may be read.
    assert seen.images() == ["200"]
    assert reads(place, Outcome.READ) - before == COUNT - 1
    assert contents(studio, second) == contents(studio, first)


def test_what_was_fetched_is_revalidated_on_the_disk_and_the_other_way_round(
    servers: Servers,
    settings: Settings,
    on_the_disk: Settings,
    studio: LabelStudioClient,
    label_config: str,
) -> None:
    folder = servers.files / "both-ways"
    folder.mkdir()
    for number in range(COUNT):
        photo(8000 + number, 320, 240).save(folder / f"{number}.png")
    project = int(studio.projects.create("both ways", label_config)["id"])
    studio.projects.add_local_files(project, str(folder))
    values = [f"/data/local-files/?d=both-ways/{number}.png" for number in range(COUNT)]
    studio.tasks.create(project, [{"data": {"image": value}} for value in values])
    disk = Runtime(on_the_disk)
    fetching = Runtime(changed(on_the_disk, local_files_root=""))

    def revalidated(runtime: Runtime) -> tuple[int, int, list[str]]:
        seen = Served(servers)
        run, failures = run_locally(
            runtime, project, Scope.ALL, Trigger.CONNECT, lambda run: None, revalidate=True
        )
        assert failures == {}
        return run.revalidated, run.changed, sorted(seen.images())

    connect(on_the_disk, studio, fetching, project)
    assert revalidated(disk) == (COUNT, 0, ["200"])
    # The files were too new for the disk to tell anything; now they are not.
    assert revalidated(disk) == (COUNT, 0, [])
    assert revalidated(fetching) == (COUNT, 0, ["304"] * COUNT)
    photo(8100, 320, 240).save(folder / "3.png")
    assert revalidated(disk) == (COUNT, 1, [])
    photo(8101, 320, 240).save(folder / "4.png")
    assert revalidated(fetching)[:2] == (COUNT, 1)
    assert revalidated(disk) == (COUNT, 0, [])


def test_a_folder_that_no_storage_covers_is_not_read(
    servers: Servers, on_the_disk: Settings, studio: LabelStudioClient, label_config: str
) -> None:
    folder = servers.files / "private"
    folder.mkdir()
    photo(1, 320, 240).save(folder / "x.png")
    value = "/data/local-files/?d=private/x.png"
    embeddings, failures = Runtime(on_the_disk).embedder.embed([value])
    assert embeddings == {} and failures[value].reason == "not_found"


def test_the_doctor_compares_both_ways(
    servers: Servers, on_the_disk: Settings, make_project: MakeProject
) -> None:
    project = make_project(COUNT)
    found = wrong(on_the_disk, project)
    assert not {name for name in found if name.startswith("direct-")}
    found = wrong(changed(on_the_disk, local_files_root=str(servers.files / "images")), project)
    assert "missing" in found["direct-images"].what
