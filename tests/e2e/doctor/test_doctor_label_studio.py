"""The doctor names what was broken on purpose on a real Label Studio, and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from pydantic import SecretStr

from backend.demo.servers import STRAY_NAMES, VERSION, find_uv, new_secret
from backend.doctor.checks import CHECKS, doctor
from backend.doctor.finding import exit_code
from backend.errors import StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.processes import LocalProcess, answers_ok, free_port, wait_for
from backend.settings import Settings
from tests.support.doctor import Connected, changed, wrong
from tests.support.live import Servers

# Nothing wrong


def test_a_connected_project_is_found_healthy(settings: Settings, connected: Connected) -> None:
    project = connected()
    findings = doctor(settings, project)
    assert {one.check for one in findings} == {check.id for check in CHECKS}
    assert [one for one in findings if one.severity != "ok"] == []
    assert exit_code(findings) == 0


def test_the_doctor_changes_nothing_in_label_studio(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected()

    def state() -> tuple[Any, ...]:
        hooks = studio.webhooks.of_project(project)
        return studio.projects.get(project), hooks, len(studio.backends.of_project(project))

    before = state()
    doctor(settings, project)
    assert state() == before


# Label Studio


def test_a_wrong_url_is_one_error_and_one_line_about_the_rest(settings: Settings) -> None:
    down = changed(settings, label_studio_url="http://127.0.0.1:9")
    findings = doctor(down, 1)
    assert [one.check for one in findings if one.severity == "error"] == ["studio"]
    assert "LABEL_STUDIO_URL" in next(one.fix for one in findings if one.check == "studio")
    assert [one.check for one in findings if one.check == "skipped"] == ["skipped"]
    assert "predictions-missing" in findings[-1].what


def test_another_program_at_the_url_is_told_from_label_studio(settings: Settings) -> None:
    other = changed(settings, label_studio_url=settings.backend_url)
    found = wrong(other, 1)
    assert set(found) == {"studio"}
    assert "not Label Studio" in found["studio"].what


def test_the_address_of_a_page_is_told_from_label_studios(settings: Settings) -> None:
    page = changed(settings, label_studio_url=f"{settings.label_studio_url}/projects/1/data")
    found = wrong(page, 1)
    assert set(found) == {"studio"}
    assert "the address of a page does not do" in found["studio"].fix
    with pytest.raises(StudioError, match="not Label Studio's API"):
        LabelStudioClient(page).projects.get(1)


def expired() -> str:
    return jwt.encode({"exp": 1, "token_type": "refresh"}, "k" * 32)


@pytest.mark.parametrize(
    ("token", "said"), [("", "No Label Studio token"), ("x" * 40, "401"), (expired(), "expired")]
)
def test_a_missing_a_wrong_and_an_expired_token_are_told_apart(
    settings: Settings, token: str, said: str
) -> None:
    found = wrong(changed(settings, label_studio_api_key=SecretStr(token)), 1)
    assert set(found) == {"token"}
    assert said in found["token"].what
    assert "LABEL_STUDIO_API_KEY" in found["token"].fix


def test_a_project_that_does_not_exist_is_one_error(settings: Settings) -> None:
    assert set(wrong(settings, 987654)) == {"project"}


@pytest.mark.parametrize(
    ("skew", "severity"), [(100, "warning"), (-100, "warning"), (900, "error")]
)
def test_a_clock_that_is_off_is_measured(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, skew: int, severity: str
) -> None:
    import time as real

    class Clock:
        @staticmethod
        def time() -> float:
            return real.time() + skew

    monkeypatch.setattr("backend.doctor.label_studio.time", Clock)
    found = wrong(settings)
    assert set(found) == {"clock"}
    assert found["clock"].severity == severity
    assert ("ahead" if skew > 0 else "behind") in found["clock"].what


# A second Label Studio, as it comes out of the box


@contextmanager
def second_studio(servers: Servers, folder: Path, **variables: str) -> Iterator[str]:
    """The servers's Label Studio once more, on a copy of its data and with default settings."""
    folder.mkdir(parents=True)
    data = servers.label_studio.log.parent
    for path in data.iterdir():
        if path.is_file() and "sqlite3" not in path.name and path != servers.label_studio.log:
            shutil.copy(path, folder)
    for path in data.glob("*.sqlite3"):
        with sqlite3.connect(path) as old, sqlite3.connect(folder / path.name) as new:
            old.backup(new)
        old.close()
        new.close()
    port = free_port(18180)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in STRAY_NAMES},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        **variables,
    }
    command = [
        *find_uv(),
        *("tool", "run", "--from", f"label-studio=={VERSION}", "label-studio", "start"),
        *("--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)),
    ]
    with LocalProcess(command, environment, folder / "label-studio.log") as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(process, answers_ok(f"{url}/health"), "Label Studio", 240)
        yield url


@pytest.fixture(scope="module")
def default_studio(
    servers: Servers,
    settings: Settings,
    personal_token: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Holds the personal access token as well, since that was made before the copy."""
    with second_studio(servers, tmp_path_factory.mktemp("default") / "data") as url:
        yield changed(settings, label_studio_url=url)


def test_the_defaults_that_block_private_addresses_are_named_both(default_studio: Settings) -> None:
    def hooks() -> Any:
        url = f"{default_studio.label_studio_url}/api/webhooks/"
        return requests.get(
            url, headers=LabelStudioClient(default_studio).headers(), timeout=30
        ).json()

    before = hooks()
    found = wrong(default_studio)
    assert set(found) == {"ssrf"}
    assert "ML_BLOCK_LOCAL_IP=false" in found["ssrf"].fix
    assert "SSRF_PROTECTION_ENABLED=false" in found["ssrf"].fix
    assert hooks() == before


def test_one_of_the_two_settings_alone_is_not_enough(
    servers: Servers, settings: Settings, tmp_path: Path
) -> None:
    with second_studio(servers, tmp_path / "data", ML_BLOCK_LOCAL_IP="false") as url:
        found = wrong(changed(settings, label_studio_url=url))
    assert set(found) == {"ssrf"}
    assert "SSRF_PROTECTION_ENABLED is on" in found["ssrf"].what


def test_a_host_that_label_studio_cannot_resolve_is_named(default_studio: Settings) -> None:
    found = wrong(changed(default_studio, public_url="http://nowhere.invalid:9090"))
    assert set(found) == {"backend", "ssrf"}
    assert "cannot resolve" in found["ssrf"].what


def test_a_webhook_address_without_a_dot_is_named(settings: Settings) -> None:
    found = wrong(changed(settings, public_url="http://mlbackend:9090"))
    assert "webhook-url" in found
    assert "LS_CLIP_PUBLIC_URL" in found["webhook-url"].fix


def tokens_allowed(settings: Settings, headers: dict[str, str], **allowed: bool) -> None:
    answer = requests.post(
        f"{settings.label_studio_url}/api/jwt/settings",
        json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True, **allowed},
        headers=headers,
        timeout=30,
    )
    assert answer.ok, answer.text


def test_a_kind_of_token_that_is_switched_off_is_named(
    default_studio: Settings, personal_token: str
) -> None:
    legacy = LabelStudioClient(default_studio).headers()
    modern = changed(default_studio, label_studio_api_key=SecretStr(personal_token))
    assert "token" not in wrong(modern)

    tokens_allowed(default_studio, legacy, api_tokens_enabled=False)
    found = wrong(modern)
    tokens_allowed(default_studio, legacy)
    assert set(found) == {"token"}
    assert "personal access token, and Label Studio has those switched off" in found["token"].what

    bearer = LabelStudioClient(modern).headers()
    tokens_allowed(default_studio, bearer, legacy_api_tokens_enabled=False)
    found = wrong(default_studio, 1)
    tokens_allowed(default_studio, bearer)
    assert set(found) == {"token"}
    assert "legacy token, and Label Studio has those switched off" in found["token"].what


def test_a_user_who_was_removed_from_the_organization_is_named(default_studio: Settings) -> None:
    url = default_studio.label_studio_url
    session = requests.Session()
    session.get(f"{url}/user/signup/", timeout=30)
    form = {
        "email": "gone@example.com",
        "password": new_secret(),
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
    }
    session.post(
        f"{url}/user/signup/", data=form, headers={"Referer": f"{url}/user/signup/"}, timeout=30
    )
    headers = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": url}
    token = session.post(f"{url}/api/token/", headers=headers, timeout=30).json()["token"]
    theirs = changed(default_studio, label_studio_api_key=SecretStr(token))
    number = LabelStudioClient(theirs).user()["id"]
    assert requests.delete(
        f"{url}/api/organizations/1/memberships/{number}/",
        headers=LabelStudioClient(default_studio).headers(),
        timeout=30,
    ).ok

    found = wrong(theirs, 1)

    assert set(found) == {"token"}
    assert "no access to anything" in found["token"].what
