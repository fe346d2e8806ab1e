"""Records in Redis: names there and in JSON, defaults, and what a newer release wrote."""

from __future__ import annotations

import pytest

from backend.errors import QueueError
from jobs.record import SCHEMA, Record
from jobs.run import Run, RunState, Scope, Shard, Trigger
from jobs.training_state import Outcome, Training, TrainingState

RUN = {"project": "7", "only": "all", "asked_by": "webhook", "state": "embedding"}


def test_a_run_is_read_by_its_names_in_redis():
    content = {**RUN, "waits_for": "Redis", "notes": '["a"]', "error": '{"code": "x"}'}
    run = Run.from_wire(content, id="r1", shards=3)
    assert (run.id, run.project, run.shards) == ("r1", 7, 3)
    assert (run.scope, run.trigger, run.state) == (Scope.ALL, Trigger.WEBHOOK, RunState.EMBEDDING)
    assert (run.blocked_on, run.notes, run.error) == ("Redis", ("a",), {"code": "x"})


def test_the_json_of_a_run_keeps_its_names_and_leaves_out_what_is_internal():
    answer = Run.from_wire({**RUN, "key": "7.1", "sending": "4"}, id="r1").as_dict()
    assert (answer["only"], answer["asked_by"], answer["waits_for"]) == ("all", "webhook", "")
    assert not {"scope", "trigger", "blocked_on", "key", "sending", "schema"} & set(answer)


def test_fields_are_written_under_their_names_in_redis():
    fields = {"blocked_on": "Redis", "notes": ("a", "b"), "state": RunState.DONE, "ended": 1.5}
    assert Run.to_wire(fields) == {
        **{"waits_for": "Redis", "notes": '["a", "b"]', "state": "done", "ended": 1.5}
    }
    with pytest.raises(KeyError):
        Run.to_wire({"waits_for": "Redis"})


def test_a_training_that_redis_does_not_know_is_idle():
    training = Training.from_wire({}, project=5)
    assert (training.state, training.outcome) == (TrainingState.IDLE, Outcome.NONE)
    assert (training.needed, training.as_dict()["enough"]) == (12, 12)


@pytest.mark.parametrize("record", [Run, Shard, Training])
def test_a_record_of_a_newer_release_names_the_fix(record: type[Record]):
    with pytest.raises(QueueError) as caught:
        record.from_wire({"schema": str(SCHEMA + 1)})
    assert f"layout {SCHEMA + 1}" in caught.value.message
    assert "Upgrade all processes" in caught.value.fix


def test_a_record_that_cannot_be_read_names_the_fields():
    with pytest.raises(QueueError, match="state") as caught:
        Run.from_wire({**RUN, "state": "dreaming"}, id="r1")
    assert "Upgrade all processes" in caught.value.fix
