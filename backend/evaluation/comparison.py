"""Compares encoders and regions on labelled images, as `evaluate` measures one of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from backend.evaluation.choices import Choice, Refused, find_choices, in_passes
from backend.evaluation.encoding_pass import Encoded, run_pass
from backend.evaluation.labelled_folder import LabelledFolder
from backend.evaluation.machine import machine
from backend.evaluation.measures import MIN_POSITIVES, finite, measure, version_of
from backend.evaluation.recommendation import Candidate, Recommendation, recommend
from backend.evaluation.whole_protocol import Protocol, dataset_of, run_protocol, sample
from backend.inference.image_failures import Failures
from backend.logs import Progress
from backend.settings import Settings
from backend.vlpl.metrics import bootstrap_map

log = logging.getLogger(__name__)

Row = dict[str, Any]
"""A choice for JSON: ``encoder``, ``regions``, and either what was measured or ``error``."""


@dataclass(frozen=True)
class Comparison:
    """The outcome of `compare`.

    Attributes:
        rows: one for each choice, in the order in which they were named.
        images: number of images that all rows are measured on.
        labels: number of labels.
        map_labels: number of those that count in ``map``.
        failed: file -> reason, of the images that are left out of all rows.
        machine: what it was measured on.
        date: ``YYYY-MM-DD``.
        recommendation: from the rows.
        protocols: what the whole protocol says of each choice that was measured, if it was run.
    """

    rows: list[Row]
    images: int
    labels: int
    map_labels: int
    failed: dict[str, str]
    machine: str
    date: str
    recommendation: Recommendation
    protocols: list[Protocol] = field(default_factory=list)

    @property
    def measured(self) -> list[Row]:
        """The rows of choices that could be measured."""
        return [row for row in self.rows if "error" not in row]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **vars(self),
            "recommendation": self.recommendation.as_dict(),
            "protocols": [finite(asdict(protocol)) for protocol in self.protocols],
        }


@dataclass(frozen=True)
class _Outcome:
    """What a pass has measured of one choice."""

    choice: Choice
    encoded: Encoded
    seconds_preparing: float


def compare(
    settings: Settings,
    path: Path,
    encoders: Sequence[str],
    regions: Sequence[str],
    progress: Progress,
    *,
    whole_protocol: bool = False,
) -> Comparison:
    """Measure each choice of encoder and regions on the same images.

    Encoders are loaded one after the other. Nothing is written to the store; a probability table
    that was fitted there is used.

    Args:
        settings: device, precision, threshold, image limits, store.
        path: as for `evaluate`.
        encoders: names as for LS_CLIP_ENCODER, at least one.
        regions: as for LS_CLIP_REGIONS; empty: for each encoder all that its model has.
        progress: called with the pass over the images, and how much of it is done.
        whole_protocol: run `backend.evaluation.whole_protocol` on each choice, too.

    Raises:
        SettingsError: the folder is not of its form, or none of its images can be read.
    """
    folder = LabelledFolder.read(path)
    found = find_choices(settings, folder.config, encoders, regions)
    for one in found:
        if isinstance(one, Refused):
            log.warning("%s is left out. %s", one.label, one.error)
    kept = sample(folder.names) if whole_protocol else frozenset()
    outcomes, failed = _encode(folder, found, progress, kept)
    measured = [one for one in outcomes if isinstance(one, _Outcome)]
    used = [name for name in folder.names if name not in failed] if measured else []
    if measured and not used:
        raise folder.no_image()
    truth = folder.truth(used)
    rows: list[Row] = []
    candidates: list[Candidate] = []
    for outcome in outcomes:
        progress("measuring", len(rows), len(outcomes))
        if isinstance(outcome, Refused):
            rows.append(_refused(outcome))
            continue
        row, candidate = _measured(outcome, folder, failed, truth)
        rows.append(row)
        candidates.append(candidate)
    progress("measuring", len(rows), len(outcomes))
    protocols = []
    if whole_protocol:
        chosen = [name for name in used if name in kept]
        protocols = [_protocol(outcome, folder, chosen, progress) for outcome in measured]
    return Comparison(
        rows=rows,
        images=len(used),
        labels=len(folder.classes),
        map_labels=int((truth.sum(0) >= MIN_POSITIVES).sum()),
        failed=failed,
        machine=machine(),
        date=time.strftime("%Y-%m-%d"),
        recommendation=recommend(candidates),
        protocols=protocols,
    )


def _protocol(
    outcome: _Outcome, folder: LabelledFolder, names: Sequence[str], progress: Progress
) -> Protocol:
    choice = outcome.choice
    data = dataset_of(choice, outcome.encoded, folder, names)
    return run_protocol(choice, data, partial(progress, f"whole protocol: {choice.label}"))


def _encode(
    folder: LabelledFolder,
    found: Sequence[Choice | Refused],
    progress: Progress,
    kept: Collection[str],
) -> tuple[list[_Outcome | Refused], dict[str, str]]:
    """What became of each choice, and file -> reason of the images to be left out of all rows."""
    passes = in_passes([one for one in found if isinstance(one, Choice)])
    failures: Failures = {}
    outcomes: list[_Outcome | Refused] = []
    for number, choices in enumerate(passes, start=1):
        regions = ", ".join(choice.regions for choice in choices)
        title = f"pass {number} of {len(passes)}: {choices[0].name} ({regions})"
        result = run_pass(folder, choices, partial(progress, title), kept)
        failures |= result.failures
        for choice, outcome in zip(choices, result.outcomes, strict=True):
            if isinstance(outcome, Encoded):
                failures |= outcome.failures
                outcomes.append(_Outcome(choice, outcome, result.seconds_preparing))
            else:
                outcomes.append(Refused(choice.name, choice.regions, outcome))
    passed = iter(outcomes)
    in_order = [one if isinstance(one, Refused) else next(passed) for one in found]
    return in_order, {name: str(failure) for name, failure in sorted(failures.items())}


def _refused(one: Refused) -> Row:
    return {"encoder": one.name, "regions": one.regions, "error": one.error.as_dict()}


def _measured(
    outcome: _Outcome, folder: LabelledFolder, failed: Mapping[str, str], truth: torch.Tensor
) -> tuple[Row, Candidate]:
    choice, encoded, encoder = outcome.choice, outcome.encoded, outcome.choice.encoder
    version = version_of(choice.settings, encoder, folder.config, choice.table)
    measured = measure(version, encoded.cosines.without(failed), truth)
    seconds = encoded.seconds_encoding + outcome.seconds_preparing
    row: Row = {
        "encoder": choice.name,
        "regions": choice.regions,
        "label": choice.label,
        "embedding_id": encoder.id,
        "dim": encoder.dim,
        "device": encoder.device,
        "precision": encoder.precision,
        "bytes_per_image": encoded.bytes_per_image,
        "seconds_encoding": encoded.seconds_encoding,
        "seconds_with_decoding": seconds,
        "table": "fitted" if choice.is_fitted else "shipped",
        "unreadable_labels": list(choice.unreadable),
        **finite(measured.values),
    }
    resampled = 100 * bootstrap_map(measured.probabilities, truth, min_positives=MIN_POSITIVES)
    return row, Candidate(choice.label, measured.values["map"], seconds, resampled)
