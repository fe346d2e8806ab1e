"""What the doctor finds in a project, and a backend for it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.doctor.checks import doctor
from backend.doctor.finding import Finding
from backend.settings import Settings

Api = Callable[..., Any]
Connected = Callable[..., int]
QUIET = {"ok", "note"}


def wrong(settings: Settings, project: int | None = None) -> dict[str, Finding]:
    """Check id -> its finding, for all that is not fine; each is explained."""
    findings = [one for one in doctor(settings, project) if one.severity != "ok"]
    assert all(one.what and one.why and one.fix for one in findings), findings
    # Most tests here change the doctor's settings, and not those of the server that runs.
    left_out = {"skipped", "backend-settings"}
    return {one.check: one for one in findings if one.check not in left_out}


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)
