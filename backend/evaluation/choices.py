"""What can be compared: encoders by name, each with regions that its model has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

import torch

from backend.encoders.base import Encoder
from backend.encoders.registry import new_encoder
from backend.encoders.table import Table, shipped_table
from backend.errors import ClipError, EncoderError, RegionsError
from backend.inference.label_embeddings import unreadable_labels
from backend.inference.versions import fitted_table
from backend.labels.config import LabelConfig
from backend.setting_types import Regions
from backend.settings import Settings
from backend.storage.installations import existing_artifacts

log = logging.getLogger(__name__)

ALL_REGIONS: tuple[Regions, ...] = ("none", "cells", "patches", "tiles")
"""Kinds of regions, from the cheapest to the most expensive."""


@dataclass(frozen=True)
class Choice:
    """An encoder with regions.

    Attributes:
        name: the encoder as it was named.
        settings: the caller's, with this encoder and these regions.
        encoder: that says what it is, and never reads its weights: whoever encodes makes another,
            and drops it.
        table: its zero-shot probabilities.
        is_fitted: whether the table is one that ``ls-clip evaluate --fit`` has made.
        unreadable: labels that the encoder cannot read.
    """

    name: str
    settings: Settings
    encoder: Encoder
    table: Table
    is_fitted: bool
    unreadable: tuple[str, ...]

    @property
    def regions(self) -> str:
        """Those that the encoder has, never ``auto``."""
        return self.encoder.regions

    @property
    def label(self) -> str:
        """For a person: the encoder and its regions."""
        regions = "without regions" if self.regions == "none" else f"with {self.regions}"
        return f"{self.name} {regions}"


@dataclass(frozen=True)
class Refused:
    """What cannot be compared.

    Attributes:
        name: the encoder as it was named.
        regions: as they were asked for, or what the model makes of ``auto``; empty: all.
        error: why.
    """

    name: str
    regions: str
    error: ClipError

    @property
    def label(self) -> str:
        """For a person: the encoder and its regions."""
        return f"{self.name} with {self.regions}" if self.regions else self.name


def find_choices(
    settings: Settings, config: LabelConfig, encoders: Sequence[str], regions: Sequence[str]
) -> list[Choice | Refused]:
    """The choices: encoders in the order in which they are named, regions from the cheapest on.

    Weights are located, downloaded if need be, and not read.

    Args:
        settings: of the caller; ``encoder`` and ``regions`` are replaced.
        config: with the labels.
        encoders: names as for LS_CLIP_ENCODER.
        regions: as for LS_CLIP_REGIONS; empty: for each encoder all that its model has.
    """
    found: list[Choice | Refused] = []
    for name in dict.fromkeys(encoders):
        mine: list[Choice | Refused] = []
        known: set[str] = set()
        for wanted in dict.fromkeys(regions or ALL_REGIONS):
            try:
                choice = _choice(settings, config, name, wanted)
            except RegionsError as error:
                if regions:
                    mine.append(Refused(name, wanted, error))
                continue
            except Exception as error:
                mine.append(Refused(name, ", ".join(regions), as_clip_error(error)))
                break
            # What auto stands for may be asked for by its name, too.
            if choice.encoder.id not in known:
                known.add(choice.encoder.id)
                mine.append(choice)
        found += sorted(mine, key=_cost)
    return found


def _cost(one: Choice | Refused) -> int:
    order: list[str] = list(ALL_REGIONS)
    return order.index(one.regions) if isinstance(one, Choice) else len(order)


def _choice(settings: Settings, config: LabelConfig, name: str, regions: str) -> Choice:
    if regions not in get_args(Regions):
        raise RegionsError(
            f"There are no regions {regions!r}.", f"Use {', '.join(get_args(Regions))}."
        )
    own = settings.model_copy(update={"encoder": name, "regions": regions})
    encoder = new_encoder(own)
    artifacts = existing_artifacts(settings)
    fitted = None if artifacts is None else fitted_table(artifacts, encoder.id)
    return Choice(
        name=name,
        settings=own,
        encoder=encoder,
        table=fitted or shipped_table(encoder.short),
        is_fitted=fitted is not None,
        unreadable=tuple(unreadable_labels(encoder, config)),
    )


def in_passes(choices: Sequence[Choice]) -> list[list[Choice]]:
    """The choices by passes over the images, in order.

    What a model needs without regions, for cells and for patches are the same pixels, so these
    share a pass: each image is read, decoded and resized once for all of them. Tiles need more.
    """

    def pixels(choice: Choice) -> tuple[str, bool, int]:
        return choice.name, choice.regions == "tiles", choice.encoder.draft_size

    return [list(group) for _, group in groupby(choices, pixels)]


def as_clip_error(error: Exception) -> ClipError:
    """Why an encoder cannot be used, whatever its library has raised."""
    if isinstance(error, ClipError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return EncoderError(
            "There is too little memory for this encoder.",
            "Compare it with one --regions at a time, lower LS_CLIP_BATCH_SIZE, or take another "
            "LS_CLIP_DEVICE.",
        )
    log.error("the encoder failed", exc_info=error)
    reason = str(error).splitlines()[0][:300] if str(error) else ""
    return EncoderError(f"Unexpected {type(error).__name__}: {reason}", "The log has the details.")
