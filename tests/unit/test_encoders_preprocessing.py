"""Preparing pixels: the transforms that models were trained with, and those of earlier releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from backend.encoders.base import tile_boxes
from backend.encoders.offline import OfflineEncoder
from backend.encoders.preprocessing import TensorPreprocessing
from backend.encoders.registry import get_encoder
from tests.support.builders import make_settings, photo
from tests.support.openclip import openclip_encoder

SIZES = [(64, 64), (97, 41), (41, 97), (120, 31), (33, 130), (7, 5), (1, 1), (640, 427)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_bytes_are_those_of_torchvision_on_pillow(
    size: tuple[int, int], mode: str, interpolation: str
):
    image = photo(5, *size)
    reference = image_transform_v2(
        PreprocessCfg(
            32, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation=interpolation
        ),
        is_train=False,
    )
    ours = TensorPreprocessing(32, mode, interpolation, tiled=False).prepare(image)
    assert ours.dtype == torch.uint8
    assert ours.shape == (1, 3, 32, 32)
    difference = (ours[0].float() - 255 * reference(image)).abs()
    assert difference.max() <= 2.01
    assert difference.mean() < 0.2


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_of_a_strip_only_the_middle_is_resized(size: tuple[int, int]):
    """Its shorter side scaled to 224 would make 9 GB of pixels."""
    strip = Image.new("RGB", size, (200, 10, 10))
    pixels = TensorPreprocessing(224, "shortest", "bicubic", tiled=True).prepare(strip)
    assert pixels.shape == (10, 3, 224, 224)
    assert (pixels == torch.tensor([200, 10, 10], dtype=torch.uint8)[:, None, None]).all()


def test_tiles_follow_the_image_in_reading_order():
    image = photo(2, 90, 61)
    together = TensorPreprocessing(16, "shortest", "bicubic", tiled=True).prepare(image)
    alone = TensorPreprocessing(16, "shortest", "bicubic", tiled=False)
    crops = [image, *(image.crop(box) for box in tile_boxes(*image.size))]
    assert torch.equal(together, torch.cat([alone.prepare(crop) for crop in crops]))


def test_a_jpeg_keeps_twice_as_many_pixels_as_the_input_and_each_tile_has():
    sizes = [
        TensorPreprocessing(size, "shortest", "bicubic", tiled=tiled).draft_size
        for size, tiled in [(224, False), (224, True), (384, True)]
    ]
    assert sizes == [448, 896, 1536]


# What earlier releases stored


@pytest.fixture
def names(tmp_path: Path) -> dict[str, str]:
    """Kind of model -> the encoder setting; no weights are read."""
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(b"only its name matters here")
    return {
        "offline": "offline",
        "map": f"open_clip:convnext_base/{checkpoint}",
        "vit": f"open_clip:ViT-B-32-256/{checkpoint}",
    }


@pytest.mark.parametrize("kind", ["offline", "map", "vit"])
@pytest.mark.parametrize("regions", ["auto", "none", "tiles"])
def test_a_store_keeps_the_encoder_that_its_embeddings_were_made_with(
    kind: str, regions: str, names: dict[str, str], tmp_path: Path
):
    wanted = make_settings(tmp_path, encoder=names[kind], regions=regions, device="cpu")
    present = get_encoder(wanted)
    assert "-u8-" in present.id
    earlier = get_encoder(wanted, lambda encoder_id, _: "-u8-" not in encoder_id)
    assert "-u8-" not in earlier.id
    assert earlier.regions == ("tiles" if kind == "map" and regions == "auto" else present.regions)
    # A store with both has been used by this release already.
    assert get_encoder(wanted, lambda *_: True) is present
    assert get_encoder(wanted, lambda *_: False) is present


def test_regions_that_earlier_releases_did_not_have_are_not_looked_for(
    names: dict[str, str], tmp_path: Path
):
    wanted = make_settings(tmp_path, encoder=names["vit"], regions="patches", device="cpu")
    asked: list[str] = []

    def is_stored(encoder_id: str, dim: int) -> bool:
        asked.append(encoder_id)
        return False

    get_encoder(wanted, is_stored)
    (only,) = asked
    assert "-u8-patches-" in only


def test_the_ids_of_earlier_releases_have_not_changed(names: dict[str, str]):
    offline = OfflineEncoder(earlier=True).id
    assert offline.endswith("-k0.1-squash224-cells-int8-float32")
    name = names["vit"].removeprefix("open_clip:")
    vit = openclip_encoder(name, device="cpu", precision="float32", earlier=True).id
    assert vit == "openclip-ViT-B-32-256-3cf857a87d99-a4bba0dc-tiles-int8-float32"


def test_earlier_pixels_of_the_offline_encoder_are_pillows():
    image = photo(3, 70, 50)
    pixels = OfflineEncoder("tiles", earlier=True).prepare(image)
    tile = image.crop(tile_boxes(70, 50)[4]).resize((224, 224), Image.Resampling.BICUBIC)
    expected = np.asarray(tile, np.float32) / 127.5 - 1.0
    assert np.array_equal(pixels[5].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("tiled", [False, True])
def test_pixels_are_the_same_read_where_they_lie_or_copied(
    mode: str, tiled: bool, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: object) -> None:
        raise ValueError("Image rows are not contiguous in memory.")

    preprocessing = TensorPreprocessing(32, mode, "bicubic", tiled=tiled)
    image = photo(3, 130, 90)
    in_place = preprocessing.prepare(image)
    monkeypatch.setattr(pa, "array", refuse)
    assert torch.equal(in_place, preprocessing.prepare(image))
    assert in_place.shape == (10 if tiled else 1, 3, 32, 32)


def test_an_image_too_large_for_one_block_is_prepared():
    assert TensorPreprocessing(32, "squash", "bicubic", tiled=False).prepare(
        Image.new("RGB", (4000, 3000), (9, 8, 7))
    )[0, :, 5, 5].tolist() == [9, 8, 7]
