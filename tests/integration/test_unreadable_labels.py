"""Labels that the encoder cannot read: their texts say nothing, so that only images tell."""

from __future__ import annotations

import torch

from backend.inference.model_version import UNREADABLE_STRENGTH
from backend.labels.config import parse_config
from backend.runtime import Runtime
from tests.support.builders import choices_config, data_uri, task
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import PROJECT

TASKS = [task(number) for number in range(30)]


def scores(runtime: Runtime, *labels: str) -> torch.Tensor:
    config = parse_config(choices_config(*labels))
    runtime.versions.statistics.freeze(config, PROJECT, TASKS, runtime.embedder.embed)
    version = runtime.versions.get(config, PROJECT)
    (control,) = version.config.controls
    embeddings, _ = runtime.embedder.embed([data_uri(number) for number in range(5)])
    return version.z(control, list(embeddings.values()))


def test_their_score_is_nought_and_that_of_others_is_as_if_they_were_not_there(
    make_runtime: MakeRuntime,
):
    runtime = make_runtime()
    mixed = scores(runtime, "cat", "犬", "dog", "猿")
    assert not bool(mixed[:, [1, 3]].any())
    alone = scores(runtime, "cat", "dog")
    # But for the spread that all labels share.
    pair = torch.stack([mixed[:, [0, 2]].flatten(), alone.flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.999
    assert not bool(scores(runtime, "犬", "猿").any())


def test_a_prompt_gives_such_a_label_a_score(make_runtime: MakeRuntime):
    runtime = make_runtime()
    prompted = choices_config("cat", "犬").replace('"犬"', '"犬" model_prompt="a dog"')
    version = runtime.versions.get(parse_config(prompted), PROJECT)
    (control,) = version.config.controls
    assert not version.unreadable(control)


def test_similar_images_tell_relatively_more_of_them(make_runtime: MakeRuntime):
    runtime = make_runtime()
    config = parse_config(choices_config("cat", "犬"))
    version = runtime.versions.get(config, PROJECT)
    (control,) = version.config.controls
    assert version.unreadable(control) == {1} and UNREADABLE_STRENGTH == 1.0
