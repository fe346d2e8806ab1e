"""Forward passes: what a GPU is given, and when; without a GPU on one that is made up."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from backend.encoders.base import normalise
from backend.encoders.forward_passes import DirectPasses, StreamedPasses
from backend.encoders.image_tower import _thirds
from backend.encoders.openclip import CUDA_BATCHES
from tests.support.builders import photo
from tests.support.openclip import TOWERS, model_folder, openclip_encoder
from tests.support.slow_device import SlowDevice
from tests.support.waiting import PATIENCE

CPU = torch.device("cpu")
IMAGES = [torch.full((1, 3, 4, 4), number, dtype=torch.uint8) for number in range(10)]


class Tower(torch.nn.Module):
    """Three numbers of each crop; remembers how many it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.most = 1000

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        means = pixels.float().mean(dim=(1, 2, 3))
        return torch.stack([means + 1, means * means, torch.ones_like(means)], 1)[:, None]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SlowDevice:
    return SlowDevice(monkeypatch)


def streamed(tower: Any, crops: int) -> StreamedPasses:
    return StreamedPasses(tower, CPU, crops)


def expected(images: list[torch.Tensor]) -> np.ndarray[Any, Any]:
    return normalise(Tower()(torch.cat(images)).numpy())


def test_passes_give_all_rows_in_order(device: SlowDevice):
    for passes in (DirectPasses(Tower(), CPU, 4), streamed(Tower(), 64)):  # type: ignore[arg-type]
        assert np.allclose(passes.start(IMAGES)(), expected(IMAGES))


def test_a_pass_is_started_without_waiting_for_the_device(device: SlowDevice):
    passes = streamed(Tower(), 64)
    device.go_on.clear()
    first, second = passes.start(IMAGES[:4]), passes.start(IMAGES[4:])
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(first), pool.submit(second)]
        assert not any(answer.done() for answer in answers)
        device.go_on.set()
        rows = [answer.result(PATIENCE) for answer in answers]
    assert np.allclose(np.concatenate(rows), expected(IMAGES))


def test_full_passes_are_replayed_and_others_are_not(device: SlowDevice):
    tower = Tower()
    passes = streamed(tower, 4)
    passes.start(IMAGES)()
    assert (device.captured, device.replayed) == (1, 2)
    # Twice to set up, once to record, and the rest of two.
    assert tower.sizes == [4, 4, 4, 2]
    passes.start(IMAGES[:4])()
    assert (device.captured, device.replayed) == (1, 3)


def test_a_model_that_cannot_be_recorded_runs_as_it_is(
    device: SlowDevice, caplog: pytest.LogCaptureFixture
):
    device.cannot_capture = True
    passes = streamed(Tower(), 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.allclose(passes.start(IMAGES)(), expected(IMAGES))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert device.replayed == 0


def test_a_device_out_of_memory_gets_half_and_a_graph_of_that_size(device: SlowDevice):
    tower = Tower()
    tower.most = 4
    passes = streamed(tower, 8)
    passes.start([*IMAGES[:8]])()
    assert max(tower.sizes[1:]) == 4
    assert (device.captured, device.replayed) == (1, 2)
    tower.sizes.clear()
    passes.start([*IMAGES[:8]])()
    assert tower.sizes == []


def test_a_remainder_that_does_not_fit_once_makes_no_later_pass_smaller():
    tower = Tower()
    passes = DirectPasses(tower, CPU, 4)  # type: ignore[arg-type]
    whole, refused = tower.forward, []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) == 2 and not refused:
            refused.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(pixels)

    tower.forward = forward  # type: ignore[method-assign]
    assert np.allclose(passes.start(IMAGES)(), expected(IMAGES))
    assert tower.sizes == [4, 4, 1, 1]
    tower.sizes.clear()
    passes.start(IMAGES)()
    assert tower.sizes == [4, 4, 2]


def test_one_crop_that_does_not_fit_is_an_error(device: SlowDevice):
    tower = Tower()
    tower.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        streamed(tower, 8).start(IMAGES)


def test_an_encoder_starts_a_batch_while_another_is_computed(
    device: SlowDevice, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    encoder = openclip_encoder(
        f"local-dir:{model_folder(tmp_path / 'tiny', TOWERS, {})}",
        device="cpu",
        precision="float32",
    )
    photos = [encoder.prepare(photo(seed)) for seed in range(4)]
    exact = encoder.encode_prepared(photos)
    monkeypatch.setattr(encoder, "_passes", streamed(encoder.tower, 256))
    device.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(encoder.encode_prepared, photos[start:][:2]) for start in (0, 2)]
        assert all(device.begun.acquire(timeout=PATIENCE) for _ in answers)
        assert not any(answer.done() for answer in answers)
        device.go_on.set()
        parts = [answer.result(PATIENCE) for answer in answers]
    assert np.abs(np.concatenate([part.image for part in parts]) - exact.image).max() < 1e-5


def test_what_a_map_weighs_is_made_once_for_a_device():
    """A CUDA graph cannot record how it comes there."""
    assert _thirds(7, torch.float32, CPU) is _thirds(7, torch.float32, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("regions", ["none", "tiles", "patches"])
def test_a_gpu_gives_what_the_cpu_gives(tmp_path: Any, regions: str, precision: str):
    name = f"local-dir:{model_folder(tmp_path / 'tiny', TOWERS, {})}"
    options = {"precision": precision, "regions": regions}
    ours = openclip_encoder(name, device="cuda", batch_size=8, **options)
    theirs = openclip_encoder(name, device="cpu", **options)
    assert ours.concurrency == CUDA_BATCHES
    photos = [photo(seed, 90 + 30 * (seed % 3), 60) for seed in range(20)]
    with ThreadPoolExecutor(CUDA_BATCHES) as pool:
        batches = [[ours.prepare(one) for one in photos[start:][:8]] for start in range(0, 20, 8)]
        parts = list(pool.map(ours.encode_prepared, batches))
    exact = theirs.encode_images(photos)
    cosines = (np.concatenate([part.image for part in parts]) * exact.image).sum(1)
    assert cosines.min() > (0.9999 if precision == "float32" else 0.99)
