"""The job that refreshes a project's round, and its retries."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from backend.errors import ClipError, StoreError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.failures import StudioNotFoundError, UnansweredError
from backend.labelstudio.projects import project_key
from backend.runtime import process_runtime
from jobs import queue, review_round, schedule
from jobs.review_round import RefreshBusyError
from jobs.schedule import Kind

log = logging.getLogger(__name__)

PAUSE_SECONDS = 30.0
"""Until a refresh is tried again that has met an outage, or another process that refreshes."""


def refresh_round(project: int, added: bool) -> None:
    """Refresh a project's round.

    Args:
        project: its number.
        added: whether tasks may have been added since the round began.
    """
    runtime = process_runtime()
    settings = runtime.settings
    connection = queue.connect(settings, retries=8)
    studio = LabelStudioClient(settings)
    kind = Kind.ADDED if added else Kind.ROUND
    key = ""
    try:
        described = studio.projects.get(project)
        key = project_key(described)
        review_round.refresh(runtime, studio, described, added=added)
    except RefreshBusyError:
        schedule.add(connection, kind, project, time.time() + PAUSE_SECONDS)
    except ClipError as error:
        if isinstance(error, StudioNotFoundError) and not key:
            log.info("project %d is gone: it has no next round", project)
            return
        is_outage = isinstance(error, UnansweredError | StoreError)
        pause = PAUSE_SECONDS if is_outage else settings.reconcile_every
        log.warning(
            "project %d: the tab %r could not be refreshed, which is tried again in %.0f s: %s",
            project,
            review_round.TAB_TITLE,
            pause,
            error,
        )
        schedule.add(connection, kind, project, time.time() + pause)
        with suppress(StoreError):
            if key:
                reason = error.in_words(runtime.settings.language)
                review_round.note_failure(runtime.store, key, reason)
