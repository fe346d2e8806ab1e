"""Label Studio's webhooks: hints that something has changed, noted within milliseconds.

Label Studio sends each once, inside the annotator's Submit, and forgets it. So an event only says
when to look (`jobs.due`); what was approved is then read from Label Studio, and what is lost is
found by the reconciling look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from redis import Redis

from backend.errors import LabelConfigError
from backend.labels.config import parse_config
from backend.settings import Settings
from jobs import project_lock, schedule
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

START_TRAINING = "START_TRAINING"
APPROVALS = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
)
RECORDED_ACTIONS = APPROVALS | {"TASKS_CREATED", "PROJECT_UPDATED", START_TRAINING}
"""Actions that lead to work for the queue."""
GATHER_SECONDS = 2.0
"""Events of one moment lead to one job."""


def project_number(event: Mapping[str, Any], named: str | None) -> int | None:
    """The project that an event is about.

    Args:
        event: the body; its ``project`` is missing where Label Studio sends no payload.
        named: ``?project=`` of the webhook's URL.
    """
    project = event.get("project")
    number = project.get("id") if isinstance(project, Mapping) else None
    if isinstance(number, int) and not isinstance(number, bool) and number > 0:
        return number
    if named is not None and named.isascii() and named.isdigit() and len(named) < 16:
        return int(named)
    return None


def record_event(
    connection: Redis, settings: Settings, event: Mapping[str, Any], project: int
) -> None:
    """Note what an event asks for.

    Args:
        connection: to Redis.
        settings: of this process.
        event: with an ``action`` of `RECORDED_ACTIONS`.
        project: its number.

    Raises:
        RedisError: Redis is away.
    """
    now, action = time.time(), event["action"]
    trainings = TrainingStore(connection)
    if action in APPROVALS:
        if trainings.heard(project, _count(event)):
            schedule.add(connection, schedule.TRAIN, project, now + GATHER_SECONDS)
        schedule.add(connection, schedule.LATE, project, now + settings.train_after, move=True)
    elif action == START_TRAINING:
        trainings.ask(project)
        schedule.add(connection, schedule.FORCED, project, now)
    elif action == "TASKS_CREATED":
        schedule.add(connection, schedule.PREDICT, project, now + schedule.NEW_TASKS_SECONDS)
    elif action == "PROJECT_UPDATED" and _labels_changed(connection, event, project):
        schedule.add(connection, schedule.PREDICT, project, now + GATHER_SECONDS)
    schedule.add(connection, schedule.RECONCILE, project, now + settings.reconcile_every)


def _count(event: Mapping[str, Any]) -> int:
    """How many annotations an event is about."""
    found = event.get("annotations", event.get("annotation"))
    return max(1, len(found)) if isinstance(found, list) else 1


def _labels_changed(connection: Redis, event: Mapping[str, Any], project: int) -> bool:
    """Whether the labeling config is another than the current version's.

    Our own change of a project (``model_version``) is announced like any other.
    """
    current = project_lock.current_config(connection, project)
    content = event.get("project")
    xml = content.get("label_config") if isinstance(content, Mapping) else None
    if not current or not isinstance(xml, str):
        # Redis was emptied, or there is no payload: the run finds out whether anything is missing.
        return True
    try:
        return parse_config(xml).digest != current
    except LabelConfigError as error:
        log.warning("project %d has a labeling config that cannot be read: %s", project, error)
        return False
