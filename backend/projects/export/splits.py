"""Splits images into training, validation and test: by hash, near-duplicates together, for good.

An image that has a split keeps it. A group of near-duplicates gets the split that the hash of its
oldest image says. Which image is in which split is kept in a file beside the export, because the
images alone cannot tell it for ever: a new image may be near to two that were in different splits
before. Moving either of them would spoil comparisons with earlier models, and giving the new image
to one split would let that split look into the other; so it is set aside.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from backend.errors import SettingsError
from backend.projects.export.near_duplicates import near_groups

_COLUMNS = ("image", "key", "split")


class Split(StrEnum):
    """A part of the images."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    ASIDE = "aside"
    """In none of them: near to images of several."""


@dataclass(frozen=True)
class Shares:
    """How large the splits are, each in [0, 1], all together 1."""

    train: float
    validation: float
    test: float

    @classmethod
    def parse(cls, text: str) -> Shares:
        """From ``80/10/10``: training, validation, test.

        Raises:
            SettingsError: it is something else.
        """
        try:
            numbers = [float(part) for part in text.replace(",", "/").split("/")]
        except ValueError:
            numbers = []
        total = sum(numbers)
        if len(numbers) != 3 or min(numbers) < 0 or not 0 < total < float("inf"):
            raise SettingsError(
                f"--split {text} is no division into three.",
                "Give the shares of training, validation and test, e.g. --split 80/10/10.",
            )
        return cls(*(number / total for number in numbers))

    def of(self, key: str) -> Split:
        """The split that an image falls into by its hash."""
        digest = hashlib.sha256(f"split {key}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        # Test first: it keeps its images when the others' shares change.
        if place < self.test:
            return Split.TEST
        return Split.VALIDATION if place < self.test + self.validation else Split.TRAIN


@dataclass(frozen=True)
class SplitImage:
    """An image that is to be split.

    Attributes:
        task: id of the task that it belongs to.
        image: its address, see `address.compact_address`.
        key: its content key; empty where it is not embedded.
    """

    task: int
    image: str
    key: str

    @property
    def identity(self) -> str:
        """Equal for equal images."""
        return self.key or f"address:{self.image}"


class SplitFile:
    """The splits that images were given before.

    Args:
        path: a CSV file with the columns image, key and split; it need not be there yet.

    Raises:
        SettingsError: the file cannot be read, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[str, str], Split] = {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    self._rows[row["image"], row["key"]] = Split(row["split"])
                if tuple(reader.fieldnames or ()) != _COLUMNS:
                    raise ValueError("other columns")
        except FileNotFoundError:
            pass
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise SettingsError(
                f"{path} is no file with the splits of images: {type(error).__name__}: {error}.",
                "Restore it, name another one with --splits, or delete it to split anew.",
            ) from error
        self._by_key = {key: split for (_, key), split in self._rows.items() if key}
        self._by_image = {image: (key, split) for (image, key), split in self._rows.items()}

    def of(self, image: SplitImage) -> Split | None:
        """The split that an image was given; None if it was given none."""
        if image.key in self._by_key:
            return self._by_key[image.key]
        key, split = self._by_image.get(image.image, ("", None))
        # Another image may lie at the address by now.
        return None if key and image.key else split

    def write(self, path: Path, splits: Mapping[SplitImage, Split]) -> None:
        """Write what the file held, and these."""
        rows = {**self._rows, **{(one.image, one.key): split for one, split in splits.items()}}
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows((*names, split.value) for names, split in rows.items())


@dataclass(frozen=True)
class Splits:
    """Images with their splits.

    Attributes:
        of: image -> its split.
        largest: size of the largest group of near-duplicates.
    """

    of: Mapping[SplitImage, Split]
    largest: int


def split_images(
    images: Iterable[SplitImage],
    embeddings: Mapping[str, NDArray[np.float16]],
    near: float,
    shares: Shares,
    before: SplitFile,
) -> Splits:
    """The split of each image.

    Args:
        images: of all tasks of a project.
        embeddings: content key -> embedding, of those images that have one.
        near: images are near-duplicates from this cosine on.
        shares: how large the splits are.
        before: the splits that were given before.
    """
    ordered = sorted(set(images), key=lambda image: (image.task, image.identity, image.image))
    given: dict[str, Split] = {}
    for image in ordered:
        split = before.of(image)
        if split is not None:
            given.setdefault(image.identity, split)
    groups = _groups(ordered, embeddings, near, given)
    oldest: dict[str, str] = {}
    settled: dict[str, set[Split]] = {}
    for image in ordered:
        root = groups[image.identity]
        oldest.setdefault(root, image.identity)
        if image.identity in given:
            settled.setdefault(root, set()).add(given[image.identity])
    splits = {}
    for image in ordered:
        root = groups[image.identity]
        there = settled.get(root, set())
        if image.identity in given:
            splits[image] = given[image.identity]
        elif len(there) > 1:
            splits[image] = Split.ASIDE
        else:
            splits[image] = next(iter(there), None) or shares.of(oldest[root])
    return Splits(splits, max((len(subset) for subset in groups.subsets()), default=0))


def _groups(
    ordered: Sequence[SplitImage],
    embeddings: Mapping[str, NDArray[np.float16]],
    near: float,
    given: Mapping[str, Split],
) -> DisjointSet:
    """What has to be in one split, by identity; an image that is set aside joins no others."""
    groups = DisjointSet(image.identity for image in ordered)
    free = [image for image in ordered if given.get(image.identity) != Split.ASIDE]
    of_task: dict[int, str] = {}
    for image in free:
        # One task's images show one thing.
        groups.merge(of_task.setdefault(image.task, image.identity), image.identity)
    keys = list(dict.fromkeys(image.key for image in free if image.key in embeddings))
    if keys:
        firsts = near_groups(np.stack([embeddings[key] for key in keys]), near)
        for key, first in zip(keys, firsts.tolist(), strict=True):
            groups.merge(keys[first], key)
    return groups
