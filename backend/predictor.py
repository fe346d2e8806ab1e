"""The one way from images to Label Studio predictions.

Tasks in, predictions out: embeddings come from the store, or the image is fetched, decoded,
encoded and stored; scores are always computed from the embedding as stored, so that one version
gives the same bytes however and whenever it is asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.embedder import Embedder, Failures, resolvable
from backend.encoders.base import Encoder, label_embeddings, label_texts
from backend.encoders.table import Row, Table, shipped_table
from backend.errors import ImageError, StoreError
from backend.evidence import ScoredControl, confidence, evidence_lines
from backend.labels import Control, LabelConfig, field_value
from backend.prediction import Prediction
from backend.settings import Settings
from backend.store import Embedding, Store
from backend.vlpl import zero_shot
from backend.vlpl.zero_shot import Statistics

log = logging.getLogger(__name__)

METHOD = 1
"""Part of every version; raised when the same inputs would give other scores than before."""
STATISTICS_FROM = 25
"""Images that must have been seen before a project's statistics are frozen."""
STATISTICS_UP_TO = 400


@dataclass(frozen=True)
class Scorer:
    """All that one version is made of: config, statistics and table."""

    config: LabelConfig
    statistics: dict[str, Statistics]
    table: Table
    model_version: str


class Predictor:
    """See the module. Thread-safe; one per process.

    Args:
        settings: of this process.
        encoder: images and texts to embeddings.
        store: where embeddings and statistics live.
        embedder: gets embeddings for image addresses.
    """

    def __init__(
        self, settings: Settings, encoder: Encoder, store: Store, embedder: Embedder
    ) -> None:
        self.settings = settings
        self.encoder = encoder
        self.store = store
        self.embedder = embedder
        self._texts: dict[tuple[tuple[str, ...], ...], torch.Tensor] = {}
        self._lock = threading.Lock()
        self._encoder_digest = hashlib.sha256(encoder.id.encode()).hexdigest()[:12]

    def scorer(self, config: LabelConfig, project: str) -> Scorer:
        """What predicts for this config in this project now; loads no model.

        Args:
            config: the project's labeling config.
            project: ``<id>.<unix time of creation>``, as Label Studio writes it.

        Raises:
            StoreError: the store cannot be read.
        """
        content = {}
        for control in config.controls:
            found = self.store.read_artefact(self._statistics_name(control, project))
            if found is not None:
                content[control.name] = found
        try:
            statistics = {name: Statistics.from_dict(data) for name, data in content.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged("statistics", error) from error
        table = self.table()
        parts = [
            METHOD,
            self.encoder.id,
            self.encoder.templates,
            config.digest,
            content,
            table.as_dict(),
            self.settings.threshold,
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        return Scorer(config, statistics, table, f"{self.encoder.short}-z-{digest}")

    def table(self) -> Table:
        """The encoder's probability table: fitted here if someone did, else the shipped one."""
        fitted = self.store.read_artefact(f"tables/{self._encoder_digest}")
        try:
            return shipped_table(self.encoder.short) if fitted is None else Table.from_dict(fitted)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged("table", error) from error

    def save_table(self, table: Table) -> None:
        """Make this the encoder's table; versions change with it.

        Raises:
            StoreError: the store cannot be written.
        """
        self.store.write_artefact(f"tables/{self._encoder_digest}", table.as_dict(), replace=True)

    def freeze_statistics(
        self,
        config: LabelConfig,
        project: str,
        tasks: Sequence[Mapping[str, Any]],
        seconds: float | None = None,
    ) -> bool:
        """Measure the standardisation statistics from a project's first images, once.

        Controls whose labels differ from task to task go without.

        Args:
            config: the project's labeling config.
            project: as for `scorer`.
            tasks: the project's first tasks; their images should be in the store by now.
            seconds: time limit for images that are not; 0 takes what is stored.

        Returns:
            Whether a control has statistics afterwards.
        """
        frozen = False
        for control in config.controls:
            name = self._statistics_name(control, project)
            if self.store.read_artefact(name) is not None:
                frozen = True
                continue
            if control.options_field is not None or not control.labels:
                continue
            images = (image_of(control, task) for task in tasks)
            values = [value for value in images if value is not None][:STATISTICS_UP_TO]
            embeddings, _ = self.embedder.embed(values, seconds)
            found = list(
                {value: embeddings[value] for value in values if value in embeddings}.values()
            )
            # With most images out of reach for the moment, the rest is no fair sample.
            if len(found) < max(STATISTICS_FROM, len(set(values)) / 2):
                continue
            scores = self._raw(found, control)
            self.store.write_artefact(name, zero_shot.fit_statistics(*scores).as_dict())
            frozen = True
        return frozen

    def is_settled(self, config: LabelConfig, project: str) -> bool:
        """Whether `freeze_statistics` has nothing left to measure, so that the version stays."""
        return all(
            self.store.read_artefact(self._statistics_name(control, project)) is not None
            for control in config.controls
            if control.options_field is None and control.labels
        )

    def predict(
        self, scorer: Scorer, tasks: Sequence[Mapping[str, Any]], seconds: float | None = None
    ) -> list[Prediction]:
        """One prediction a task, in order.

        Args:
            scorer: from `scorer`.
            tasks: as Label Studio sends them; ``id`` and ``data`` are read.
            seconds: what is not embedded by then is answered with the failure ``timeout``.
        """
        controls = [_controls_of(scorer.config, task) for task in tasks]
        values = {
            value: None
            for task, mine in zip(tasks, controls, strict=True)
            for control in mine
            if (value := image_of(control, task)) is not None
        }
        embeddings, failures = self.embedder.embed(list(values), seconds)
        rows = self._score_all(scorer, tasks, controls, embeddings)
        thresholds: dict[int, Sequence[float]] = {}
        predictions = []
        for task, mine, row in zip(tasks, controls, rows, strict=True):
            scored = []
            for control in mine:
                if control.name in row:
                    if id(control) not in thresholds:
                        thresholds[id(control)] = self._thresholds(scorer, control)
                    limits = thresholds[id(control)]
                    scored.append(ScoredControl(control, row[control.name], limits))
            if scored:
                predictions.append(_prediction(scorer, task, scored))
            else:
                failure = _failure(mine, task, failures)
                version = scorer.model_version
                predictions.append(Prediction(task_id(task), version, None, None, (), failure))
        return predictions

    def _score_all(
        self,
        scorer: Scorer,
        tasks: Sequence[Mapping[str, Any]],
        controls: Sequence[Sequence[Control]],
        embeddings: Mapping[str, Embedding],
    ) -> list[dict[str, NDArray[np.float32]]]:
        """For each task: control name -> probabilities (C,). Equal controls are scored together."""
        groups: dict[Control, list[tuple[int, Embedding]]] = {}
        # A control that is the same object for all tasks is hashed, label by label, only once.
        known: dict[int, list[tuple[int, Embedding]]] = {}
        for index, (task, mine) in enumerate(zip(tasks, controls, strict=True)):
            for control in mine:
                value = image_of(control, task)
                if value is not None and value in embeddings and control.labels:
                    if id(control) not in known:
                        known[id(control)] = groups.setdefault(control, [])
                    known[id(control)].append((index, embeddings[value]))
        rows: list[dict[str, NDArray[np.float32]]] = [{} for _ in tasks]
        for control, members in groups.items():
            probabilities = self._probabilities(scorer, control, [one for _, one in members])
            for (index, _), row in zip(members, probabilities, strict=True):
                rows[index][control.name] = row
        return rows

    def _probabilities(
        self, scorer: Scorer, control: Control, embeddings: Sequence[Embedding]
    ) -> NDArray[np.float32]:
        statistics = scorer.statistics.get(control.name)
        whole, best = self._raw(embeddings, control)
        z = zero_shot.fuse(whole, best, statistics, scorer.table.spread)
        row = self._row(scorer, control)
        probabilities: NDArray[np.float32] = zero_shot.probabilities(
            z, row.slope, row.offset
        ).numpy()
        return probabilities

    def _row(self, scorer: Scorer, control: Control) -> Row:
        return scorer.table.row(control.name in scorer.statistics, len(control.labels))

    def _raw(
        self, embeddings: Sequence[Embedding], control: Control
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        images = torch.from_numpy(np.stack([one.image for one in embeddings]))
        regions = None
        if self.encoder.regions != "none":
            regions = torch.from_numpy(
                np.stack([one.regions for one in embeddings if one.regions is not None])
            )
        return zero_shot.raw_scores(images, regions, self._text(control))

    def _text(self, control: Control) -> torch.Tensor:
        prompts = tuple(
            tuple(label_texts(self.encoder, label.text, label.prompts)) for label in control.labels
        )
        with self._lock:
            if prompts not in self._texts:
                if len(self._texts) > 256:
                    self._texts.clear()
                self._texts[prompts] = torch.from_numpy(label_embeddings(self.encoder, prompts))
            return self._texts[prompts]

    def _thresholds(self, scorer: Scorer, control: Control) -> list[float]:
        default = self._row(scorer, control).threshold
        if self.settings.threshold is not None:
            default = self.settings.threshold
        if control.threshold is not None:
            default = control.threshold
        return [_or(label.threshold, default) for label in control.labels]

    def _statistics_name(self, control: Control, project: str) -> str:
        content = json.dumps([METHOD, self.encoder.templates, asdict(control)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        safe = "".join(c if c.isalnum() or c in ".-" else "_" for c in project) or "none"
        return f"statistics/{safe}/{self._encoder_digest}-{digest}"


def _damaged(what: str, error: Exception) -> StoreError:
    return StoreError(
        f"A {what} file of the store is damaged ({type(error).__name__}: {error}).",
        "Delete the folders statistics and tables under LS_CLIP_STORE; connect makes them again.",
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    data = task.get("data")
    return data if isinstance(data, Mapping) else {}


def _controls_of(config: LabelConfig, task: Mapping[str, Any]) -> list[Control]:
    return [control.for_task(_data(task)) for control in config.controls]


def image_of(control: Control, task: Mapping[str, Any]) -> str | None:
    """The address of a task's image for this control, ready to be fetched; None: there is none."""
    value = field_value(_data(task), control.image_field)
    if not isinstance(value, str) or not value.strip():
        return None
    # JSON can carry half a character ("\ud800"), which no address has and no encoding can write.
    whole = value.encode(errors="replace").decode()
    return resolvable(whole, task_id(task))


def task_id(task: Mapping[str, Any]) -> int | None:
    """The task's number, if it has one."""
    number = task.get("id")
    return number if isinstance(number, int) else None


def _prediction(
    scorer: Scorer, task: Mapping[str, Any], scored: Sequence[ScoredControl]
) -> Prediction:
    result = [
        {
            "from_name": one.control.name,
            "to_name": one.control.to_name,
            "type": one.control.kind,
            "value": one.control.result_value(one.suggested),
        }
        for one in scored
        if one.suggested
    ]
    if scorer.config.evidence is not None:
        name, to_name = scorer.config.evidence
        calibrated = "zero-shot, not calibrated yet"
        lines = evidence_lines(scored, f"{scorer.model_version}: {calibrated}")
        result.append(
            {
                "from_name": name,
                "to_name": to_name,
                "type": "textarea",
                "value": {"text": lines},
            }
        )
    found = {image_of(one.control, task) for one in scored}
    return Prediction(
        task_id(task),
        scorer.model_version,
        result,
        confidence(scored),
        scored,
        images=tuple(sorted(image for image in found if image is not None)),
    )


def _failure(
    controls: Sequence[Control], task: Mapping[str, Any], failures: Failures
) -> ImageError:
    if not controls:
        return ImageError(
            "no_controls",
            "The labeling config has nothing for us.",
            "ls-clip connect PROJECT explains what is missing.",
        )
    for control in controls:
        value = image_of(control, task)
        if value is not None and value in failures:
            return failures[value]
        if value is None:
            return ImageError(
                "no_image",
                f"The task's data holds no image address in {control.image_field!r}.",
                "Correct the task's data, or the value of the <Image> tag.",
            )
    return ImageError(
        "no_labels",
        f"The task's data holds no usable labels in {controls[0].options_field!r}.",
        "Put a list of strings, or of objects with a value, there.",
    )
