"""Checks of the queue and its workers, where there is one, and of a project's last work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from redis.exceptions import RedisError

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity, named_tasks
from backend.errors import counted, with_verb
from jobs import queue
from jobs.run import ENDED, RunState
from jobs.run_store import RunStore
from jobs.training_state import Outcome, TrainingState, TrainingStore

SILENT_SECONDS = 300.0


def queue_answers(context: Context) -> Iterator[Finding]:
    """Redis answers, and its data survives a restart."""
    if not _is_set(context):
        yield Finding(
            "queue", Severity.OK, "No queue is set: ls-clip connect predicts in its own process."
        )
        return
    connection = queue.connect(context.settings, retries=0)
    with queue.explained():
        connection.ping()
    try:
        kept = connection.config_get("appendonly").get("appendonly") == "yes"
        kept = kept or bool(connection.config_get("save").get("save"))
    except RedisError:
        # Hosted services forbid CONFIG.
        return
    if not kept:
        yield Finding(
            "queue",
            Severity.WARNING,
            f"The Redis at {queue.place(context.settings)} does not persist its data.",
            "A restart loses the runs in progress.",
            "Start it with --appendonly yes.",
        )


def workers(context: Context) -> Iterator[Finding]:
    """Workers listen on the queue."""
    if not _is_set(context):
        yield Finding("workers", Severity.OK, "No queue is set, so no worker is needed.")
        return
    with queue.explained():
        connection = queue.connect(context.settings, retries=0)
        live = queue.workers(connection, queue.PREDICT)
        waiting = queue.depth(connection, queue.PREDICT)
    if not live:
        in_it = f", in which {with_verb(waiting, 'job', 'waits', 'wait')}" if waiting else ""
        yield Finding(
            "workers",
            Severity.WARNING,
            f"No worker listens on the queue{in_it}.",
            "ls-clip predict and ls-clip connect wait for one.",
            "Run ls-clip worker and keep it running.",
        )


def last_run(context: Context) -> Iterator[Finding]:
    """The project's last run ended well, or makes progress."""
    if not _is_set(context):
        yield Finding("run", Severity.OK, "No queue is set, so there are no runs.")
        return
    with queue.explained():
        runs = RunStore(queue.connect(context.settings, retries=0))
        history = runs.of_project(context.project_number)
    if not history:
        yield Finding("run", Severity.OK, "The project has had no runs yet.")
        return
    run = history[0]
    again = f"Fix that, then run ls-clip predict {run.project}; what is embedded stays."
    finding = partial(Finding, "run")
    if run.state == RunState.FAILED and run.error is not None:
        left = run.listed - run.imported
        why = f"{left} of its {counted(run.listed, 'task')} got no prediction from it."
        if not run.listed:
            why = "It did not get as far as to list the tasks."
        fix = f"{run.error['fix']} {again}".strip()
        yield finding(Severity.WARNING, f"The last run failed: {run.error['message']}", why, fix)
    elif run.state not in ENDED and run.blocked_on:
        why = f"The run {run.id} has made no progress since then."
        yield finding(Severity.WARNING, f"The run waits: {run.blocked_on}", why, again)
    elif run.state not in ENDED and time.time() - run.updated > SILENT_SECONDS:
        minutes = round((time.time() - run.updated) / 60)
        what = (
            f"The run {run.id} has made no progress for {counted(minutes, 'minute')} ({run.state})."
        )
        yield finding(
            Severity.WARNING, what, "Its tasks wait.", "Is ls-clip worker running? " + again
        )
    elif run.failed:
        why = "They open without a suggestion."
        fix = f"ls-clip runs {run.project} --show {run.id} names them and why."
        left_out = counted(run.failed, "task")
        with queue.explained():
            failed = runs.failures(run.id)
        named = f": {named_tasks(failed)}" if failed else ""
        yield finding(Severity.NOTE, f"The last run left {left_out} out{named}.", why, fix)


def training(context: Context) -> Iterator[Finding]:
    """The project's last training ended well, and a worker trains."""
    if not _is_set(context):
        yield Finding(
            "training",
            Severity.OK,
            "No queue is set, so no head is trained: reviews do not improve the suggestions.",
        )
        return
    with queue.explained():
        connection = queue.connect(context.settings, retries=0)
        trainers = queue.workers(connection, queue.TRAIN)
        now = TrainingStore(connection).get(context.project_number)
    finding = partial(Finding, "training")
    if now.state == TrainingState.IDLE and not (now.outcome or now.pending or now.blocked_on):
        yield finding(Severity.OK, "The project has had no training yet.")
        return
    if not trainers and (now.pending or now.state != TrainingState.IDLE):
        yield finding(
            Severity.WARNING,
            f"No worker listens on the queue {queue.TRAIN!r}, and "
            f"{with_verb(now.pending, 'new approval', 'waits', 'wait')}."
            if now.pending
            else f"No worker listens on the queue {queue.TRAIN!r}, and a training waits.",
            "Approvals do not improve the suggestions.",
            "Run ls-clip worker, which listens on both queues.",
        )
    elif now.blocked_on:
        yield finding(
            Severity.WARNING,
            f"The training waits: {now.blocked_on}",
            "Suggestions stay as they are until then.",
            "Fix that; the training is repeated by itself.",
        )
    if now.outcome == Outcome.FAILED:
        yield finding(
            Severity.WARNING,
            f"The last training failed: {now.reason}",
            "The previous head stays in use.",
            f"Fix that, then run ls-clip train {now.project} --wait.",
        )
    elif now.outcome == Outcome.REJECTED:
        yield finding(
            Severity.NOTE,
            f"The last head was rejected: {now.reason}",
            "It would have made suggestions worse.",
            f"ls-clip heads {now.project} shows all heads.",
        )


def _is_set(context: Context) -> bool:
    return bool(context.settings.redis_url.get_secret_value())


CHECKS = (
    Check("queue", "The queue answers.", "Runs are kept there.", queue_answers),
    Check(
        "workers",
        "Workers listen.",
        "They do what a run asks for.",
        workers,
        ("queue",),
    ),
    Check(
        "run",
        "The project's last run went well.",
        "It tells why tasks are without a suggestion.",
        last_run,
        ("queue",),
        project=True,
    ),
    Check(
        "training",
        "The project's last training went well.",
        "People's approvals make the next suggestions better.",
        training,
        ("queue",),
        project=True,
    ),
)
