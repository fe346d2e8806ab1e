"""What `benchmarks.device` measures: the device alone, decoding alone, and both together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from backend.encoders.openclip import OpenClipEncoder
from backend.encoders.openclip_source import OpenClipSource
from backend.images.decoder import Decoder
from backend.settings import load_settings


class RandomSource(OpenClipSource):
    """A model at random weights; its texts cannot be encoded."""

    def open(self) -> tuple[Any, Any]:
        """See `OpenClipSource.open`."""
        torch.manual_seed(0)
        return open_clip.create_model(self.open_clip_name).eval(), None


def random_source(model: str, folder: Path) -> RandomSource:
    """A source that needs no checkpoint."""
    weights = folder / "none"
    weights.touch()
    config = open_clip.get_model_config(model)
    assert config is not None
    return RandomSource(model, model, weights, config, {})


@dataclass(frozen=True)
class Whole:
    """Attributes:
    images_per_second: from bytes to embeddings.
    waiting: share of the time in which the device computes nothing.
    """

    images_per_second: float
    waiting: float


class Busy:
    """Seconds in which a tower computes.

    Args:
        encoder: loaded.
    """

    def __init__(self, encoder: OpenClipEncoder) -> None:
        self._is_cuda = encoder.device.startswith("cuda")
        self._marks: list[tuple[Any, Any]] = []
        tower = encoder.tower
        self._hooks = [
            tower.register_forward_pre_hook(lambda *_: self._begin()),
            tower.register_forward_hook(lambda *_: self._end()),
        ]
        self._started: Any = None

    def _now(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _begin(self) -> None:
        self._started = self._now()

    def _end(self) -> None:
        self._marks.append((self._started, self._now()))

    def restart(self) -> None:
        """Forget what was until now."""
        self._marks.clear()

    def seconds(self) -> float:
        """Since `restart`; ends the measurement."""
        for hook in self._hooks:
            hook.remove()
        if self._is_cuda:
            torch.cuda.synchronize()
            return float(sum(start.elapsed_time(end) for start, end in self._marks)) / 1000
        return float(sum(end - start for start, end in self._marks))


def input_size(encoder: OpenClipEncoder) -> int:
    """Pixels along a side of what the model is given."""
    return int(encoder.prepare(Image.new("RGB", (64, 64))).shape[-1])


def _crops(encoder: OpenClipEncoder) -> int:
    return 10 if encoder.regions == "tiles" else 1


def forward_only(encoder: OpenClipEncoder, seconds: float) -> float:
    """Images a second of the tower, with the pixels on the device."""
    device = torch.device(encoder.device)
    size = input_size(encoder)
    crops = encoder.batch_size * _crops(encoder)
    pixels = torch.randint(0, 256, (crops, 3, size, size), dtype=torch.uint8).to(device)
    wait: Callable[[], object] = (
        torch.cuda.synchronize if device.type == "cuda" else partial(int, 0)
    )
    with torch.inference_mode():
        for _ in range(3):
            encoder.tower(pixels)
        wait()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(4):
                encoder.tower(pixels)
                done += encoder.batch_size
            wait()
        return done / (time.perf_counter() - started)


def decoding_only(encoder: OpenClipEncoder, data: bytes, seconds: float, workers: int) -> float:
    """Images a second that these threads decode and prepare."""
    ready: SimpleQueue[Any] = SimpleQueue()
    room = threading.Semaphore(2 * workers)
    with _Decoding(encoder, data, workers, room, ready):
        ready.get()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            ready.get()
            room.release()
            done += 1
        return done / (time.perf_counter() - started)


def end_to_end(encoder: OpenClipEncoder, data: bytes, seconds: float, workers: int) -> Whole:
    """From bytes to embeddings, with as many batches at once as the encoder says."""
    size = encoder.batch_size
    ready: SimpleQueue[Any] = SimpleQueue()
    room = threading.Semaphore(workers + (1 + encoder.concurrency) * size)
    taking, stop = threading.Lock(), threading.Event()
    done: SimpleQueue[int] = SimpleQueue()

    def encode() -> None:
        while not stop.is_set():
            with taking:
                batch = [ready.get() for _ in range(size)]
            encoder.encode_prepared(batch)
            room.release(size)
            done.put(size)

    busy = Busy(encoder)
    threads = [threading.Thread(target=encode) for _ in range(encoder.concurrency)]
    with _Decoding(encoder, data, workers, room, ready):
        for thread in threads:
            thread.start()
        # What is there at first is not at the rate of the whole.
        for _ in range(1 + encoder.concurrency):
            done.get()
        busy.restart()
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            images += done.get()
        spent = time.perf_counter() - started
        computing = busy.seconds()
        stop.set()
        for thread in threads:
            thread.join()
    return Whole(images / spent, max(0.0, 1 - computing / spent))


class _Decoding:
    """Threads that decode the same file again and again while there is room."""

    def __init__(
        self,
        encoder: OpenClipEncoder,
        data: bytes,
        workers: int,
        room: threading.Semaphore,
        ready: SimpleQueue[Any],
    ) -> None:
        self._decoder = Decoder(load_settings())
        self._stop = threading.Event()
        self._room, self._workers = room, workers

        def decode() -> None:
            while True:
                room.acquire()
                if self._stop.is_set():
                    return
                ready.put(self._decoder.decoded(data, encoder.prepare, encoder.draft_size))

        self._threads = [threading.Thread(target=decode) for _ in range(workers)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._room.release(self._workers)
        for thread in self._threads:
            thread.join()
        self._decoder.close()


class _Photos(Dataset[torch.Tensor]):
    """The same photo again and again, as most programs read it."""

    def __init__(self, data: bytes, transform: Any) -> None:
        self._data, self._transform = data, transform

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels: torch.Tensor = self._transform(Image.open(BytesIO(self._data)).convert("RGB"))
        return pixels


def with_data_loader(encoder: OpenClipEncoder, data: bytes, seconds: float, workers: int) -> float:
    """Images a second of PyTorch's DataLoader and the same tower."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(input_size(encoder)), is_train=False)
    device = torch.device(encoder.device)
    loader = DataLoader(
        _Photos(data, transform),
        batch_size=encoder.batch_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4,
    )
    batches = iter(loader)
    with torch.inference_mode():
        encoder.tower(next(batches).to(device)).cpu()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            pixels = next(batches).to(device, non_blocking=True)
            encoder.tower(pixels).cpu()
            done += len(pixels)
        return done / (time.perf_counter() - started)
