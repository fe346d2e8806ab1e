"""What a run leaves behind for the round of tasks to review: a look at it if tasks may be new."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs import enqueue, schedule
from jobs.run import RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from tests.support.predict_job import add_tasks, now
from tests.support.stub_label_studio import PROJECT, StubStudio


@pytest.mark.parametrize(
    ("trigger", "scheduled"),
    [
        (Trigger.WEBHOOK, True),
        (Trigger.CLI, True),
        (Trigger.HTTP, True),
        # connect refreshes the round itself.
        (Trigger.CONNECT, False),
    ],
)
def test_a_run_that_may_bring_tasks_leads_to_a_look_at_the_round(
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    trigger: Trigger,
    scheduled: bool,
) -> None:
    add_tasks(studio, 1, 2)
    run, _ = enqueue.start_run(runs, PROJECT, Scope.MISSING, trigger)
    work()
    assert now(runs, run).state == RunState.DONE
    moment = schedule.moment(runs.connection, Kind.ADDED, PROJECT)
    assert (moment is not None) == scheduled
