"""Forward passes of an image tower: at once on the CPU, and without waiting for copies on a GPU.

On a CUDA device a batch is copied from page-locked memory on a stream of its own while the device
computes the batch before
(https://docs.pytorch.org/docs/stable/notes/cuda.html#use-pinned-memory-buffers).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from backend.encoders.base import Floats, normalise

if TYPE_CHECKING:
    from torch import Tensor

    from backend.encoders.image_tower import ImageTower

log = logging.getLogger(__name__)

Finish = Callable[[], Floats]
"""Waits for the rows (N, rows of a crop, dim), float32, L2-normalised. Called once."""


class ForwardPasses(Protocol):
    """Runs a tower on crops.

    Attributes:
        tower: pixels to embeddings.
    """

    @property
    def tower(self) -> ImageTower: ...  # noqa: D102

    def start(self, images: Sequence[Tensor]) -> Finish:
        """Begin with these images: (crops, 3, H, W) each. Not thread-safe; what it returns is."""


class PassSize:
    """How many crops a forward pass is given: fewer once the device has run out of memory.

    Args:
        crops: at first.
    """

    def __init__(self, crops: int) -> None:
        self.crops = crops

    def each(self, pixels: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The outcomes of as many passes as these crops need.

        Raises:
            torch.OutOfMemoryError: not even one crop fits.
        """
        outcomes: list[Tensor] = []
        size = self.crops
        while len(pixels):
            part = pixels[:size]
            try:
                outcomes.append(run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                torch.cuda.empty_cache()
                size = len(part) // 2
                if len(part) == self.crops:
                    # For all later passes too: they would only fail again.
                    self.crops = size
                log.warning("The device is out of memory: passes of %d crops now.", size)
                continue
            pixels = pixels[len(part) :]
        return outcomes


class DirectPasses:
    """On the CPU, or on a GPU that has no streams: done when `start` returns.

    Args:
        tower: pixels to embeddings.
        device: where it is.
        crops: of a forward pass.
        autocast: compute in bfloat16 what is in float32, as the first release did.
    """

    def __init__(
        self, tower: ImageTower, device: torch.device, crops: int, *, autocast: bool = False
    ) -> None:
        self.tower = tower
        self._device = device
        self._size = PassSize(crops)
        self._autocast = autocast

    def start(self, images: Sequence[Tensor]) -> Finish:
        """See `ForwardPasses`."""
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast),
        ):
            outcomes = self._size.each(torch.cat(list(images)), self._run)
            rows = normalise(torch.cat(outcomes).float().cpu().numpy())
        return lambda: rows

    def _run(self, crops: Tensor) -> Tensor:
        embedded: Tensor = self.tower(crops.to(self._device))
        return embedded


class StreamedPasses:
    """On a CUDA device: `start` returns while the device copies and computes.

    Passes of the full size are replayed from a graph: the interpreter lock, for which the threads
    that decode compete, is then taken for a handful of calls instead of one for each kernel.

    Args:
        tower: pixels to embeddings.
        device: where it is.
        crops: of a forward pass.
    """

    def __init__(self, tower: ImageTower, device: torch.device, crops: int) -> None:
        self.tower = tower
        self._device = device
        self._size = PassSize(crops)
        new_stream: Any = torch.cuda.Stream
        self._copying = new_stream(device)
        self._computing = new_stream(device)
        self._graph: TowerGraph | None = None
        self._may_capture = True

    def start(self, images: Sequence[Tensor]) -> Finish:
        """See `ForwardPasses`."""
        first = images[0]
        shape = (sum(map(len, images)), *first.shape[1:])
        pixels = torch.empty(shape, dtype=first.dtype, pin_memory=True)
        torch.cat(list(images), out=pixels)
        with torch.inference_mode(), torch.cuda.stream(self._computing):
            rows = torch.cat(self._size.each(pixels, self._run)).float()
            host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            host.copy_(rows, non_blocking=True)
            done = self._computing.record_event()

        def finish() -> Floats:
            done.synchronize()
            return normalise(host.numpy())

        return finish

    def _run(self, crops: Tensor) -> Tensor:
        with torch.cuda.stream(self._copying):
            copied = crops.to(self._device, non_blocking=True)
        self._computing.wait_stream(self._copying)
        # Or its memory would be given away while it is still read.
        copied.record_stream(self._computing)
        graph = self._graph_of(copied) if len(crops) == self._size.crops else None
        embedded: Tensor = self.tower(copied) if graph is None else graph.replay(copied)
        return embedded

    def _graph_of(self, crops: Tensor) -> TowerGraph | None:
        """The graph for passes of this size, captured with the first of them; None: there is none.

        Raises:
            torch.OutOfMemoryError: the pass does not fit.
        """
        if self._graph is not None and self._graph.crops != len(crops):
            self._graph = None
        if self._graph is None and self._may_capture:
            try:
                self._graph = TowerGraph(self.tower, crops)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._may_capture = False
                log.warning("This model runs without a CUDA graph: %s", str(error)[:300])
        return self._graph


class TowerGraph:
    """A forward pass of one size, recorded once and replayed in one call.

    See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. Replays must follow each
    other on one stream.

    Args:
        tower: pixels to embeddings, on a CUDA device.
        crops: pixels of the size; on the same device.

    Raises:
        RuntimeError: the tower does something that cannot be recorded.
    """

    def __init__(self, tower: ImageTower, crops: Tensor) -> None:
        self.crops = len(crops)
        self._pixels = crops.clone()
        # Libraries set up what they need in the first calls, which must not be recorded.
        for _ in range(2):
            tower(self._pixels)
        torch.cuda.synchronize(crops.device)
        new_graph: Any = torch.cuda.CUDAGraph
        self._graph = new_graph()
        # Other threads may use the device meanwhile: for texts, say.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._embeddings: Tensor = tower(self._pixels)

    def replay(self, crops: Tensor) -> Tensor:
        """Embeddings of as many crops, on the current stream."""
        self._pixels.copy_(crops)
        self._graph.replay()
        return self._embeddings.clone()
