"""A local file that is replaced behind its address, on a real Label Studio."""

from __future__ import annotations

import json
from pathlib import Path

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from jobs.local_run import run_locally
from jobs.run import Run, Scope, Trigger
from tests.support.builders import photo
from tests.support.live import Servers

COUNT = 5


def save(path: Path, seed: int) -> None:
    """Put another file in its place, as programs do that save a picture."""
    photo(seed, 320, 240).save(path.with_suffix(".new"), "PNG")
    path.with_suffix(".new").replace(path)


def test_a_replaced_file_changes_the_prediction_of_its_task_in_place_and_of_no_other(
    servers: Servers,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    label_config: str,
) -> None:
    folder = servers.files / "replaced"
    folder.mkdir()
    project = int(studio.projects.create("replaced", label_config)["id"])
    studio.projects.add_local_files(project, str(folder))
    for number in range(COUNT):
        save(folder / f"{number}.png", 5000 + number)
    tasks = studio.tasks.create(
        project,
        [{"data": {"image": f"/data/local-files/?d=replaced/{n}.png"}} for n in range(COUNT)],
    )
    first = connect(settings, studio, runtime, project)
    assert first.failures == {} and first.imported == COUNT

    def predictions() -> dict[int, tuple[int, str]]:
        """Task -> the number and the content of its only prediction."""
        found = studio.predictions.of_project(project)
        assert len(found) == COUNT
        return {
            int(one["task"]): (one["id"], json.dumps([one["score"], one["result"]]))
            for one in found
        }

    def revalidated() -> Run:
        run, failures = run_locally(
            runtime, project, Scope.ALL, Trigger.CONNECT, lambda run: None, revalidate=True
        )
        assert failures == {} and run.model_version == first.model_version
        return run

    before = predictions()
    run = revalidated()
    assert (run.revalidated, run.changed, run.rewritten, run.imported) == (COUNT, 0, 0, 0)
    assert predictions() == before
    save(folder / "1.png", 6001)
    save(folder / "3.png", 6003)
    annotated = tasks[3]
    studio.tasks.annotate(annotated, [], before[annotated][0], 1.0)
    run = revalidated()
    assert (run.revalidated, run.changed, run.rewritten) == (COUNT, 2, 1)
    assert len(run.notes) == 1 and f": {annotated}." in run.notes[0]
    after = predictions()
    assert [task for task in tasks if after[task] != before[task]] == [tasks[1]]
    assert after[tasks[1]][0] == before[tasks[1]][0]
    again = connect(settings, studio, runtime, project, revalidate=True)
    assert (again.imported, again.failures, again.predicted) == (0, {}, COUNT)
    assert predictions() == after
