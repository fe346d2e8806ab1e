"""Label Studio's webhooks: hints that something has changed, recorded within milliseconds.

Label Studio sends each event once, inside the annotator's Submit, and never again. So an event only
schedules work (`jobs.schedule`), which then reads from Label Studio what was approved; reconciling
finds what lost events would have reported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from redis import Redis

from backend.errors import LabelConfigError
from backend.labels.config import parse_config
from backend.labelstudio.events import Action
from backend.settings import Settings
from jobs import schedule
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

APPROVALS = frozenset(
    {
        Action.ANNOTATION_CREATED,
        Action.ANNOTATIONS_CREATED,
        Action.ANNOTATION_UPDATED,
        Action.ANNOTATIONS_DELETED,
    }
)
RECORDED_ACTIONS = APPROVALS | {
    Action.TASKS_CREATED,
    Action.PROJECT_UPDATED,
    Action.START_TRAINING,
}
"""Actions that lead to work for the queue."""
GATHER_SECONDS = 2.0
"""Events that come together lead to one job."""


def project_number(event: Mapping[str, Any], named: str | None) -> int | None:
    """The number of the project that an event is about; None if it is not known.

    Args:
        event: the body; its ``project`` is missing if Label Studio sends no payload.
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
    """Schedule what an event asks for.

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
        if trainings.count_approvals(project, _count(event)):
            schedule.add(connection, Kind.TRAIN, project, now + GATHER_SECONDS)
        schedule.add(connection, Kind.LATE, project, now + settings.train_after, move=True)
        schedule.add(connection, Kind.ROUND, project, now + schedule.ROUND_SECONDS)
    elif action == Action.START_TRAINING:
        trainings.request(project)
        schedule.add(connection, Kind.FORCED, project, now)
    elif action == Action.TASKS_CREATED:
        schedule.add(connection, Kind.PREDICT, project, now + schedule.NEW_TASKS_SECONDS)
    elif action == Action.PROJECT_UPDATED:
        if _labels_changed(connection, event, project):
            schedule.add(connection, Kind.PREDICT, project, now + GATHER_SECONDS)
        # It notes the order of the project's tasks, too.
        schedule.add(connection, Kind.ROUND, project, now + schedule.ROUND_SECONDS)
    schedule.add(connection, Kind.RECONCILE, project, now + settings.reconcile_every)


def _count(event: Mapping[str, Any]) -> int:
    """How many annotations an event is about."""
    annotations = event.get("annotations", event.get("annotation"))
    return max(1, len(annotations)) if isinstance(annotations, list) else 1


def _labels_changed(connection: Redis, event: Mapping[str, Any], project: int) -> bool:
    """Whether the labeling config differs from the one that predictions are made for.

    Our own change of a project (``model_version``) is reported like any other.
    """
    current = RunStore(connection).current_config(project)
    content = event.get("project")
    xml = content.get("label_config") if isinstance(content, Mapping) else None
    if not current or not isinstance(xml, str):
        # Redis was emptied, or there is no payload: the run finds out what is missing.
        return True
    try:
        return parse_config(xml).digest != current
    except LabelConfigError as error:
        log.warning("project %d has a labeling config that cannot be read: %s", project, error)
        return False
