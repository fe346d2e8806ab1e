"""What the doctor finds in a project, and a backend for it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.demo.servers import LocalBackend
from backend.doctor.checks import doctor
from backend.doctor.finding import Finding
from backend.processes import free_port
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


@contextmanager
def backend_of_its_own(settings: Settings, folder: Path, **values: Any) -> Iterator[Settings]:
    port = free_port(19190)
    mine = changed(
        settings, port=port, public_url=f"http://127.0.0.1:{port}", store=str(folder), **values
    )
    with LocalBackend(mine, folder / "backend.log") as backend:
        backend.wait()
        yield mine
