"""The standardisation statistics of a project's controls, frozen once from its first images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from backend.inference.embedder import Embedded
from backend.inference.label_embeddings import LabelEmbeddings
from backend.inference.model_version import raw_scores
from backend.inference.task_images import images_of_task
from backend.labels.config import LabelConfig
from backend.labels.controls import Control, content_of
from backend.storage.artifacts import safe_name
from backend.storage.store import Store
from backend.storage.vectors import encoder_digest
from backend.vlpl import zero_shot
from backend.vlpl.zero_shot import Statistics

METHOD = 3
"""Part of every name; raised when the same images would give other statistics than before. Heads
were trained on scores that were made with them."""
FROM = 25
"""Images that must have been seen before a project's statistics are frozen."""
UP_TO = 400


class FrozenStatistics:
    """See the module. Thread-safe.

    Args:
        store: where they are kept.
        label_embeddings: of the encoder that scores.
    """

    def __init__(self, store: Store, label_embeddings: LabelEmbeddings) -> None:
        self._store = store
        self._label_embeddings = label_embeddings

    def key(self, control: Control) -> str:
        """A hash of all that decides how a control's scores vary."""
        encoder = self._label_embeddings.encoder
        # When a control is shown, or has to be answered, does not change how its scores vary.
        plain = (replace(label, conditions=(), preselected=False) for label in control.labels)
        parts = content_of(replace(control, labels=tuple(plain), conditions=(), required=False))
        content = json.dumps([METHOD, encoder.templates, parts], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        return f"{encoder_digest(encoder.id)}-{digest}"

    def read(self, control: Control, project: str) -> tuple[dict[str, Any], Statistics] | None:
        """A control's statistics, as they are stored and parsed; None if there are none.

        Raises:
            StoreError: the store cannot be read, or they are damaged.
        """
        name = self._name(control, project)
        content = self._store.artifacts.read(name)
        if content is None:
            return None
        try:
            known = Statistics.from_dict(content)
            if len(known.global_mean) != len(control.labels):
                raise ValueError("statistics of another number of labels")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise self._store.artifacts.damaged(name, why) from error
        return content, known

    def freeze(
        self,
        config: LabelConfig,
        project: str,
        tasks: Sequence[Mapping[str, Any]],
        embed: Callable[[Sequence[str]], Embedded],
    ) -> bool:
        """Measure them from a project's first images, where that was not done.

        Controls whose labels differ from task to task go without.

        Args:
            config: the project's labeling config.
            project: ``<id>.<unix time of creation>``.
            tasks: the project's first tasks; their images should be in the store by now.
            embed: gets embeddings of images: `Embedder.embed`, or `Embedder.stored` to take only
                those that are in the store.

        Returns:
            Whether a control has statistics afterwards.

        Raises:
            StoreError: the store cannot be read or written.
        """
        frozen = False
        for control in config.controls:
            name = self._name(control, project)
            if self._store.artifacts.read(name) is not None:
                frozen = True
                continue
            if control.has_own_labels or not control.labels:
                continue
            images = (value for task in tasks for value in images_of_task(control, task))
            values = list(islice(images, UP_TO))
            by_value, _ = embed(values)
            sample = list(
                {value: by_value[value] for value in values if value in by_value}.values()
            )
            # With most images out of reach for the moment, the rest is no fair sample, and copies
            # of one image say nothing of how scores vary.
            distinct = len({embedding.image.tobytes() for embedding in sample})
            if len(sample) < len(set(values)) / 2 or distinct < FROM:
                continue
            scores = raw_scores(self._label_embeddings, control, sample)
            self._store.artifacts.write(name, zero_shot.fit_statistics(*scores).as_dict())
            frozen = True
        if frozen:
            # Also if they were there: their writer may have died before it changed the marker.
            self._store.generation.change()
        return frozen

    def is_complete(self, config: LabelConfig, project: str) -> bool:
        """Whether `freeze` has nothing left to measure.

        Raises:
            StoreError: the store cannot be read.
        """
        return all(
            self._store.artifacts.read(self._name(control, project)) is not None
            for control in config.controls
            if not control.has_own_labels and control.labels
        )

    def _name(self, control: Control, project: str) -> str:
        return f"statistics/{safe_name(project)}/{self.key(control)}"
