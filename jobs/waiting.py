"""Waiting for a run, and telling how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.errors import QueueError
from backend.settings import Settings
from jobs import queues
from jobs.runs import ENDED, Run, Runs

POLL_SECONDS = 0.5


def require_workers(settings: Settings, runs: Runs) -> None:
    """Refuse to wait for nobody.

    Raises:
        QueueError: no worker listens, or Redis does not answer.
    """
    with queues.explained():
        if queues.workers(runs.connection, queues.PREDICT):
            return
    raise QueueError(
        f"No worker listens on the queue at {queues.place(settings)}.",
        "Start one and keep it running: ls-clip worker. (Without LS_CLIP_REDIS_URL, ls-clip "
        "connect predicts by itself.)",
    )


def wait(runs: Runs, run_id: str, told: Callable[[Run], None]) -> Run:
    """Wait until a run has ended.

    Args:
        runs: of all projects.
        run_id: the run.
        told: called about twice a second with how it stands.

    Raises:
        QueueError: Redis does not answer, or has forgotten the run.
    """
    while True:
        with queues.explained():
            run = runs.get(run_id)
        if run is None:
            raise QueueError(
                f"Redis has forgotten the run {run_id}.",
                "Let Redis keep its data (appendonly yes), then run ls-clip predict again; what "
                "is embedded stays.",
            )
        told(run)
        if run.state in ENDED:
            return run
        time.sleep(POLL_SECONDS)
