"""From tasks to predictions: same version, same bytes; every task is answered, in order."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from backend.errors import ImageError, ImageReason
from backend.images.fetcher import ImageFetcher
from backend.images.validators import FetchedFile, Validators
from backend.inference.embedder import Embedder
from backend.inference.prediction import logged
from backend.inference.predictor import Predictor
from backend.inference.versions import ModelVersions
from backend.labels.config import parse_config
from backend.storage.store import Store
from tests.support.builders import (
    EVIDENCE,
    LABELS,
    ROOT,
    choices_config,
    data_uri,
    make_settings,
    task,
)
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import NO_IMAGE, PROJECT, items, predict
from tests.support.processes import child_environment
from tests.support.stub_encoder import StubEncoder


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**30])
def test_a_task_whose_number_no_database_holds_is_answered_and_not_remembered(
    make_runtime: MakeRuntime, number: int
):
    runtime = make_runtime()
    made = predict(runtime, choices_config(), [task(number, image=data_uri(1))])
    assert made[0].result is not None
    runtime.prediction_log.add(PROJECT, logged(made))
    assert made[0].task is None


@pytest.fixture
def eager() -> str:
    """A config whose labels are all suggested, with the evidence control."""
    return choices_config(attributes='choice="multiple" model_score_threshold="0"', extra=EVIDENCE)


# The shape of a prediction


def test_a_prediction_is_one_choices_item_and_the_evidence(make_runtime: MakeRuntime, eager: str):
    (found,) = predict(make_runtime(), eager, [task(1)])
    choices, evidence = found.result
    assert choices == {
        "from_name": "tags",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(LABELS)},
    }
    assert (evidence["from_name"], evidence["type"]) == ("clip_evidence", "textarea")
    text = "\n".join(evidence["value"]["text"])
    assert "not calibrated yet" in text
    assert all(label in text for label in LABELS)


def test_there_is_no_evidence_item_without_its_control(make_runtime: MakeRuntime):
    config = choices_config(attributes='choice="multiple" model_score_threshold="0"')
    (found,) = predict(make_runtime(), config, [task(1)])
    assert [item["type"] for item in found.result] == ["choices"]


def test_nothing_over_the_threshold_is_an_answer_all_the_same(make_runtime: MakeRuntime):
    config = choices_config(attributes='choice="multiple" model_score_threshold="1"')
    (found,) = predict(make_runtime(), config, [task(1)])
    assert found.as_item()["result"] == []


def test_each_control_gets_one_item_with_its_own_labels(make_runtime: MakeRuntime):
    config = (
        '<View><Image name="image" value="$image"/>'
        '<Choices name="a" toName="image" choice="multiple" model_score_threshold="0">'
        '<Choice value="x"/><Choice value="y" alias="Y1"/></Choices>'
        '<Taxonomy name="b" toName="image" model_score_threshold="0">'
        '<Choice value="p"><Choice value="q"/></Choice></Taxonomy></View>'
    )
    (found,) = predict(make_runtime(), config, [task(1)])
    assert [item["value"] for item in found.result] == [
        {"choices": ["x", "Y1"]},
        {"taxonomy": [["p"], ["p", "q"]]},
    ]


def test_a_single_choice_gets_the_most_probable_label_only(make_runtime: MakeRuntime):
    config = choices_config(attributes='choice="single" model_score_threshold="0"')
    (found,) = predict(make_runtime(), config, [task(1)])
    best = max(found.probabilities["tags"], key=found.probabilities["tags"].__getitem__)
    assert found.result[0]["value"] == {"choices": [best]}


FOREIGN = (
    '<View><Image name="image" value="$image"/><Choices name="t" toName="image" '
    'choice="multiple" model_score_threshold="0"><Choice value="cat"/><Choice value="犬"/>'
    '<Choice value="猿" model_score_threshold="0"/><Choice value="猫" model_prompt="a cat"/>'
    '</Choices><TextArea name="clip_evidence" toName="image"/></View>'
)


def test_a_label_that_the_encoder_cannot_read_is_not_ticked_whatever_the_common_threshold(
    make_runtime: MakeRuntime,
):
    (found,) = predict(make_runtime(LS_CLIP_THRESHOLD="0"), FOREIGN, [task(1)])
    choices, evidence = found.result
    assert choices["value"] == {"choices": ["cat", "猿", "猫"]}
    suggested, unread, *_ = evidence["value"]["text"]
    assert "犬" not in suggested
    assert unread == "cannot be read by the encoder: 犬, 猿"


def test_a_multilingual_encoder_reads_every_label(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    runtime = make_runtime()
    monkeypatch.setattr(type(runtime.encoder), "multilingual", True)
    (found,) = predict(runtime, FOREIGN, [task(1)])
    assert found.result[0]["value"] == {"choices": ["cat", "犬", "猿", "猫"]}


def test_labels_from_the_task_are_scored_for_that_task(make_runtime: MakeRuntime):
    config = (
        '<View><Image name="image" value="$image"/><Choices name="t" toName="image" '
        'choice="multiple" value="$o" model_score_threshold="0"/></View>'
    )
    tasks = [
        {
            "id": 1,
            "data": {"image": data_uri(1), "o": [{"value": "cat"}, {"value": "dog", "alias": "D"}]},
        },
        {"id": 2, "data": {"image": data_uri(2), "o": "garbage"}},
        {
            "id": 3,
            "data": {"image": data_uri(3), "o": [{"value": "boat"}, "shown as an empty box"]},
        },
    ]
    first, second, third = predict(make_runtime(), config, tasks)
    assert first.result[0]["value"] == {"choices": ["cat", "D"]}
    assert second.failure.reason == "no_labels"
    assert third.result[0]["value"] == {"choices": ["boat"]}


def test_thresholds_of_choice_control_and_setting_override_in_that_order(
    make_runtime: MakeRuntime,
):
    config = (
        '<View><Image name="image" value="$image"/><Choices name="t" toName="image" '
        'choice="multiple"{}><Choice value="x" model_score_threshold="{}"/><Choice value="y"/>'
        "</Choices></View>"
    )

    def ticked(control: str, choice: str, **values: Any) -> list[str]:
        (found,) = predict(make_runtime(**values), config.format(control, choice), [task(1)])
        return found.result[0]["value"]["choices"] if found.result else []

    assert ticked("", "0", threshold=1.0) == ["x"]
    assert ticked("", "1", threshold=0.0) == ["y"]
    assert ticked(' model_score_threshold="0"', "1", threshold=1.0) == ["y"]
    assert ticked(' model_score_threshold="1"', "0", threshold=0.0) == ["x"]


def test_prompts_are_what_is_compared_with_the_image(make_runtime: MakeRuntime):
    runtime = make_runtime()
    plain = choices_config("A1", "dog")
    prompted = plain.replace('"A1"', '"A1" model_prompt="a photo of zebra."')
    (found,) = predict(runtime, prompted, [task(1)])
    (zebra,) = predict(runtime, choices_config("zebra", "dog"), [task(1)])
    (unprompted,) = predict(runtime, plain, [task(1)])
    assert found.probabilities["tags"]["A1"] == zebra.probabilities["tags"]["zebra"]
    assert found.probabilities["tags"]["A1"] != unprompted.probabilities["tags"]["A1"]


# Confidence


def test_confidence_follows_from_the_expected_changes(make_runtime: MakeRuntime, eager: str):
    (found,) = predict(make_runtime(), eager, [task(1)])
    # All boxes are ticked, so each is expected to change with 1 - p.
    changes = sum(1 - p for p in found.probabilities["tags"].values())
    assert found.score == pytest.approx(1 / (1 + changes), abs=1e-5)


def test_the_confidence_of_several_controls_counts_all_their_boxes(make_runtime: MakeRuntime):
    one = '<Choices name="{}" toName="image" choice="multiple"><Choice value="x"/></Choices>'
    image = '<Image name="image" value="$image"/>'
    runtime = make_runtime()
    (single,) = predict(runtime, f"<View>{image}{one.format('a')}</View>", [task(1)])
    both_config = f"<View>{image}{one.format('a')}{one.format('b')}</View>"
    (both,) = predict(runtime, both_config, [task(1)])
    assert 1 / both.score - 1 == pytest.approx(2 * (1 / single.score - 1), abs=1e-4)


# Failures


def test_failures_are_items_without_a_result_in_their_places(make_runtime: MakeRuntime, eager: str):
    tasks = [task(1), NO_IMAGE, task(2), {"id": 91, "data": {}}, {}, task(3)]
    found = predict(make_runtime(), eager, tasks)
    assert [one.task for one in found] == [1, 90, 2, 91, None, 3]
    assert [one.result is None for one in found] == [False, True, False, True, True, False]
    assert [one.failure and one.failure.reason for one in found] == [
        *(None, "unsupported_format", None, "no_image", "no_image", None)
    ]
    assert "result" not in found[1].as_item()
    assert len({one.model_version for one in found}) == 1


GARBAGE: list[Any] = [
    *({}, {"id": None}, {"id": "x", "data": None}, {"data": []}, {"data": {"image": None}}),
    *({"data": {"image": 3}}, {"data": {"image": ["x"]}}, {"data": {"image": ""}}),
    *({"data": {"image": "  "}}, {"data": {"image": "\x00"}}, {"data": {"image": "\ud800"}}),
    *({"data": {"image": "data:\ud800"}}, {"data": {"image": "data:image/png;base64,%%%"}}),
    *({"data": {"image": "/data/../../etc/passwd"}}, {"data": {"image": "file:///etc/passwd"}}),
    *(
        {"data": {"image": "http://"}},
        {"data": {"image": "http://[::1"}},
        {"data": {"image": "//"}},
    ),
    *({"data": {"image": "/tasks/1/resolve/?fileuri=%%%"}}, {"id": True, "data": {"image": "x"}}),
    *({"id": 1, "data": {"image": "s3://\ud800"}}, {"data": {"image": "http://a\nb/"}}),
]


def test_garbage_tasks_are_answered_and_harm_no_neighbour(make_runtime: MakeRuntime, eager: str):
    runtime = make_runtime(offline=True)
    tasks = [*itertools.chain.from_iterable((one, task(1)) for one in GARBAGE)]
    found = predict(runtime, eager, tasks)
    assert len(found) == len(tasks)
    assert all(one.result is None and one.failure is not None for one in found[::2])
    assert all(one.result is not None for one in found[1::2])


def test_half_a_character_is_no_label(make_runtime: MakeRuntime):
    config = (
        '<View><Image name="image" value="$image"/>'
        '<Choices name="t" toName="image" choice="multiple" value="$o"/></View>'
    )
    one = {
        "id": 1,
        "data": {
            "image": data_uri(1),
            "o": [{"value": name} for name in ("\ud800", "dog", "x\udfff")],
        },
    }
    (found,) = predict(make_runtime(), config, [one])
    assert set(found.probabilities["t"]) == {"dog"}


def test_a_config_without_controls_leaves_the_task_open(make_runtime: MakeRuntime):
    (found,) = predict(make_runtime(), "<View/>", [task(1)])
    assert found.as_item()["error"]["code"] == "no_controls"
    assert found.failure.reason == "no_controls"


def test_a_late_image_is_a_failure_of_its_task_only(make_runtime: MakeRuntime, eager: str):
    runtime = make_runtime()
    release = threading.Event()
    source = runtime.embedder._preparer._fetcher
    fetched = source.fetch_file

    def fetch(value: str, known: Validators) -> FetchedFile | None:
        if value == "http://slow/":
            release.wait(30)
            raise ImageError(ImageReason.UNREACHABLE, "gone")
        return fetched(value, known)

    source.fetch_file = fetch  # type: ignore[method-assign]
    predictor = Predictor(runtime.versions.get(parse_config(eager), PROJECT), runtime.embedder)
    slow = {"id": 2, "data": {"image": "http://slow/"}}
    try:
        found = predictor.predict([task(1), slow, task(3)], deadline_seconds=2)
    finally:
        release.set()
    assert [one.result is None for one in found] == [False, True, False]
    assert found[1].failure.reason == "timeout"


# Same version, same bytes


TASKS = [task(number) for number in range(1, 8)]


def test_one_by_one_in_bulk_and_in_any_order_are_the_same_bytes(
    make_runtime: MakeRuntime, eager: str
):
    runtime = make_runtime()
    single = [predict(runtime, eager, [one])[0] for one in TASKS]
    bulk = predict(runtime, eager, TASKS)
    backwards = predict(runtime, eager, TASKS[::-1])[::-1]
    assert items(single) == items(bulk) == items(backwards)


def test_fresh_and_stored_embeddings_give_the_same_bytes(make_runtime: MakeRuntime, eager: str):
    encoder = StubEncoder()
    fresh = items(predict(make_runtime(encoder), eager, TASKS))
    assert encoder.images == len(TASKS)
    assert items(predict(make_runtime(encoder), eager, TASKS)) == fresh
    assert encoder.images == len(TASKS)


_OTHER_PROCESS = """
import json, sys
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.runtime import process_runtime
request = json.load(sys.stdin)
runtime = process_runtime()
version = runtime.versions.get(parse_config(request["config"]), request["project"])
predictions = Predictor(version, runtime.embedder).predict(request["tasks"])
print(json.dumps([prediction.as_item() for prediction in predictions]))
"""


def test_another_process_and_a_restart_give_the_same_bytes(
    tmp_path: Path, eager: str, offline_encoder: Any
):
    settings = make_settings(tmp_path / "store")
    request = {"config": eager, "project": PROJECT, "tasks": TASKS[:3]}
    other = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        input=json.dumps(request),
        env=child_environment({"LS_CLIP_STORE": settings.store, "LS_CLIP_ENCODER": "offline"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    store = Store(settings.store)
    embedder = Embedder(settings, offline_encoder, store, ImageFetcher(settings, dict))
    version = ModelVersions(settings, offline_encoder, store).get(parse_config(eager), PROJECT)
    predictor = Predictor(version, embedder)
    live = [predictor.predict([one])[0] for one in TASKS[:3]]
    assert items(live) == other.stdout.strip()


TWO_IMAGES = (
    '<View><Image name="a" value="$image"/><Image name="b" value="$second"/>'
    '<Choices name="t" toName="a" choice="multiple"><Choice value="x"/></Choices>'
    '<Choices name="u" toName="b" choice="multiple"><Choice value="y"/></Choices></View>'
)


def test_a_prediction_that_lacks_one_of_two_images_says_so(make_runtime: MakeRuntime):
    runtime = make_runtime()
    good = {"id": 1, "data": {"image": data_uri(1), "second": data_uri(2)}}
    half = {"id": 2, "data": {"image": data_uri(1), "second": "data:image/png;base64,AAAA"}}
    first, second = predict(runtime, TWO_IMAGES, [good, half])
    assert first.failure is None
    assert second.result is not None
    assert second.failure is not None


def test_labels_of_one_task_do_not_keep_another_waiting(make_runtime: MakeRuntime):
    runtime = make_runtime()
    begun, release = threading.Event(), threading.Event()
    encode = runtime.encoder.encode_texts

    def slow(texts: Any) -> Any:
        if any("slow" in text for text in texts):
            begun.set()
            assert release.wait(30)
        return encode(texts)

    runtime.encoder.encode_texts = slow  # type: ignore[method-assign]
    other = threading.Thread(
        target=predict, args=(runtime, choices_config("slow"), [task(1)]), daemon=True
    )
    other.start()
    assert begun.wait(30)
    (found,) = predict(runtime, choices_config("quick"), [task(2)])
    assert found.result is not None
    release.set()
    other.join(30)
