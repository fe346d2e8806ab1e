"""Checks of the queue and its workers, where there is one, and of a project's last work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from redis.exceptions import RedisError

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity, named_tasks
from backend.errors import counted, with_verb
from backend.messages.message import Message, in_sequence
from jobs import queue
from jobs.run import ENDED, RunState
from jobs.run_store import RunStore
from jobs.training_state import Outcome, TrainingState, TrainingStore

SILENT_SECONDS = 300.0


def queue_answers(context: Context) -> Iterator[Finding]:
    """Redis answers, and its data survives a restart."""
    if not _is_set(context):
        yield Finding(
            "queue",
            Severity.OK,
            Message("No queue is set: ls-clip connect predicts in its own process."),
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
            Message(
                "The Redis at {place} does not persist its data.",
                place=queue.place(context.settings),
            ),
            Message("A restart loses the runs in progress."),
            Message("Start it with --appendonly yes."),
        )


def workers(context: Context) -> Iterator[Finding]:
    """Workers listen on the queue."""
    if not _is_set(context):
        yield Finding("workers", Severity.OK, Message("No queue is set, so no worker is needed."))
        return
    with queue.explained():
        connection = queue.connect(context.settings, retries=0)
        live = queue.workers(connection, queue.PREDICT)
        waiting = queue.depth(connection, queue.PREDICT)
    if not live:
        yield Finding(
            "workers",
            Severity.WARNING,
            Message(
                "No worker listens on the queue, in which {jobs}.",
                jobs=with_verb(waiting, "job", "waits", "wait"),
            )
            if waiting
            else Message("No worker listens on the queue."),
            Message("ls-clip predict and ls-clip connect wait for one."),
            Message("Run ls-clip worker and keep it running."),
        )


def last_run(context: Context) -> Iterator[Finding]:
    """The project's last run ended well, or makes progress."""
    if not _is_set(context):
        yield Finding("run", Severity.OK, Message("No queue is set, so there are no runs."))
        return
    with queue.explained():
        runs = RunStore(queue.connect(context.settings, retries=0))
        history = runs.of_project(context.project_number)
    if not history:
        yield Finding("run", Severity.OK, Message("The project has had no runs yet."))
        return
    run = history[0]
    again = Message(
        "Fix that, then run ls-clip predict {project}; what is embedded stays.",
        project=run.project,
    )
    finding = partial(Finding, "run")
    if run.state == RunState.FAILED and run.error is not None:
        left = run.listed - run.imported
        why = Message(
            "{count} of its {tasks} got no prediction from it.",
            count=left,
            tasks=counted(run.listed, "task"),
        )
        if not run.listed:
            why = Message("It did not get as far as to list the tasks.")
        fix = in_sequence(run.error["fix"], again)
        yield finding(
            Severity.WARNING,
            Message("The last run failed: {message}", message=run.error["message"]),
            why,
            fix,
        )
    elif run.state not in ENDED and run.blocked_on:
        why = Message("The run {id} has made no progress since then.", id=run.id)
        yield finding(
            Severity.WARNING,
            Message("The run waits: {blocked_on}", blocked_on=run.blocked_on),
            why,
            again,
        )
    elif run.state not in ENDED and time.time() - run.updated > SILENT_SECONDS:
        minutes = round((time.time() - run.updated) / 60)
        what = Message(
            "The run {id} has made no progress for {minutes} ({state}).",
            id=run.id,
            minutes=counted(minutes, "minute"),
            state=run.state,
        )
        yield finding(
            Severity.WARNING,
            what,
            Message("Its tasks wait."),
            in_sequence(Message("Is ls-clip worker running?"), again),
        )
    elif run.failed:
        why = Message("They open without a suggestion.")
        fix = Message(
            "ls-clip runs {project} --show {id} names them and why.", project=run.project, id=run.id
        )
        left_out = counted(run.failed, "task")
        with queue.explained():
            failed = runs.failures(run.id)
        yield finding(
            Severity.NOTE,
            Message(
                "The last run left {left_out} out: {named}.",
                left_out=left_out,
                named=named_tasks(failed),
            )
            if failed
            else Message("The last run left {left_out} out.", left_out=left_out),
            why,
            fix,
        )


def training(context: Context) -> Iterator[Finding]:
    """The project's last training ended well, and a worker trains."""
    if not _is_set(context):
        yield Finding(
            "training",
            Severity.OK,
            Message(
                "No queue is set, so no head is trained: reviews do not improve the suggestions."
            ),
        )
        return
    with queue.explained():
        connection = queue.connect(context.settings, retries=0)
        trainers = queue.workers(connection, queue.TRAIN)
        now = TrainingStore(connection).get(context.project_number)
    finding = partial(Finding, "training")
    # What finds too few approvals has trained nothing.
    is_new = not now.head and now.outcome in {Outcome.NONE, Outcome.TOO_FEW}
    if is_new and now.state == TrainingState.IDLE and not (now.pending or now.blocked_on):
        yield finding(Severity.OK, Message("The project has had no training yet."))
        return
    if not trainers and (now.pending or now.state != TrainingState.IDLE):
        yield finding(
            Severity.WARNING,
            Message(
                "No worker listens on the queue {train!r}, and {new_approvals_wait}.",
                train=queue.TRAIN,
                new_approvals_wait=with_verb(now.pending, "new approval", "waits", "wait"),
            )
            if now.pending
            else Message(
                "No worker listens on the queue {train!r}, and a training waits.", train=queue.TRAIN
            ),
            Message("Approvals do not improve the suggestions."),
            Message("Run ls-clip worker, which listens on both queues."),
        )
    elif now.blocked_on:
        yield finding(
            Severity.WARNING,
            Message("The training waits: {blocked_on}", blocked_on=now.blocked_on),
            Message("Suggestions stay as they are until then."),
            Message("Fix that; the training is repeated by itself."),
        )
    if now.outcome == Outcome.FAILED:
        yield finding(
            Severity.WARNING,
            Message("The last training failed: {reason}", reason=now.reason),
            Message("The previous head stays in use."),
            Message("Fix that, then run ls-clip train {project} --wait.", project=now.project),
        )
    elif now.outcome == Outcome.REJECTED:
        yield finding(
            Severity.NOTE,
            Message("The last head was rejected: {reason}", reason=now.reason),
            Message("It would have made suggestions worse."),
            Message("ls-clip heads {project} shows all heads.", project=now.project),
        )


def _is_set(context: Context) -> bool:
    return bool(context.settings.redis_url.get_secret_value())


CHECKS = (
    Check("queue", Message("The queue answers."), Message("Runs are kept there."), queue_answers),
    Check(
        "workers",
        Message("Workers listen."),
        Message("They do what a run asks for."),
        workers,
        ("queue",),
    ),
    Check(
        "run",
        Message("The project's last run went well."),
        Message("It tells why tasks are without a suggestion."),
        last_run,
        ("queue",),
        project=True,
    ),
    Check(
        "training",
        Message("The project's last training went well."),
        Message("People's approvals make the next suggestions better."),
        training,
        ("queue",),
        project=True,
    ),
)
