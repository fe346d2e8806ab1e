"""From an image's address to the encoder's input: fetching, decoding and preparing, in threads."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Container
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from backend import telemetry
from backend.encoders.base import Encoder
from backend.images.address import loggable
from backend.images.decoder import Decoder
from backend.images.direct import Source
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.settings import Settings
from backend.storage.vectors import content_key

log = logging.getLogger(__name__)

_MOST_WAITING = 200_000_000
"""Bytes of files that wait for a decoder process, from which on others are fetched again later."""


@dataclass(frozen=True)
class Known:
    """What the store knows about an image that may have been replaced.

    Attributes:
        key: content key of the image that is embedded.
        validators: of that content.
    """

    key: str
    validators: Validators


@dataclass(frozen=True)
class Prepared:
    """An image that is ready to be encoded.

    Attributes:
        value: its address as the task's data has it.
        address: its name in the store.
        key: its content key.
        validators: of that content.
        pixels: from `Encoder.prepare`; None if the image is the known one.
    """

    value: str
    address: str
    key: str
    validators: Validators
    pixels: Any


class Preparer:
    """See the module. Thread-safe.

    Files that need a decoder process leave the threads that fetch: however long they take, other
    images are fetched meanwhile.

    Args:
        settings: fetch workers, image limits.
        encoder: prepares images.
        fetcher: gets the bytes.
    """

    def __init__(self, settings: Settings, encoder: Encoder, fetcher: Source) -> None:
        self._encoder = encoder
        self._fetcher = fetcher
        self._decoder = Decoder(settings)
        self._fetching = ThreadPoolExecutor(settings.fetch_workers, "fetch")
        processes = min(settings.fetch_workers, os.cpu_count() or 1)
        self._decoding = ThreadPoolExecutor(processes, "decode")
        self._lock = threading.Lock()
        self._costly: dict[Future[Prepared], int] = {}

    def submit(self, value: str, address: str, known: Known | None = None) -> Future[Prepared]:
        """Begin with an image; the future can be cancelled until the image is ready.

        Args:
            value: its address as the task's data has it.
            address: its name in the store.
            known: the image that is stored; it is not decoded if it is still the same.
        """
        outcome: Future[Prepared] = Future()
        self._run(self._fetching, outcome, self._fetch, value, address, known)
        return outcome

    def costly_of(self, jobs: Container[Future[Prepared]]) -> int:
        """How many of these futures wait for a decoder process, or are in one."""
        with self._lock:
            return sum(job in jobs for job in self._costly)

    @property
    def has_room(self) -> bool:
        """Whether the files that wait for a decoder process take little memory."""
        with self._lock:
            return sum(self._costly.values()) < _MOST_WAITING

    def close(self) -> None:
        """End decoder processes; what they work on fails with ``timeout``."""
        self._decoder.close()

    def _run(self, pool: Executor, outcome: Future[Prepared], step: Any, *arguments: Any) -> None:
        """Run one step of an image in a pool, unless its future is cancelled by then."""

        def work() -> None:
            if outcome.cancelled():
                self._finish(outcome)
                return
            try:
                step(outcome, *arguments)
            except BaseException as error:
                if self._finish(outcome):
                    outcome.set_exception(error)

        pool.submit(work)

    def _finish(self, outcome: Future[Prepared]) -> bool:
        """Whether anybody still waits for this image."""
        with self._lock:
            self._costly.pop(outcome, None)
        return not outcome.done() and outcome.set_running_or_notify_cancel()

    def _fetch(
        self, outcome: Future[Prepared], value: str, address: str, known: Known | None
    ) -> None:
        with telemetry.FETCH_SECONDS.time():
            file = self._fetcher.fetch_file(value, UNKNOWN if known is None else known.validators)
        if file is None:
            assert known is not None
            # Its validators are stored already.
            self._succeed(outcome, Prepared(value, address, known.key, UNKNOWN, None))
            return
        if known is not None and known.key == content_key(file.data):
            self._succeed(outcome, Prepared(value, address, known.key, file.validators, None))
            return
        if self._decoder.is_ordinary(file.data, self._encoder.draft_size):
            self._decode(outcome, value, address, file)
            return
        log.info(
            "image %s: %d bytes that may be costly, for a decoder process",
            loggable(value),
            len(file.data),
        )
        keep = self.has_room
        with self._lock:
            self._costly[outcome] = len(file.data) if keep else 0
        step = self._decode if keep else self._fetch_again
        self._run(self._decoding, outcome, step, value, address, *([file] if keep else []))

    def _fetch_again(self, outcome: Future[Prepared], value: str, address: str) -> None:
        file = self._fetcher.fetch_file(value, UNKNOWN)
        assert file is not None
        self._decode(outcome, value, address, file)

    def _decode(
        self, outcome: Future[Prepared], value: str, address: str, file: FetchedFile
    ) -> None:
        with telemetry.DECODE_SECONDS.time():
            encoder = self._encoder
            pixels = self._decoder.decoded(file.data, encoder.prepare, encoder.draft_size)
            key = content_key(file.data)
        self._succeed(outcome, Prepared(value, address, key, file.validators, pixels))

    def _succeed(self, outcome: Future[Prepared], prepared: Prepared) -> None:
        if self._finish(outcome):
            outcome.set_result(prepared)
