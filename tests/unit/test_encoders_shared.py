"""What all encoders share: label texts and embeddings, tiles, weight fingerprints."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.encoders.base import tile_boxes
from backend.encoders.label_texts import (
    TEXT_BATCH,
    label_embeddings,
    label_texts,
    unreadable_texts,
)
from backend.encoders.offline import OfflineEncoder
from backend.encoders.weights import fingerprint
from tests.support.builders import photo
from tests.support.waiting import PATIENCE


@pytest.fixture
def encoder(offline_encoder: OfflineEncoder) -> OfflineEncoder:
    return offline_encoder


def test_a_label_is_the_mean_of_its_texts(encoder: OfflineEncoder):
    texts = ["a dog", "a puppy"]
    mean = encoder.encode_texts(texts).mean(axis=0)
    expected = mean / np.linalg.norm(mean)
    embeddings = label_embeddings(encoder, [texts, ["a cat"]])
    assert np.abs(embeddings[0] - expected).max() < 1e-5
    assert embeddings.shape == (2, encoder.dim)
    assert label_embeddings(encoder, []).shape == (0, encoder.dim)


def test_prompts_are_read_as_they_are_and_underscores_are_blanks(encoder: OfflineEncoder):
    (template,) = encoder.templates
    assert label_texts(encoder, "red_car", ["my {} prompt"]) == ["my {} prompt"]
    assert label_texts(encoder, "red_car") == [template.replace("{}", "red car")]
    assert label_texts(encoder, "{0} {x}") == [template.replace("{}", "{0} {x}")]
    assert label_texts(encoder, "_") == [template.replace("{}", "_")]


def test_labels_in_a_script_that_the_model_cannot_read_are_found(encoder: OfflineEncoder):
    labels = ["犬", "собака", "dog", "señal", "3 % & 🙂", "自転車 bike"]
    assert unreadable_texts(encoder, labels) == ["犬", "собака", "自転車 bike"]


def test_a_multilingual_model_reads_every_script(
    encoder: OfflineEncoder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encoder, "multilingual", True)
    assert unreadable_texts(encoder, ["犬"]) == []


@pytest.mark.parametrize("size", [(100, 60), (3, 2), (1, 1), (1, 50)])
def test_nine_tiles_cover_the_image_in_reading_order(size: tuple[int, int]):
    marked = Image.new("RGB", size)
    marked.putpixel((size[0] - 1, size[1] - 1), (255, 0, 0))
    crops = [marked.crop(box) for box in tile_boxes(*size)]
    assert len(crops) == 9
    assert all(min(tile.size) >= 1 for tile in crops)
    assert crops[8].getpixel((crops[8].width - 1, crops[8].height - 1)) == (255, 0, 0)


def test_a_fingerprint_follows_the_content(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = fingerprint(file, tmp_path / "cache")
    assert first == fingerprint(file, tmp_path / "cache")
    file.write_bytes(b"three")
    assert fingerprint(file, tmp_path / "cache") != first
    file.write_bytes(b"one")
    assert fingerprint(file, tmp_path / "cache") == first


def test_a_fingerprint_needs_no_writable_cache(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert len(fingerprint(file, tmp_path / "cache")) == 12


def test_a_damaged_fingerprint_cache_is_ignored(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    (tmp_path / "fingerprints.json").write_text("[1")
    assert len(fingerprint(file, tmp_path)) == 12


def test_images_do_not_wait_for_the_texts_of_many_labels(
    encoder: OfflineEncoder, monkeypatch: pytest.MonkeyPatch
):
    encoder.load()
    inside, go_on = threading.Event(), threading.Event()
    sentences = encoder._sentences

    def wait(texts: Sequence[str]) -> Any:
        inside.set()
        assert go_on.wait(PATIENCE)
        return sentences(texts)

    monkeypatch.setattr(encoder, "_sentences", wait)
    with ThreadPoolExecutor(1) as pool:
        texts = pool.submit(encoder.encode_texts, ["a cat"])
        assert inside.wait(PATIENCE)
        images = encoder.encode_images([photo(1)])
        assert not texts.done()
        go_on.set()
    assert images.image.shape == (1, encoder.dim)


def test_texts_are_encoded_in_batches_that_are_counted(encoder: OfflineEncoder):
    told: list[tuple[int, int]] = []
    prompts = [[f"a {number}", f"the {number}"] for number in range(TEXT_BATCH)]
    embeddings = label_embeddings(encoder, prompts, lambda *counts: told.append(counts))
    assert told == [(TEXT_BATCH, 2 * TEXT_BATCH), (2 * TEXT_BATCH, 2 * TEXT_BATCH)]
    assert embeddings.shape == (TEXT_BATCH, encoder.dim)
