"""A run in this process, without queue and workers: the steps of a worker's run, one by one."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory

from backend.runtime import Runtime
from backend.storage.artifacts import Artifacts
from backend.storage.maintenance import dedupe
from jobs.memory_runs import MemoryRuns
from jobs.pipeline import embed_shard, list_shards
from jobs.publish import promote
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_files import RunFiles


def run_locally(
    runtime: Runtime,
    project: int,
    scope: Scope,
    trigger: Trigger,
    report: Callable[[Run], None],
    *,
    revalidate: bool = False,
) -> tuple[Run, dict[int, dict[str, str]]]:
    """Predict a project's tasks.

    Tasks and predictions wait in a temporary folder, so memory holds one shard of them and one
    import, whatever the project's size. The caller makes sure that nobody else imports into the
    project meanwhile.

    Args:
        runtime: of this process.
        project: its number.
        scope: which tasks.
        trigger: what asks for it.
        report: called with the run after each change of it.
        revalidate: whether the hosts of stored images are asked if they have changed.

    Returns:
        The run, which is done, and task id -> why it has no prediction, or only a part.

    Raises:
        LabelConfigError: the labels were changed meanwhile, or there are none for us.
        StudioError: Label Studio refuses a step, or does not answer.
        StoreError: the store cannot be read or written.
    """
    runs = MemoryRuns(report)
    run = runs.start(project, scope, trigger, revalidate)

    def now() -> Run:
        current = runs.get(run.id)
        assert current is not None
        return current

    with TemporaryDirectory(prefix="ls-clip-") as folder:
        files = RunFiles(Artifacts(folder), run.id)
        for number, _ in list_shards(runs, run, runtime, files):
            embed_shard(runs, now(), runtime, files, number)
        runs.note(run.id, state=RunState.IMPORTING)
        promote(runs, now(), runtime, files)
    if now().changed:
        # The embeddings of the earlier images go.
        dedupe(runtime.store, runtime.encoder.id, runtime.encoder.dim)
    runs.note(run.id, state=RunState.DONE)
    return now(), runs.failures(run.id)
