"""Builds the model versions of projects from what the store holds, and keeps them in memory."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

from backend.encoders.base import Encoder
from backend.encoders.table import Table, shipped_table
from backend.errors import SettingsError, StoreError
from backend.inference.bank_cache import BankCache
from backend.inference.frozen_statistics import FrozenStatistics
from backend.inference.label_embeddings import LabelEmbeddings
from backend.inference.model_version import ZERO_SHOT_SOURCE, ModelVersion, scores_of
from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.messages.catalogue import EVIDENCE, Language, digest
from backend.messages.message import Message
from backend.settings import Settings
from backend.storage.artifacts import Artifacts, safe_name
from backend.storage.banks import BankRecord, Banks, StoredBank
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.head_set import FittedControl, HeadSet
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from backend.storage.vectors import encoder_digest
from backend.vlpl.confidences import Confidences
from backend.vlpl.zero_shot import Statistics

log = logging.getLogger(__name__)

METHOD = 4
"""Part of every version; raised when the same inputs would give other scores than before."""
BLIND_METHOD = 2
"""The same, for the predictions of blind tasks, which only a project with some has."""
KNOWN_METHOD = 2
"""The same, for the predictions of tasks whose data names labels."""

LEARNED_FROM = 6
"""Reviewed images with a label from which a head knows it, though the encoder cannot read it."""

CACHED_VERSIONS = 64
"""Versions kept in memory; the one that was asked for longest ago goes first."""
REBUILD_SECONDS = 60.0
"""A version is built anew after this time, even if the store's marker is unchanged: files may have
been deleted or restored by hand, or a process may have died before it changed the marker."""


def learned_labels(fitted: FittedControl) -> frozenset[str]:
    """The labels, and rows, of a head's card that it knows from enough reviewed images."""
    counts = fitted.head.card.counts
    return frozenset(label for label, count in counts.items() if count >= LEARNED_FROM)


class _Cached(NamedTuple):
    generation: str
    built: float
    version: ModelVersion


def fitted_table(artifacts: Artifacts, encoder_id: str) -> Table | None:
    """The probability table that was fitted for an encoder in this store; None if none was.

    Raises:
        StoreError: the store cannot be read, or the table is damaged.
    """
    name = _table_name(encoder_id)
    content = artifacts.read(name)
    try:
        return None if content is None else Table.from_dict(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise artifacts.damaged(
            name,
            f"{type(error).__name__}: {error}",
            Message(
                "Delete it: the table of this release is used, until ls-clip evaluate --fit makes "
                "another."
            ),
        ) from error


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _confidences_name(project: str, content: str) -> str:
    """Where the frozen confidences lie in the store of a version with that content."""
    return f"confidences/{safe_name(project)}/{content[:12]}"


def _table_name(encoder_id: str) -> str:
    return f"tables/{encoder_digest(encoder_id)}"


class ModelVersions:
    """See the module. Thread-safe; one per process.

    Args:
        settings: ``threshold`` and ``blind_share`` are part of every version.
        encoder: images and texts to embeddings.
        store: where statistics, tables and heads live.

    Attributes:
        heads: the heads of all projects.
        statistics: the frozen statistics of all projects.
    """

    def __init__(self, settings: Settings, encoder: Encoder, store: Store) -> None:
        self.settings = settings
        self.encoder = encoder
        self.store = store
        self.heads = HeadRegistry(store)
        self._label_embeddings = LabelEmbeddings(encoder)
        self.statistics = FrozenStatistics(store, self._label_embeddings)
        self._banks = Banks(store)
        self._bank_cache = BankCache(self._banks)
        self._cache: OrderedDict[tuple[str, str, str | None], _Cached] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, config: LabelConfig, project: str, head: str | None = None) -> ModelVersion:
        """The version that predicts for this config in this project; loads no model.

        Costs one store read where nothing has changed since the last call. What another process
        changes in the store is seen by the next call.

        Args:
            config: the project's labeling config.
            project: ``<id>.<unix time of creation>``, as Label Studio writes it.
            head: name of a set of heads, or `head_registry.ZERO_SHOT`; None: the one that serves,
                or zero-shot, with an error in the log, if that was made for another encoder.

        Raises:
            SettingsError: the set that ``head`` names was made for another encoder.
            StoreError: the store cannot be read, or has no such set.
        """
        key = config.digest, project, head
        # Read before the build: what changes during the build is seen by the next call.
        generation = self.store.generation.current()
        now = time.monotonic()
        with self._lock:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
        if (
            cached is not None
            and cached.generation == generation
            and now - cached.built < REBUILD_SECONDS
        ):
            return cached.version
        version = self._build(config, project, head)
        with self._lock:
            self._cache[key] = _Cached(generation, now, version)
            self._cache.move_to_end(key)
            if len(self._cache) > CACHED_VERSIONS:
                self._cache.popitem(last=False)
        return version

    def is_refused(self, project: str, head: str) -> bool:
        """Whether `get` would refuse this set of heads, which was made for another encoder.

        Raises:
            StoreError: the store cannot be read, or has no such set.
        """
        return self.heads.get(project, head).encoder != self.encoder.id

    def bank(self, control: Control, project: str) -> BankRecord | None:
        """Which bank of images votes on a control's scores; None for none.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._banks.record(project, self.statistics.key(control))

    def save_bank(
        self,
        control: Control,
        project: str,
        bank: StoredBank,
        drawn_from: int,
        there: Callable[[], Set[str]],
    ) -> None:
        """Let this bank vote from now on; versions change with it. Arguments as for `Banks.save`.

        Raises:
            StoreError: the store cannot be written.
        """
        self._banks.save(project, self.statistics.key(control), bank, drawn_from, there)

    def table(self) -> Table:
        """The encoder's probability table: one fitted in this store, else the shipped one.

        Raises:
            StoreError: the store cannot be read, or the table is damaged.
        """
        fitted = fitted_table(self.store.artifacts, self.encoder.id)
        return shipped_table(self.encoder.short) if fitted is None else fitted

    def save_table(self, table: Table) -> None:
        """Make this the encoder's table; versions change with it.

        Raises:
            StoreError: the store cannot be written.
        """
        name = _table_name(self.encoder.id)
        self.store.artifacts.write(name, table.as_dict(), replace=True)
        self.store.generation.change()

    def save_confidences(self, version: ModelVersion, confidences: Confidences) -> None:
        """Freeze how the confidences of a version's tasks are spread, unless that was done before.

        Raises:
            StoreError: the store cannot be written.
        """
        name = _confidences_name(version.project, version.content)
        self.store.artifacts.write(name, confidences.as_dict())
        self.store.generation.change()

    def _confidences(self, project: str, content: str) -> Confidences | None:
        name = _confidences_name(project, content)
        stored = self.store.artifacts.read(name)
        try:
            return None if stored is None else Confidences.from_dict(stored)
        except (KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise self.store.artifacts.damaged(name, why) from error

    def _build(self, config: LabelConfig, project: str, head: str | None) -> ModelVersion:
        state = ProjectState(self.store, project)
        former = state.former_names()
        config = config.with_former(former)
        stored: dict[str, dict[str, Any]] = {}
        statistics: dict[str, Statistics] = {}
        banks: dict[str, str] = {}
        for control in config.controls:
            found = self.statistics.read(control, project)
            if found is None:
                continue
            stored[control.name], statistics[control.name] = found
            record = self.bank(control, project)
            if record is not None:
                banks[control.name] = record.digest
        table = self.table()
        head_set = self._serving(project) if head is None else self._named(project, head)
        heads: dict[str, FittedControl] = {}
        learned: dict[str, frozenset[str]] = {}
        if head_set is not None:
            for control in config.controls:
                if control.name in head_set.controls and not control.has_own_labels:
                    fitted = head_set.controls[control.name].renamed(control.renames)
                    learned[control.name] = learned_labels(fitted)
                    made = scores_of(control.name, statistics, banks)
                    row = table.row(made, len(control.labels), control.required)
                    heads[control.name] = fitted.for_labels(
                        [label.key for label in control.labels],
                        row.slope,
                        row.offset,
                        table.tick_from(len(control.labels)),
                    )
        known_field = state.known_field()
        parts: list[Any] = [
            METHOD,
            self.encoder.id,
            self.encoder.templates,
            config.digest,
            stored,
            table.as_dict(),
            self.settings.threshold,
            self.settings.blind_share,
            known_field,
            {control: fitted.digest for control, fitted in heads.items()},
            banks,
        ]
        if former and known_field:
            # The data of tasks is read with them.
            parts.append(former)
        scores = _digest(parts)
        confidences = None
        if self.settings.blind_share:
            confidences = self._confidences(project, scores)
            parts.append([BLIND_METHOD, None if confidences is None else confidences.as_dict()])
        if known_field:
            parts.append(["known", KNOWN_METHOD])
        language = self.settings.language
        if language is not Language.ENGLISH:
            parts.append(["language", language, digest(language, EVIDENCE)])
        short = "z" if head_set is None else head_set.name
        return ModelVersion(
            name=f"{self.encoder.short}-{short}-{_digest(parts)[:8]}",
            config=config,
            label_embeddings=self._label_embeddings,
            table=table,
            statistics=statistics,
            banks=banks,
            bank_cache=self._bank_cache,
            heads=heads,
            learned=learned,
            threshold=self.settings.threshold,
            project=project,
            known_field=known_field,
            blind_share=self.settings.blind_share,
            content=scores,
            confidences=confidences,
            source=ZERO_SHOT_SOURCE
            if not heads or head_set is None
            else Message("trained on {reviewed} reviewed tasks", reviewed=head_set.approvals),
            language=language,
        )

    def _named(self, project: str, name: str) -> HeadSet | None:
        """The set of heads of this name; None for zero-shot.

        Only the encoder has to be the same. A label set that was changed is no reason to refuse a
        head (`Head.carried_over`), nor are other statistics than those of its card: they are frozen
        anew whenever a control changes, and a head may be trained before they are frozen at all.

        Raises:
            SettingsError: it was made for another encoder, whose embeddings mean something else.
        """
        if name == ZERO_SHOT:
            return None
        head_set = self.heads.get(project, name)
        number = project.partition(".")[0]
        if head_set.encoder != self.encoder.id:
            raise SettingsError(
                Message(
                    "The head {name} of project {number} was made for the encoder {encoder}, and "
                    "this process has {id}.",
                    name=name,
                    number=number[:20],
                    encoder=head_set.encoder,
                    id=self.encoder.id,
                ),
                Message(
                    "Set LS_CLIP_ENCODER, LS_CLIP_REGIONS and LS_CLIP_PRECISION as they were, or "
                    "train a head for this encoder: ls-clip train {number}.",
                    number=number[:20],
                ),
            )
        widths = {fitted.head.weight.shape[1] for fitted in head_set.controls.values()}
        if widths - {self.encoder.dim}:
            raise StoreError(
                Message(
                    "The head {name} in the store is damaged: it takes embeddings of another size.",
                    name=name,
                ),
                Message(
                    "Go back to another one: ls-clip rollback {number} HEAD.", number=number[:20]
                ),
            )
        return head_set

    def _serving(self, project: str) -> HeadSet | None:
        """The set of heads that serves; None for zero-shot, also where the set is refused."""
        try:
            return self._named(project, self.heads.serving(project))
        except SettingsError as error:
            # Annotators wait for an answer, and Label Studio shows no error of a backend.
            log.error("Suggestions are zero-shot ones, without the trained head. %s", error)
            return None
