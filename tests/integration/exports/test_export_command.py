"""``ls-clip export``: what it refuses, what it says, and that it only reads."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.runtime import Runtime
from tests.integration.exports.conftest import LOST
from tests.support.commands import run_command
from tests.support.processes import child_environment
from tests.support.stub_label_studio import StubStudio

Export = Callable[..., tuple[int, str]]
EVERY_FORMAT = ("csv", "parquet", "coco", "labelstudio", "imagefolder")


@pytest.fixture
def variables(tmp_path: Path, studio: StubStudio, runtime: Runtime) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
        # Neither is there: whatever loads it fails.
        "LS_CLIP_ENCODER": "local-dir:/nowhere",
    }


@pytest.fixture
def export(tmp_path: Path, variables: dict[str, str]) -> Export:
    def run(*options: str) -> tuple[int, str]:
        done = run_command("export", "1", *options, cwd=tmp_path, **variables)
        assert "Traceback" not in done.stderr
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def others(folder: Path) -> list[str]:
    """What lies beside the store."""
    return sorted(path.name for path in folder.iterdir() if path.name not in {"store", "locks"})


def test_no_format_loads_an_encoder_or_torch_or_writes_to_the_store(
    tmp_path: Path, variables: dict[str, str]
):
    before = content(tmp_path / "store")
    # All in one process, which imports what each of them needs.
    program = (
        "import sys\n"
        "from backend.cli.main import main\n"
        f"for kind in {EVERY_FORMAT}:\n"
        "    sys.argv = ['ls-clip', 'export', '1', '--format', kind, '--states', 'approved,pseudo',"
        " '--split', '2/1/1']\n"
        "    sys.argv += [] if kind == 'labelstudio' else ['--images']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        print(kind, end.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=child_environment(variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # One image of the project is gone, of which only the tasks need none.
    assert done.stdout.split("\n")[:-1] == [
        f"{kind} {0 if kind == 'labelstudio' else 1} False" for kind in EVERY_FORMAT
    ]
    assert content(tmp_path / "store") == before
    assert "project-1.csv" in others(tmp_path) and "project-1.imagefolder" in others(tmp_path)


def test_why_tasks_are_left_out_and_what_came_with_annotations_is_counted_apart(
    export: Export, studio: StubStudio
):
    studio.tasks |= {number: {"text": "no image"} for number in (7, 8)}
    for number in (1, 2):
        studio.annotations[number][0]["lead_time"] = None
    code, said = export("--states", "approved", "--no-sizes")
    assert code == 0, said
    assert "Left out: 2 tasks without an image. Left out: 3 tasks without a label in the" in said
    assert "2 tasks came with their annotations: nothing is known to be absent there." in said
    studio.annotations[2][0]["lead_time"] = 3.0
    code, said = export()
    assert "1 task came with its annotations:" in said and "without a label" not in said


def test_an_image_that_is_gone_is_named_and_counted(export: Export, tmp_path: Path):
    code, said = export("--images", "--rows", "image")
    assert code == 1
    assert f"1 image could not be had, left out: task {LOST}: " in said and "404" in said
    assert "5 tasks were written to project-1.csv" in said
    code, said = export("--format", "coco")
    assert code == 1
    assert "1 image could not be had, without width and height" in said
    code, said = export("--format", "coco", "--no-sizes")
    assert code == 0
    assert "6 tasks were written" in said and "could not be had" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "xml"], "Give one of: csv, parquet, coco, imagefolder, labelstudio."),
        (["--rows", "task"], "Give one of: label, image."),
        (["--rows", "label", "--format", "coco"], "Give --format csv or parquet."),
        (["--states", "approved,accepted"], "Give some of approved, known, pseudo, unknown"),
        (["--states", ""], "Give some of approved"),
        (["--include", "pseudo"], "Give human or human,pseudo."),
        (["--include", "human", "--states", "known"], "Give one of them."),
        (["--split", "80/20"], "e.g. --split 80/10/10"),
        (["--splits", "x.csv"], "Add --split 80/10/10."),
        (["--split", "8/1/1", "--splits", "broken.csv"], "name another one with --splits"),
        (["--split", "8/1/1", "--near", "3"], "--near"),
        (["--split", "8/1/1", "--splits", "x", "--output", "x"], "cannot hold both"),
        (["--images", "--format", "labelstudio"], "Give another format"),
        *((["--output", name], "--output names no file") for name in (".", "/", "", "folder/..")),
        (["--format", "imagefolder", "--output", "."], "--output names no file"),
        (["--split", "8/1/1", "--splits", ""], "Give the name of a file with --splits"),
        (["--output", "nowhere/x.csv"], "There is no folder"),
        (["--output", "broken.csv/x.csv"], "There is no folder"),
        (["--output", "folder"], "is a folder. Fix: Give the name of a file with --output."),
        (["--format", "imagefolder", "--output", "folder"], "is not written over"),
        (["--images", "--output", "there.csv"], "there-images is there already"),
        (["--output", f"{'x' * 300}.csv"], "File name too long"),
        (["--output", "/proc/x.csv"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_way_out(
    export: Export, tmp_path: Path, options: list[str], said: str
):
    for folder in ("folder", "there-images"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text("mine")
    (tmp_path / "broken.csv").write_text("something else")
    before = others(tmp_path)
    code, answer = export(*options)
    assert code != 0
    assert said in answer
    assert others(tmp_path) == before
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "broken.csv").read_text() == "something else"


def test_a_folder_that_may_not_be_written_to_is_named(export: Export, tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:
        # Root may write everywhere on a disk, but not here.
        closed = Path("/sys")
    code, said = export("--output", f"{closed}/x.csv")
    assert code == 1
    assert "cannot be written" in said


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is full: no file of this process may be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "options",
    [
        *(["--format", kind] for kind in EVERY_FORMAT),
        ["--images"],
        ["--split", "8/1/1"],
        ["--rows", "image", "--format", "parquet"],
    ],
    ids=" ".join,
)
def test_a_full_disk_leaves_what_was_there(export: Export, tmp_path: Path, options: list[str]):
    for name in ("csv", "parquet", "coco.json", "json", "splits.csv"):
        (tmp_path / f"project-1.{name}").write_text("image,key,split\n")
    before = content(tmp_path)
    with files_of_at_most(60):
        code, said = export(*options)
    assert code == 1
    assert "cannot be written: File too large. Fix: Make room there" in said
    assert content(tmp_path) == before


def test_an_export_that_fails_leaves_no_file(export: Export, tmp_path: Path, studio: StubStudio):
    (tmp_path / "project-1.csv").write_text("as before")
    calls = iter(range(100))
    studio.before = lambda method, path: 404 if path == "/api/tasks/" and next(calls) > 0 else None
    code, _ = export("--images")
    assert code == 1
    assert content(tmp_path)["project-1.csv"] == b"as before"
    assert others(tmp_path) == ["project-1.csv"]


def test_without_a_store_it_says_where_it_has_looked(
    tmp_path: Path, variables: dict[str, str], studio: StubStudio
):
    elsewhere = {**variables, "LS_CLIP_STORE": str(tmp_path / "elsewhere")}
    done = run_command("export", "1", cwd=tmp_path, **elsewhere)
    assert done.returncode == 1
    assert "elsewhere" in done.stderr and "LS_CLIP_STORE" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_splits_stay_when_tasks_come_and_are_told(
    export: Export, tmp_path: Path, studio: StubStudio
):
    options = ("--split", "1/1/1", "--rows", "image", "--no-sizes")
    code, said = export(*options)
    assert code == 0
    assert "project-1.splits.csv keeps them" in said and "1 image not embedded" in said
    before = _splits(tmp_path / "project-1.csv")
    first = studio.tasks.pop(1)
    # The same image again, in a task that comes later.
    studio.tasks[50] = {**first, "clip_source": "again.jpg"}
    studio.tasks[51] = {"image": "https://photos.test/51.jpg"}
    code, said = export(*options, "--format", "csv")
    assert code == 0
    after = _splits(tmp_path / "project-1.csv")
    assert after.pop("50") == before.pop("1")
    assert after.pop("51") in {"train", "validation", "test"}
    assert after == before


def _splits(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {row["task"]: row["split"] for row in csv.DictReader(file)}


def test_an_option_of_before_is_still_taken(export: Export):
    code, said = export("--encoder", "offline", "--include", "human")
    assert code == 0
    assert "6 tasks were written" in said
