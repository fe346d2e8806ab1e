"""Embeddings of labels, kept in memory, and the labels that an encoder cannot read."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import torch

from backend.encoders.base import Encoder
from backend.encoders.label_texts import label_embeddings, label_texts, unreadable_texts
from backend.labels.config import LabelConfig
from backend.labels.controls import Label
from backend.vlpl.zero_shot import LabelVectors, label_vectors

CACHED_LABEL_SETS = 256
"""Label sets whose embeddings are kept in memory; more of them empty the cache."""


class LabelEmbeddings:
    """Label embeddings of one encoder, kept in memory. Thread-safe.

    Args:
        encoder: its text tower embeds the labels' texts.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._cache: dict[tuple[tuple[str, ...], ...], LabelVectors] = {}
        self._lock = threading.Lock()

    def of(self, labels: Iterable[Label]) -> LabelVectors:
        """Embeddings of these labels, in order."""
        prompts = tuple(
            tuple(label_texts(self.encoder, label.text, label.prompts)) for label in labels
        )
        with self._lock:
            if prompts in self._cache:
                return self._cache[prompts]
        # Outside the lock: thousands of labels take seconds, and other requests need not wait.
        embeddings = label_vectors(torch.from_numpy(label_embeddings(self.encoder, prompts)))
        with self._lock:
            if len(self._cache) >= CACHED_LABEL_SETS:
                self._cache.clear()
            return self._cache.setdefault(prompts, embeddings)


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
        if is_unreadable(encoder, label)
    ]
