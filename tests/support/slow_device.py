"""A CUDA device that is none: it computes at once, and is done when it is told to be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from tests.support.waiting import PATIENCE


class SlowDevice:
    """Takes the place of `torch.cuda` as far as forward passes use it.

    Attributes:
        go_on: set when what was started may be done.
        begun: released with each batch.
        captured: how many graphs were captured.
        replayed: how often one was replayed.
        cannot_capture: whether capturing fails.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Semaphore(0)
        self.captured = 0
        self.replayed = 0
        self.cannot_capture = False
        empty = torch.empty

        def unpinned(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
            return empty(*shape, **options)

        monkeypatch.setattr(torch, "empty", unpinned)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
        for name, value in {
            "Stream": lambda _: self,
            "stream": lambda _: nullcontext(),
            "synchronize": lambda _=None: None,
            "CUDAGraph": lambda: self,
            "graph": self._capture,
            "empty_cache": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def wait_stream(self, _: Any) -> None:
        """Nothing is computed later."""

    def record_event(self) -> SlowDevice:
        """This device is its own event."""
        self.begun.release()
        return self

    def synchronize(self) -> None:
        """Wait until the device is done."""
        assert self.go_on.wait(PATIENCE)

    @contextmanager
    def _capture(self, _: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        if self.cannot_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured += 1
        yield

    def replay(self) -> None:
        """Computes nothing: the embeddings stay those of the images at capture."""
        self.replayed += 1
