"""Which labels of a project the encoder cannot read, and the config in which to say them."""

from __future__ import annotations

from dataclasses import dataclass

from backend.encoders.base import Encoder
from backend.encoders.label_texts import unreadable_texts
from backend.inference.label_embeddings import unreadable_labels
from backend.labels.config import parse_config
from backend.labels.prompt_stubs import with_prompt_stubs
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.store import Store


@dataclass(frozen=True)
class UnreadLabels:
    """The labels of a project that the encoder cannot read.

    Attributes:
        reviewed: label -> reviewed images with it that the serving head has seen.
        labels: number of all labels.
        config: the labeling config with an empty ``model_prompt`` for each of them.
        stubs: values of the choices that got one; labels that tasks define have none.
    """

    reviewed: dict[str, int]
    labels: int
    config: str
    stubs: list[str]


def unread_labels(
    studio: LabelStudioClient, store: Store, encoder: Encoder, number: int
) -> UnreadLabels:
    """Find the labels of a project that the encoder cannot read.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    project = studio.projects.get(number)
    xml = str(project["label_config"])
    config = parse_config(xml)
    config.require_controls()
    heads, key = HeadRegistry(store), project_key(project)
    serving = heads.serving(key)
    counts: dict[str, int] = {}
    if serving != ZERO_SHOT:
        for fitted in heads.get(key, serving).controls.values():
            counts |= fitted.head.card.counts
    unread = unreadable_labels(encoder, config)
    stubbed, stubs = with_prompt_stubs(xml, lambda text: bool(unreadable_texts(encoder, [text])))
    return UnreadLabels(
        {label: counts.get(label, 0) for label in unread},
        sum(len(control.labels) for control in config.controls),
        stubbed,
        stubs,
    )
