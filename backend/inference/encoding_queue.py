"""Batches on their way through the encoder; an image is in one of them at a time.

An image that two requests bring at once must not be encoded twice, since another batch may give
another last bit. So whoever wants to encode images claims them first, and the others get what comes
of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from queue import Empty, PriorityQueue

from backend import telemetry
from backend.encoders.base import Encoder
from backend.errors import ImageError
from backend.inference.batch_encoding import encode_batch
from backend.inference.preparer import Prepared
from backend.storage.vectors import Embedding, NewEmbedding

Encoded = tuple[list[NewEmbedding], dict[str, ImageError]]
"""What `encode_batch` returns."""


class Claim:
    """Images that nobody else encodes meanwhile.

    Attributes:
        keys: their content keys.
        outcome: set by `EncodingQueue.release`.
    """

    def __init__(self, keys: set[str]) -> None:
        self.keys = keys
        self.outcome: Future[Mapping[str, Embedding]] = Future()


class _Job:
    """A batch that waits; one that is cancelled keeps no pixels."""

    def __init__(self, images: list[Prepared]) -> None:
        self.images = images
        self.outcome: Future[Encoded] = Future()
        self.outcome.add_done_callback(lambda _: self.images.clear())


class EncodingQueue:
    """See the module. Thread-safe.

    Urgent batches go first; one that waits can be cancelled.

    Args:
        encoder: gets as many batches at the same time as it says.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._pool = ThreadPoolExecutor(encoder.concurrency, "encode")
        self._waiting: PriorityQueue[tuple[bool, int, _Job]] = PriorityQueue()
        self._numbers = count()
        self._claims: dict[str, Claim] = {}
        self._lock = threading.Lock()

    def claim(self, keys: Collection[str], claims: set[Claim]) -> tuple[Claim, dict[str, Claim]]:
        """Claim images by their content keys.

        Args:
            keys: of the images.
            claims: the caller's, each of which it must release and forget; the new one is added.

        Returns:
            A claim on those that nobody has claimed, and content key -> claim of the others.
        """
        with self._lock:
            others = {key: self._claims[key] for key in keys if key in self._claims}
            claim = Claim(set(keys) - others.keys())
            claims.add(claim)
            self._claims |= dict.fromkeys(claim.keys, claim)
        return claim, others

    def release(self, claim: Claim, embeddings: Mapping[str, Embedding]) -> None:
        """Say what came of a claim. Does nothing the second time.

        Images without an embedding may be claimed by others; for the rest, see `forget`.

        Args:
            claim: from `claim`.
            embeddings: content key -> embedding, of those that have one.
        """
        self._drop(claim, claim.keys - embeddings.keys())
        if not claim.outcome.done():
            claim.outcome.set_result(embeddings)

    def forget(self, claim: Claim) -> None:
        """Let others claim these images: they find the embeddings in the store now."""
        self._drop(claim, claim.keys)

    def _drop(self, claim: Claim, keys: Collection[str]) -> None:
        with self._lock:
            for key in keys:
                if self._claims.get(key) is claim:
                    del self._claims[key]

    def submit(self, images: Sequence[Prepared], *, is_urgent: bool) -> Future[Encoded]:
        """Encode images, each of another content."""
        job = _Job([*images])
        self._waiting.put((not is_urgent, next(self._numbers), job))
        try:
            self._pool.submit(self._encode_waiting)
        except BaseException:
            job.outcome.cancel()
            raise
        return job.outcome

    def _encode_waiting(self) -> None:
        with suppress(Empty):
            while True:
                *_, job = self._waiting.get_nowait()
                if job.outcome.set_running_or_notify_cancel():
                    try:
                        job.outcome.set_result(self._encode(job.images))
                    except BaseException as error:
                        job.outcome.set_exception(error)

    def _encode(self, images: Sequence[Prepared]) -> Encoded:
        if not images:
            return [], {}
        started = time.monotonic()
        rows, broken = encode_batch(self._encoder, images)
        telemetry.ENCODE_SECONDS.observe(time.monotonic() - started)
        telemetry.IMAGES_ENCODED.inc(len(rows))
        return rows, broken
