"""A project with thousands of labels: no call outlasts its limit, and no text is embedded twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.encoders.label_texts import TEXT_BATCH
from backend.errors import EncoderError, ImageReason
from backend.inference import label_embeddings
from backend.inference.label_embeddings import WAITING, LabelEmbeddings, LabelsLateError
from backend.inference.predictor import Predictor
from backend.labels.config import config_of_labels, parse_config
from backend.labels.label import Label
from backend.server.app import create_app
from backend.settings import Settings
from jobs import queue
from jobs.run import Trigger
from jobs.run_store import RunStore
from tests.support.builders import EVIDENCE, choices_config, predict_body, task
from tests.support.clock import Clock
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import predict
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import PATIENCE, until

COUNT = 10_000
BATCHES = -(-COUNT // TEXT_BATCH)


class GatedEncoder(StubEncoder):
    """Counts the texts that it embeds; while the gate is closed it embeds none."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.calls: list[int] = []

    def encode_texts(self, texts: Sequence[str]) -> Any:
        assert self.gate.wait(PATIENCE)
        self.calls.append(len(texts))
        return super().encode_texts(texts)


def labels_of(count: int, prefix: str = "label") -> tuple[Label, ...]:
    (control,) = config_of_labels([f"{prefix} {n}" for n in range(count)]).controls
    return control.labels


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


def test_a_call_that_cannot_wait_for_the_labels_leaves_its_tasks_open_and_later_ones_find_them(
    make_runtime: MakeRuntime, encoder: GatedEncoder
):
    config = choices_config(*[f"label {n}" for n in range(COUNT)], extra=EVIDENCE)
    client = create_app(make_runtime(encoder, predict_seconds=0.5)).test_client()
    body = predict_body(task(1), label_config=config)
    setup = client.post("/setup", json={"project": "1.1", "schema": config})
    assert setup.json["model_version"].startswith("stub-z-")
    for _ in range(3):
        answer = client.post("/predict", json=body)
        (item,) = answer.json["results"]
        assert "result" not in item
        assert item["error"]["code"] == ImageReason.TIMEOUT
        assert f"{COUNT} labels" in item["error"]["message"]
    assert encoder.calls == []
    encoder.gate.set()
    until(lambda: len(encoder.calls) == BATCHES)
    found = until(
        lambda: next(
            (i for i in client.post("/predict", json=body).json["results"] if "result" in i), None
        )
    )
    assert found["model_version"] == setup.json["model_version"]
    # Four calls and more, and each text was embedded once.
    assert sum(encoder.calls) == COUNT
    assert max(encoder.calls) <= TEXT_BATCH


def test_a_task_that_a_person_opened_and_that_came_too_late_is_left_to_the_workers(
    make_runtime: MakeRuntime, encoder: GatedEncoder, queue_settings: Settings
):
    redis_url = queue_settings.redis_url.get_secret_value()
    runtime = make_runtime(encoder, predict_seconds=0.2, redis_url=redis_url)
    client = create_app(runtime).test_client()
    (item,) = client.post("/predict", json=predict_body(task(1))).json["results"]
    assert item["error"]["code"] == ImageReason.TIMEOUT
    runs = RunStore(queue.connect(queue_settings))
    (run,) = until(lambda: runs.of_project(1))
    assert run.trigger == Trigger.LABEL_STUDIO
    encoder.gate.set()


def test_a_run_takes_its_time_and_says_how_far_it_is(
    make_runtime: MakeRuntime,
    encoder: GatedEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(label_embeddings, "LOGGED_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    encoder.gate.set()
    made = predict(make_runtime(encoder), choices_config(*map(str, range(1000))), [task(1)])
    assert made[0].result is not None
    told = [record.args for record in caplog.records if "label texts embedded" in record.msg]
    assert told == [(256, 1000), (512, 1000), (768, 1000), (1000, 1000)]


def test_a_task_with_one_control_whose_labels_are_late_is_left_open(
    make_runtime: MakeRuntime, encoder: GatedEncoder
):
    """A prediction from the other control alone would look as if it were all."""
    few = choices_config("cat", "dog")
    many = '<Choices name="many" toName="image" choice="multiple"><Choice value="{}"/></Choices>'
    both = few.replace("</View>", many.format("bird") + "</View>")
    runtime = make_runtime(encoder)
    encoder.gate.set()
    predict(runtime, few, [task(1)])
    encoder.gate.clear()
    version = runtime.versions.get(parse_config(both), "1.1")
    (made,) = Predictor(version, runtime.embedder).predict([task(1)], 0.5)
    assert made.result is None
    assert made.failure is not None and made.failure.reason is ImageReason.TIMEOUT
    encoder.gate.set()


def test_scoring_stops_at_the_deadline(
    make_runtime: MakeRuntime, encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    monkeypatch.setattr("backend.inference.predictor.time", clock)
    monkeypatch.setattr("backend.inference.predictor.PAIRS", 6)
    encoder.gate.set()
    runtime = make_runtime(encoder)
    tasks = [task(number) for number in range(10)]
    whole = predict(runtime, choices_config("a", "b", "c"), tasks)
    version = runtime.versions.get(parse_config(choices_config("a", "b", "c")), "1.1")
    scored: list[int] = []
    probabilities = type(version).probabilities

    def count(self: Any, control: Any, embeddings: Any, deadline: Any = None) -> Any:
        scored.append(len(embeddings))
        clock.now += 20
        return probabilities(self, control, embeddings, None)

    monkeypatch.setattr(type(version), "probabilities", count)
    made = Predictor(version, runtime.embedder).predict(tasks, 60.0)
    assert scored == [2, 2, 2]
    assert [each.result for each in made[:6]] == [each.result for each in whole[:6]]
    assert {each.failure.reason for each in made[6:] if each.failure} == {ImageReason.TIMEOUT}
    assert all(each.result is None for each in made[6:])


def test_in_the_background_or_not_the_bytes_are_the_same(encoder: GatedEncoder):
    encoder.gate.set()
    labels = labels_of(700)
    waited = LabelEmbeddings(encoder).of(labels)
    late = LabelEmbeddings(encoder).of(labels, time.monotonic() + PATIENCE)
    assert waited.weights.numpy().tobytes() == late.weights.numpy().tobytes()


def test_callers_at_once_share_the_work(encoder: GatedEncoder):
    embeddings, labels = LabelEmbeddings(encoder), labels_of(700)
    with ThreadPoolExecutor(8) as pool:
        deadlines = [None, time.monotonic() + PATIENCE] * 4
        asked = [pool.submit(embeddings.of, labels, deadline) for deadline in deadlines]
        encoder.gate.set()
        results = [each.result() for each in asked]
    assert all(result is results[0] for result in results)
    assert sum(encoder.calls) == 700


def test_a_deadline_that_has_passed_still_has_the_labels_made(encoder: GatedEncoder):
    embeddings, labels = LabelEmbeddings(encoder), labels_of(700)
    with pytest.raises(LabelsLateError):
        embeddings.of(labels, time.monotonic() - 1)
    encoder.gate.set()
    until(lambda: sum(encoder.calls) == 700)
    assert len(embeddings.of(labels, time.monotonic() + PATIENCE).weights) == 700
    assert sum(encoder.calls) == 700


def test_a_few_labels_are_had_although_the_images_took_all_the_time(
    encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(label_embeddings, "GRACE_SECONDS", PATIENCE)
    encoder.gate.set()
    late = time.monotonic() - 1
    assert len(LabelEmbeddings(encoder).of(labels_of(3), late).weights) == 3


def test_no_more_label_sets_wait_than_can_be_made_in_reasonable_time(encoder: GatedEncoder):
    embeddings = LabelEmbeddings(encoder)
    for number in range(WAITING + 10):
        with pytest.raises(LabelsLateError):
            embeddings.of(labels_of(300, f"set {number}"), time.monotonic())
    encoder.gate.set()
    until(lambda: len(encoder.calls) == 2 * WAITING)
    # What was refused is made when it is asked for again.
    again = labels_of(300, f"set {WAITING + 5}")
    assert len(until(lambda: _or_none(embeddings, again)).weights) == 300
    assert len(encoder.calls) == 2 * WAITING + 2


def _or_none(embeddings: LabelEmbeddings, labels: Sequence[Label]) -> Any:
    try:
        return embeddings.of(labels, time.monotonic() + PATIENCE)
    except LabelsLateError:
        return None


def test_labels_that_failed_are_tried_again(encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch):
    embeddings, labels = LabelEmbeddings(encoder), labels_of(3)
    encoder.gate.set()

    def fail(texts: Sequence[str]) -> Any:
        raise EncoderError("broken", "mend it")

    for deadline in (None, time.monotonic() + PATIENCE):
        with monkeypatch.context() as broken:
            broken.setattr(encoder, "encode_texts", fail)
            with pytest.raises(EncoderError):
                embeddings.of(labels, deadline)
    assert len(embeddings.of(labels).weights) == 3


def test_memory_holds_the_label_sets_that_were_used_last(
    encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(label_embeddings, "CACHED_LABELS", 100)
    embeddings = LabelEmbeddings(encoder)
    encoder.gate.set()
    first, second, third = (labels_of(40, name) for name in "abc")
    embeddings.of(first)
    embeddings.of(second)
    embeddings.of(first)
    embeddings.of(third)
    before = len(encoder.calls)
    embeddings.of(first)
    embeddings.of(third)
    assert len(encoder.calls) == before
    embeddings.of(second)
    assert len(encoder.calls) == before + 1
    # One that is larger than all that is kept is kept as well: it is in use.
    large = labels_of(300)
    assert embeddings.of(large) is embeddings.of(large)
