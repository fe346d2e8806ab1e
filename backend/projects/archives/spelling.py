"""Labels of an archive that the labeling config does not have, or writes in another way."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.labels.config import LabelConfig
from backend.labels.controls import Control, known_labels
from backend.projects.archives.rows import Archive, Reason, Row


class LabelNames:
    """The labels of a labeling config by what they may be called.

    Args:
        config: the labeling config.
    """

    def __init__(self, config: LabelConfig) -> None:
        self._controls = config.controls
        self._has: dict[str, bool] = {}
        self._by_spelling: dict[str, set[str]] = {}
        for control in config.controls:
            for label in control.labels:
                for name in (label.key, label.path[-1], label.text):
                    self._by_spelling.setdefault(_normalised(name), set()).add(label.key)

    def has(self, name: str, data: Mapping[str, Any] | None = None) -> bool:
        """Whether a label is, or was, called so.

        Args:
            name: of the label.
            data: of the task, which may define labels of its own.
        """
        if name not in self._has:
            self._has[name] = any(_names(control, name) for control in self._controls)
        if self._has[name] or not data:
            return self._has[name]
        own = (control for control in self._controls if control.has_own_labels)
        return any(_names(control.for_task(data), name) for control in own)

    def similar(self, name: str) -> str:
        """The label that differs in case, spacing or width only; empty if not exactly one does."""
        found = self._by_spelling.get(_normalised(name), set())
        return next(iter(found)) if len(found) == 1 else ""


@dataclass(frozen=True)
class Unknown:
    """Labels of an archive that the labeling config does not have, with how many rows have each.

    Attributes:
        similar: those that differ from one of the config in spelling only -> that one.
        others: all others.
    """

    similar: Mapping[str, str]
    others: Counter[str]


def unknown_labels(archive: Archive, names: LabelNames) -> Unknown:
    """Find the labels that the labeling config does not have."""
    missing = Counter(
        label for row in archive.rows for label in row.labels if not names.has(label, row.data)
    )
    similar = {label: found for label in sorted(missing) if (found := names.similar(label))}
    others = {label: count for label, count in sorted(missing.items()) if label not in similar}
    return Unknown(similar, Counter(others))


def respelled(archive: Archive, meant: Mapping[str, str]) -> Archive:
    """The archive with these labels replaced."""
    rows = [
        replace(row, labels=tuple(dict.fromkeys(meant.get(label, label) for label in row.labels)))
        for row in archive.rows
    ]
    return replace(archive, rows=rows)


def without_labels(archive: Archive, unknown: Collection[str]) -> Archive:
    """The archive without these labels, which are counted, nor the images that have no other."""
    if not unknown:
        return archive
    kept: list[Row] = []
    labels, images = [], []
    for row in archive.rows:
        known = tuple(label for label in row.labels if label not in unknown)
        labels += [f"{label}, {row.where}" for label in row.labels if label in unknown]
        if known:
            kept.append(replace(row, labels=known))
        else:
            images.append(row.where)
    fewer = archive.without(kept, Reason.UNKNOWN_LABEL, len(labels), next(iter(labels), ""))
    return fewer.without(kept, Reason.NO_KNOWN_LABEL, len(images), next(iter(images), ""))


def _names(control: Control, name: str) -> bool:
    return bool(known_labels(control, {"label": name}, "label"))


def _normalised(name: str) -> str:
    """A name without what people write one way or another: case, width, spaces and their like."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
