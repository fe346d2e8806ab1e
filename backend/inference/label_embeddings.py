"""Embeddings of labels, kept in memory, and the labels that an encoder cannot read."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from backend.encoders.base import Encoder
from backend.encoders.label_texts import (
    TEXT_BATCH,
    label_embeddings,
    label_texts,
    unreadable_texts,
)
from backend.errors import ImageError, ImageReason, counted
from backend.labels.config import LabelConfig
from backend.labels.label import Label
from backend.messages.message import Message
from backend.vlpl.zero_shot import LabelVectors, label_vectors

log = logging.getLogger(__name__)

CACHED_LABEL_SETS = 256
"""Label sets whose embeddings are kept in memory; the one used longest ago goes first."""
CACHED_LABELS = 50_000
"""The same, for the labels of all sets together."""
THREADS = 4
"""Label sets embedded at once for callers with a deadline."""
WAITING = 16
"""Label sets that wait for that or are being embedded, at most."""
GRACE_SECONDS = 1.0
"""For labels of a single batch of texts, also after the deadline: else images that were ready just
in time would have been encoded for nothing."""
LOGGED_SECONDS = 10.0
"""Time between two lines of the log on a label set that takes long."""
PAUSE_SECONDS = 0.002
"""Between two batches of texts: a lock is not fair, and other labels wait for the encoder's."""

Prompts = tuple[tuple[str, ...], ...]
"""For each label of a set its texts."""


class LabelsLateError(ImageError):
    """The embeddings of a control's labels were not ready in time.

    Args:
        count: how many labels.
    """

    def __init__(self, count: int) -> None:
        super().__init__(
            ImageReason.TIMEOUT,
            Message(
                "The embeddings of {labels} were not ready within LS_CLIP_PREDICT_SECONDS; they "
                "are being made.",
                labels=counted(count, "label"),
            ),
            Message("Open the task again later; the log says how far it is."),
        )


class LabelEmbeddings:
    """Label embeddings of one encoder, kept in memory. Thread-safe.

    Whoever cannot wait for a set of labels leaves it to a thread, so that a later call finds it.
    However many ask, a set is embedded once.

    Args:
        encoder: its text tower embeds the labels' texts.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._cache: OrderedDict[Prompts, LabelVectors] = OrderedDict()
        self._begun: dict[Prompts, Future[LabelVectors]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "labels")

    def of(self, labels: Sequence[Label], deadline: float | None = None) -> LabelVectors:
        """Embeddings of these labels, in order.

        Args:
            labels: of a control.
            deadline: on the monotonic clock; None: however long it takes.

        Raises:
            LabelsLateError: they are not ready by then; with a deadline only.
            EncoderError: the text tower cannot be loaded.
        """
        prompts = tuple(
            tuple(label_texts(self.encoder, label.text, label.prompts)) for label in labels
        )
        with self._lock:
            if prompts in self._cache:
                self._cache.move_to_end(prompts)
                return self._cache[prompts]
            begun = self._begun.get(prompts)
            is_mine = begun is None and deadline is None
            if begun is None:
                if deadline is not None and len(self._begun) >= WAITING:
                    raise LabelsLateError(len(prompts))
                begun = self._begun[prompts] = Future()
                if deadline is not None:
                    self._pool.submit(self._embed, prompts, begun)
        if is_mine:
            self._embed(prompts, begun)
        try:
            return begun.result(None if deadline is None else _wait(prompts, deadline))
        except TimeoutError as error:
            if begun.done():
                raise
            raise LabelsLateError(len(prompts)) from error

    def _embed(self, prompts: Prompts, begun: Future[LabelVectors]) -> None:
        """Embed a set of labels, keep it, and tell all who wait for it."""
        logged = time.monotonic()

        def step(done: int, total: int) -> None:
            nonlocal logged
            if done < total:
                time.sleep(PAUSE_SECONDS)
            if time.monotonic() - logged >= LOGGED_SECONDS:
                logged = time.monotonic()
                log.info("label texts embedded: %d of %d", done, total)

        try:
            rows = torch.from_numpy(label_embeddings(self.encoder, prompts, step))
            embeddings = label_vectors(rows)
        except BaseException as error:
            with self._lock:
                del self._begun[prompts]
            begun.set_exception(error)
            return
        with self._lock:
            self._cache[prompts] = embeddings
            while len(self._cache) > CACHED_LABEL_SETS or (
                len(self._cache) > 1 and sum(map(len, self._cache)) > CACHED_LABELS
            ):
                self._cache.popitem(last=False)
            del self._begun[prompts]
        begun.set_result(embeddings)


def _wait(prompts: Prompts, deadline: float) -> float:
    """Seconds to wait for a set of labels."""
    least = GRACE_SECONDS if sum(map(len, prompts)) <= TEXT_BATCH else 0.0
    return max(least, deadline - time.monotonic())


def is_unreadable(encoder: Encoder, label: Label) -> bool:
    """Whether the text tower can read none of a label's texts."""
    texts = label.prompts or (label.text,)
    return len(unreadable_texts(encoder, texts)) == len(texts)


def unreadable_labels(encoder: Encoder, config: LabelConfig) -> list[str]:
    """Keys of the config's labels that the text tower cannot read."""
    return [
        label.key
        for control in config.controls
        for label in control.labels
        if not label.is_filled_in and is_unreadable(encoder, label)
    ]
