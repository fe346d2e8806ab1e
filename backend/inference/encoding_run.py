"""One call of the embedder: images are fetched, prepared, encoded and stored at the same time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any

from backend.encoders.base import Encoder
from backend.errors import StoreError
from backend.images.address import loggable
from backend.inference.embedding_writer import EmbeddingWriter, store_failed
from backend.inference.encoding_queue import Claim, Encoded, EncodingQueue
from backend.inference.image_failures import Failures, as_image_error, late
from backend.inference.known_images import KnownImages
from backend.inference.preparer import Known, Prepared, Preparer
from backend.storage.vectors import Embedding, NewEmbedding

log = logging.getLogger(__name__)

URGENT = 8
"""Images encoded at once where there is a deadline: a batch cannot be cut short."""
BEAT_SECONDS = 1.0
"""While no image is ready, `Step` is called this often."""

Step = Callable[[int, int, int], None]
"""Called after each batch, and while images take long, with the numbers of images that the store
had already, that were encoded and that failed so far; may raise to stop."""


@dataclass(frozen=True)
class Limits:
    """How much of a run is under way at once.

    Attributes:
        size: images that are encoded together.
        batches: that are with the encoder, or next.
        images: that are fetched, wait decoded or are being encoded. Memory stays flat however
            long the list is.
        deadline: `time.monotonic` at which the caller must answer; None: however long it takes.
    """

    size: int
    batches: int
    images: int
    deadline: float | None

    @classmethod
    def of(cls, encoder: Encoder, fetch_workers: int, deadline: float | None) -> Limits:
        """For this encoder and as many fetches at once."""
        size = encoder.batch_size if deadline is None else min(URGENT, encoder.batch_size)
        # One more, which is looked up in the store already when the encoder has time for it.
        batches = encoder.concurrency + 1
        return cls(size, batches, fetch_workers + (1 + batches) * size, deadline)

    @property
    def is_urgent(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline is not None

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has."""
        return self.seconds_left == 0.0


@dataclass(frozen=True)
class _Batch:
    """Images with the encoder.

    Attributes:
        claim: on them.
        images: all of them, also those that are stored.
        stored: content key -> embedding.
    """

    claim: Claim
    images: list[Prepared]
    stored: dict[str, Embedding]


class EncodingRun:
    """See the module. For one call of `run`. Not thread-safe.

    Args:
        preparer: from addresses to pixels.
        encoding: where batches are encoded.
        writer: keeps the embeddings.
        known_images: keeps the validators of images that are still the same.
        limits: see there.
        step: see `Step`.

    Attributes:
        embeddings: image address -> embedding.
        failures: image address -> failure.
        same: images that are still those that the store has.
    """

    def __init__(
        self,
        preparer: Preparer,
        encoding: EncodingQueue,
        writer: EmbeddingWriter,
        known_images: KnownImages,
        *,
        limits: Limits,
        step: Step,
    ) -> None:
        self._preparer = preparer
        self._encoding = encoding
        self._writer = writer
        self._known_images = known_images
        self._limits = limits
        self._step = step
        self.embeddings: dict[str, Embedding] = {}
        self.failures: Failures = {}
        self.same: list[Prepared] = []
        self._remembered = 0
        self._claims: set[Claim] = set()
        # What is under way, by its future; those that are done come through the queue.
        self._jobs: dict[Future[Prepared], str] = {}
        self._batches: dict[Future[Encoded], _Batch] = {}
        self._held: dict[Future[Mapping[str, Embedding]], list[Prepared]] = {}
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._ready: list[Prepared] = []

    def run(self, missing: Mapping[str, str], known: Mapping[str, Known]) -> None:
        """Fetch and encode images; what is late fails with ``timeout``.

        Args:
            missing: image address -> its name in the store.
            known: name -> what the store knows about it; if it is the same still, it is in `same`
                only.

        Raises:
            StoreError: the store failed, and the writer is that of a run.
        """
        queue = deque(missing.items())
        has_arrived = True
        try:
            while (queue or self._ready or self._is_waiting) and not self._limits.has_passed:
                while queue and self._may_fetch:
                    self._fetch(*queue.popleft(), known)
                # With a deadline, no image that is ready waits for those that are not; without one,
                # only as long as others become ready.
                has_more = has_arrived and bool(queue or self._jobs)
                self._encode(1 if self._limits.is_urgent or not has_more else self._limits.size)
                has_arrived = self._collect()
                if not has_arrived:
                    self._wait_is_long()
                self._remember(self._limits.size)
        finally:
            self._end()
        self._remember(1)
        self._tell()
        unchanged = {image.value for image in self.same}
        left = missing.keys() - self.embeddings.keys() - self.failures.keys() - unchanged
        self.failures |= {value: late() for value in left}

    @property
    def _is_waiting(self) -> bool:
        return bool(self._jobs or self._batches or self._held)

    @property
    def _may_fetch(self) -> bool:
        """Whether another image may be fetched.

        Costly images keep no others waiting, and where there is no deadline, few of them do.
        """
        limit, costly = self._limits.images, self._preparer.costly_of(self._jobs)
        held = chain((batch.images for batch in self._batches.values()), self._held.values())
        if len(self._jobs) - costly + len(self._ready) + sum(map(len, held)) >= limit:
            return False
        may_be_costly = costly < limit and self._preparer.has_room
        return self._limits.is_urgent or not self._jobs or may_be_costly

    def _fetch(self, value: str, address: str, known: Mapping[str, Known]) -> None:
        job = self._preparer.submit(value, address, known.get(address))
        self._jobs[job] = value
        job.add_done_callback(self._done.put)

    def _collect(self) -> bool:
        """Take what is done; whether anything was, after a while."""
        if not self._is_waiting:
            return True
        left = self._limits.seconds_left
        try:
            self._take(
                self._done.get(timeout=BEAT_SECONDS if left is None else min(BEAT_SECONDS, left))
            )
        except Empty:
            return False
        with suppress(Empty):
            while True:
                self._take(self._done.get_nowait())
        return True

    def _take(self, done: Future[Any]) -> None:
        if done in self._jobs:
            self._take_image(done, self._jobs.pop(done))
        elif done in self._batches:
            self._settle(self._batches.pop(done), done)
            self._tell()
        else:
            self._resume(self._held.pop(done), done.result())

    def _take_image(self, job: Future[Prepared], value: str) -> None:
        try:
            image = job.result()
        except Exception as error:
            failure = self.failures[value] = as_image_error(error)
            log.warning("image %s: %s (%s)", loggable(value), error, failure.reason)
        else:
            (self.same if image.pixels is None else self._ready).append(image)

    def _encode(self, enough: int) -> None:
        """Give the encoder batches of at least so many images, as long as it has too few."""
        while len(self._ready) >= enough and len(self._batches) < self._limits.batches:
            size = self._limits.size
            images, self._ready = self._ready[:size], self._ready[size:]
            self._begin(images)

    def _begin(self, images: Sequence[Prepared]) -> None:
        claim, others = self._encoding.claim({image.key for image in images}, self._claims)
        for image in images:
            if image.key in others:
                self._hold(image, others[image.key].outcome)
        try:
            stored = self._writer.embeddings(claim.keys)
        except StoreError as error:
            store_failed(error, self._writer.is_run)
            stored = {}
        batch = _Batch(claim, [image for image in images if image.key in claim.keys], stored)
        fresh = {image.key: image for image in batch.images if image.key not in stored}
        future = self._encoding.submit([*fresh.values()], is_urgent=self._limits.is_urgent)
        self._batches[future] = batch
        future.add_done_callback(self._done.put)

    def _hold(self, image: Prepared, outcome: Future[Mapping[str, Embedding]]) -> None:
        """Until the batch that has the same image is done."""
        if outcome not in self._held:
            self._held[outcome] = []
            outcome.add_done_callback(self._done.put)
        self._held[outcome].append(image)

    def _resume(self, images: Sequence[Prepared], embeddings: Mapping[str, Embedding]) -> None:
        """Go on with images that were held; those that have no embedding are tried again."""
        found = [image for image in images if image.key in embeddings]
        self._ready += [image for image in images if image.key not in embeddings]
        self._add([], found)
        self.embeddings |= {image.value: embeddings[image.key] for image in found}

    def _settle(self, batch: _Batch, encoded: Future[Encoded]) -> None:
        """Store what came of a batch, when it is done."""
        embeddings: dict[str, Embedding] = {}
        try:
            rows, broken = encoded.result()
            embeddings = batch.stored | {row.key: row.embedding for row in rows}
            self._add(rows, [image for image in batch.images if image.key in embeddings])
        finally:
            self._encoding.release(batch.claim, embeddings)
        self._forget_stored()
        for image in batch.images:
            if image.key in broken:
                self.failures[image.value] = broken[image.key]
            else:
                self.embeddings[image.value] = embeddings[image.key]

    def _forget_stored(self) -> None:
        """Give up the claims on what the store has, once nothing waits to be written."""
        if self._writer.has_waiting:
            return
        for claim in [*self._claims]:
            if claim.outcome.done():
                self._encoding.forget(claim)
                self._claims.discard(claim)

    def _add(self, rows: Sequence[NewEmbedding], images: Sequence[Prepared]) -> None:
        if not images:
            return
        try:
            self._writer.add(rows, images)
        except StoreError as error:
            # The answer does not depend on it: the image is encoded again next time.
            store_failed(error, self._writer.is_run)

    def _wait_is_long(self) -> None:
        if self._writer.is_run:
            self._writer.flush_if_due()
            self._forget_stored()
        self._tell()

    def _remember(self, enough: int) -> None:
        """Keep the validators of at least so many images that are still the same."""
        if len(self.same) - self._remembered >= enough:
            self._known_images.remember(self.same[self._remembered :])
            self._remembered = len(self.same)
            self._tell()

    def _tell(self) -> None:
        self._step(len(self.same), len(self.embeddings), len(self.failures))

    def _end(self) -> None:
        """Stop, and lose nothing of what is encoded: also when the run is stopped."""
        try:
            for job in self._jobs:
                job.cancel()
            begun = [one for one in self._batches.items() if not one[0].cancel()]
            for encoded, batch in begun:
                # A store that fails here fails below, too.
                with suppress(StoreError):
                    self._settle(batch, encoded)
            if self._writer.is_run:
                self._writer.flush()
            if begun:
                self._tell()
        finally:
            # Whatever happens: others would wait for these images for ever.
            for claim in self._claims:
                self._encoding.release(claim, {})
                self._encoding.forget(claim)
