"""Scores are probabilities for any labels and any image."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from backend.runtime import Runtime
from tests.support.builders import (
    EVIDENCE,
    make_settings,
    photo,
    png_bytes,
)
from tests.support.predicting import predict
from tests.support.stub_encoder import StubEncoder

# Any labels, any image


@pytest.fixture(scope="module")
def any_runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.runtime.get_encoder", lambda *_: StubEncoder())
        return Runtime(make_settings(tmp_path_factory.mktemp("any") / "store"))


images = st.builds(
    lambda width, height, mode, seed: (mode, width, height, seed),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(["RGB", "L", "1", "RGBA", "P", "I;16", "flat"]),
    st.integers(0, 5),
)


def image_bytes(kind: tuple[str, int, int, int]) -> bytes:
    mode, width, height, seed = kind
    if mode == "flat":
        return png_bytes(Image.new("RGB", (width, height)))
    image = photo(seed, width, height)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
        return png_bytes(image)
    return png_bytes(image.convert(mode))


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(max_size=20), max_size=8), images, st.booleans())
def test_scores_are_probabilities_for_any_labels_and_any_image(
    any_runtime: Runtime, labels: list[str], kind: tuple[str, int, int, int], single: bool
):
    address = "data:image/png;base64," + base64.b64encode(image_bytes(kind)).decode()
    config = (
        '<View><Image name="image" value="$image"/><Choices name="t" toName="image" '
        f'choice="{"single" if single else "multiple"}" value="$o"/>{EVIDENCE}</View>'
    )
    one = {"id": 1, "data": {"image": address, "o": [{"value": label} for label in labels]}}
    (found,) = predict(any_runtime, config, [one])
    usable = {label for label in labels if label.strip()}
    assert set(found.probabilities.get("t", {})) == usable
    if usable:
        assert 0 < found.score <= 1
        assert all(0 <= p <= 1 for p in found.probabilities["t"].values())
        ticked = [item for item in found.result if item["type"] == "choices"]
        assert all(set(item["value"]["choices"]) <= usable for item in ticked)
        assert not single or all(len(item["value"]["choices"]) == 1 for item in ticked)
        json.dumps(found.as_item(), allow_nan=False)
    else:
        assert found.failure.reason == "no_labels"
