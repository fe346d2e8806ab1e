"""The banks of images that vote, in memory: loaded when a version first scores, and bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from backend.storage.banks import Banks, StoredBank
from backend.vlpl.neighbours import Bank
from backend.vlpl.region_classifier import RegionClassifier

MAX_BYTES = 512_000_000
"""Memory for banks; the one that voted longest ago goes first. The last one always stays."""
_KEPT_LOGITS = 2
"""Heads of which a bank keeps its images' logits: the one that serves, and the next one."""


class LoadedBank:
    """A bank that is ready to vote. Thread-safe.

    Args:
        stored: its content.

    Attributes:
        image: (M, D) float16 embeddings.
        z: (M, C) float32 zero-shot scores.
        classifier: of regions, where there is one.
        bank: finds the neighbours of an image.
    """

    def __init__(self, stored: StoredBank) -> None:
        self.image = stored.image
        self.z = stored.z.float()
        self.classifier: RegionClassifier | None = stored.classifier
        self.bank = Bank(stored.image)
        self._logits: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes at most, about."""
        scores = (1 + _KEPT_LOGITS) * self.z.element_size() * self.z.numel()
        return self.bank.nbytes + self.image.element_size() * self.image.numel() + scores

    def logits(self, scored_by: str, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Logits (M, C) float32 of its images.

        Args:
            scored_by: names what ``score`` gives.
            score: logits (M, C) for embeddings and zero-shot scores, by a head or a table.
        """
        with self._lock:
            if scored_by not in self._logits:
                self._logits[scored_by] = score(self.image, self.z).to(torch.float32)
                if len(self._logits) > _KEPT_LOGITS:
                    self._logits.popitem(last=False)
            self._logits.move_to_end(scored_by)
            return self._logits[scored_by]


class BankCache:
    """The banks that were loaded last. Thread-safe.

    Args:
        banks: where they are kept.
    """

    def __init__(self, banks: Banks) -> None:
        self._banks = banks
        self._loaded: OrderedDict[tuple[str, str], LoadedBank] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, project: str, digest: str) -> LoadedBank:
        """The bank of this name.

        Args:
            project: ``<id>.<unix time of creation>``.
            digest: names the bank.

        Raises:
            StoreError: the store cannot be read, or the bank is missing or damaged.
        """
        key = project, digest
        with self._lock:
            found = self._loaded.get(key)
            if found is None:
                found = LoadedBank(self._banks.load(project, digest))
                self._loaded[key] = found
                while len(self._loaded) > 1 and self._bytes() > MAX_BYTES:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
        return found

    def _bytes(self) -> int:
        return sum(bank.nbytes for bank in self._loaded.values())
