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
from dataclasses import dataclass
from itertools import count
from queue import PriorityQueue

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


@dataclass(frozen=True)
class _Job:
    images: Sequence[Prepared]
    outcome: Future[Encoded]


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
            claims: the caller's, each of which it must release; the new one is added.

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
        """Let others claim these images.

        Args:
            claim: not released before.
            embeddings: content key -> embedding, of those that have one.
        """
        with self._lock:
            for key in claim.keys:
                self._claims.pop(key, None)
        claim.outcome.set_result(embeddings)

    def submit(self, images: Sequence[Prepared], *, is_urgent: bool) -> Future[Encoded]:
        """Encode images, each of another content."""
        outcome: Future[Encoded] = Future()
        self._waiting.put((not is_urgent, next(self._numbers), _Job(images, outcome)))
        self._pool.submit(self._encode_next)
        return outcome

    def _encode_next(self) -> None:
        *_, job = self._waiting.get_nowait()
        if not job.outcome.set_running_or_notify_cancel():
            return
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
