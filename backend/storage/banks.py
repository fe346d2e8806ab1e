"""Banks of a project's images that vote on each other, frozen per control.

A bank is one safetensors file, named after a hash of its content and never overwritten, and a
small JSON file that says which one is in use. A bank holds embeddings, so images that are purged
are taken out of it: that makes another bank, hence another model version.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import eq
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from backend.messages.message import Message
from backend.storage.artifacts import Artifacts, DamagedArtifactError, safe_name
from backend.storage.store import Store
from backend.storage.tensor_files import description
from backend.storage.tensor_files import digest as content_digest
from backend.vlpl.region_classifier import RegionClassifier
from backend.vlpl.zero_shot import Statistics

log = logging.getLogger(__name__)

FOLDER = "banks"
SCHEMA = 1
_MAX_HEADER = 2**24
"""Bytes; `MAX_BANK` keys take a tenth of that."""
_DAMAGED_FIX = Message("Run ls-clip store check --repair; the next run draws another bank.")


@dataclass(frozen=True)
class BankRecord:
    """Which bank a control uses.

    Attributes:
        digest: names its file.
        images: number of images in it.
        drawn_from: number of the project's images when it was drawn.
        previous: the bank that was used before, which a process may still be scoring with; or
            empty.
    """

    digest: str
    images: int
    drawn_from: int
    previous: str = ""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BankRecord:
        """Inverse of `dataclasses.asdict`; raises KeyError, TypeError or ValueError."""
        return cls(
            str(content["digest"]),
            int(content["images"]),
            int(content["drawn_from"]),
            str(content["previous"]),
        )


@dataclass(frozen=True)
class StoredBank:
    """A bank's content.

    Attributes:
        keys: M content keys of images.
        image: (M, D) float16 embeddings, no two alike.
        z: (M, C) float16 zero-shot scores, see `ModelVersion.z`.
        classifier: of regions, where there is one.
    """

    keys: tuple[str, ...]
    image: Tensor
    z: Tensor
    classifier: RegionClassifier | None

    def to_bytes(self) -> bytes:
        """The file; reproducible."""
        tensors = {"image": self.image.contiguous(), "z": self.z.contiguous()}
        about: dict[str, Any] = {"schema": SCHEMA, "keys": self.keys}
        if self.classifier is not None:
            tensors["weights"] = self.classifier.weights.contiguous()
            about["statistics"] = self.classifier.statistics.as_dict()
        data: bytes = safetensors.torch.save(tensors, {"bank": json.dumps(about, sort_keys=True)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredBank:
        """Inverse of `to_bytes`.

        Raises:
            KeyError, TypeError, ValueError: the file is damaged.
        """
        about = description(data, "bank")
        try:
            tensors = safetensors.torch.load(data)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        classifier = None
        if "weights" in tensors:
            statistics = Statistics.from_dict(about["statistics"])
            classifier = RegionClassifier(tensors["weights"], statistics)
        bank = cls(tuple(about["keys"]), tensors["image"], tensors["z"], classifier)
        if not len(bank.keys) == len(bank.image) == len(bank.z):
            raise ValueError("its parts differ in length")
        return bank

    def without(self, keys: Collection[str]) -> StoredBank:
        """The bank without these images."""
        kept = [place for place, key in enumerate(self.keys) if key not in keys]
        return replace(
            self,
            keys=tuple(self.keys[place] for place in kept),
            image=self.image[kept],
            z=self.z[kept],
        )


class Banks:
    """The banks of all projects. Thread-safe.

    Args:
        store: where they are kept; its readers learn of a change by its generation.
    """

    def __init__(self, store: Store) -> None:
        self._artifacts: Artifacts = store.artifacts
        self._generation = store.generation
        self._locks = store.locks

    def record(self, project: str, name: str) -> BankRecord | None:
        """Which bank a control uses; None for none.

        Args:
            project: ``<id>.<unix time of creation>``.
            name: of the control's statistics and encoder, see `ModelVersions`.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        path = f"{_folder(project)}/{name}"
        content = self._artifacts.read(path)
        try:
            return None if content is None else BankRecord.from_dict(content)
        except (KeyError, TypeError, ValueError) as error:
            raise self._artifacts.damaged(path, f"{type(error).__name__}: {error}") from error

    def load(self, project: str, digest: str) -> StoredBank:
        """A bank's content.

        Raises:
            StoreError: the store cannot be read, or the file is missing or damaged.
        """
        path = _file(project, digest)
        data = self._artifacts.read_bytes(path)
        try:
            if data is None:
                raise ValueError("it is missing")
            if content_digest(data) != digest:
                raise ValueError("it does not match its checksum")
            return StoredBank.from_bytes(data)
        except (KeyError, TypeError, ValueError) as error:
            raise self._artifacts.damaged(path, str(error), _DAMAGED_FIX) from error

    def save(
        self,
        project: str,
        name: str,
        bank: StoredBank,
        drawn_from: int,
        there: Callable[[], Set[str]],
    ) -> None:
        """Let a control use this bank from now on. Of those that it used, the last one stays.

        Args:
            project: as for `record`.
            name: as for `record`.
            bank: that was drawn.
            drawn_from: number of the project's images.
            there: gives the content keys of the project's images; called while nobody can purge
                images from the banks. Those that are there no more are left out.

        Raises:
            StoreError: the store cannot be written.
        """
        with self._writing(safe_name(project)):
            bank = bank.without(set(bank.keys) - there())
            before = self.record(project, name)
            self._save(project, name, bank, drawn_from, "" if before is None else before.digest)

    def purge(self, project: str, keys: Collection[str] | None) -> None:
        """Take images out of the banks of a project.

        Args:
            project: its key, or ``<id>.`` for all projects that ever had this id.
            keys: content keys; None: the banks as a whole.

        Raises:
            StoreError: the store cannot be read or written.
        """
        for folder in self._artifacts.folder_names(FOLDER):
            if not folder.startswith(project):
                continue
            with self._writing(folder):
                if keys is None:
                    self._artifacts.erase(FOLDER, partial(eq, folder))
                else:
                    self._purge(folder, set(keys))

    def _purge(self, folder: str, keys: Set[str]) -> None:
        self._artifacts.erase_drafts(f"{FOLDER}/{folder}")
        for name in self._artifacts.names(f"{FOLDER}/{folder}"):
            try:
                record = self.record(folder, name)
                if record is None:
                    continue
                digests = [digest for digest in (record.digest, record.previous) if digest]
                if all(keys.isdisjoint(self._keys(folder, digest)) for digest in digests):
                    continue
                bank = self.load(folder, record.digest)
                self._save(folder, name, bank.without(keys), record.drawn_from, "")
            except DamagedArtifactError as error:
                log.warning("The bank of project %s is erased. %s", folder, error)
                self._artifacts.erase(FOLDER, partial(eq, folder))
                self._generation.change()
                return

    def _keys(self, project: str, digest: str) -> list[str]:
        """The content keys of a bank's images; of its file only the beginning is read.

        Raises:
            DamagedArtifactError: it is missing or damaged.
        """
        path = _file(project, digest)
        size = int.from_bytes(self._artifacts.read_bytes(path, 8) or b"", "little")
        try:
            if size > _MAX_HEADER:
                raise ValueError("its header has no end")
            return list(
                description(self._artifacts.read_bytes(path, 8 + size) or b"", "bank")["keys"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._artifacts.damaged(path, str(error), _DAMAGED_FIX) from error

    def _writing(self, project: str) -> AbstractContextManager[None]:
        return self._locks.hold(f"banks-{project}")

    def _save(
        self, project: str, name: str, bank: StoredBank, drawn_from: int, previous: str
    ) -> None:
        data = bank.to_bytes()
        digest = content_digest(data)
        self._artifacts.write_bytes(_file(project, digest), data)
        record = BankRecord(digest, len(bank.keys), drawn_from, previous)
        path = f"{_folder(project)}/{name}"
        self._artifacts.write(path, {**asdict(record), "schema": SCHEMA}, replace=True)
        self._generation.change()
        folder = _folder(project)
        records = [self.record(project, one) for one in self._artifacts.names(folder)]
        used = {
            f"{kept}.safetensors"
            for record in records
            if record is not None
            for kept in (record.digest, record.previous)
        }
        self._artifacts.erase(
            folder, lambda name: name.endswith(".safetensors") and name not in used
        )


def _folder(project: str) -> str:
    return f"{FOLDER}/{safe_name(project)}"


def _file(project: str, digest: str) -> str:
    return f"{_folder(project)}/{digest}.safetensors"
