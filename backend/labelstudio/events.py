"""What Label Studio's webhooks carry: their actions, and the header with our secret."""

from __future__ import annotations

from enum import StrEnum

SECRET_HEADER = "X-Label-Studio-Clip-Secret"
"""The header of our webhooks that carries the shared secret: Label Studio signs no webhooks."""


class Action(StrEnum):
    """What happened in Label Studio (https://labelstud.io/guide/webhook_reference)."""

    ANNOTATION_CREATED = "ANNOTATION_CREATED"
    ANNOTATIONS_CREATED = "ANNOTATIONS_CREATED"
    ANNOTATION_UPDATED = "ANNOTATION_UPDATED"
    ANNOTATIONS_DELETED = "ANNOTATIONS_DELETED"
    TASKS_CREATED = "TASKS_CREATED"
    TASKS_DELETED = "TASKS_DELETED"
    PROJECT_UPDATED = "PROJECT_UPDATED"
    START_TRAINING = "START_TRAINING"


EVENT_ACTIONS = frozenset(Action) - {Action.START_TRAINING}
"""The actions that our webhooks ask for; START_TRAINING is sent by Label Studio's ML connector."""
