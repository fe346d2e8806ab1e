"""The doctor names what was broken on purpose on a real Label Studio, and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from pydantic import SecretStr

from backend.demo.servers import STRAY_NAMES, VERSION, LocalBackend, find_uv, new_secret
from backend.doctor.checks import CHECKS, doctor
from backend.doctor.finding import Finding, exit_code
from backend.errors import StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import SECRET_HEADER
from backend.processes import LocalProcess, answers_ok, free_port, wait_for
from backend.projects.connect import connect
from backend.projects.registration import TITLE
from backend.runtime import Runtime
from backend.settings import Settings
from tests.e2e.conftest import MakeProject, Servers

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


@pytest.fixture
def connected(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> Connected:
    """Make a project and connect it."""

    def make(**arguments: Any) -> int:
        project = make_project(**{"photos": 3, **arguments})
        connect(settings, studio, runtime, project)
        return project

    return make


@contextmanager
def backend_of_its_own(settings: Settings, folder: Path, **values: Any) -> Iterator[Settings]:
    port = free_port(19190)
    mine = changed(
        settings, port=port, public_url=f"http://127.0.0.1:{port}", store=str(folder), **values
    )
    with LocalBackend(mine, folder / "backend.log") as backend:
        backend.wait()
        yield mine


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
    assert "may use nothing" in found["token"].what


# The backend


def test_a_backend_that_is_down_is_one_error(
    settings: Settings, studio: LabelStudioClient, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(photos=2)
    with backend_of_its_own(settings, tmp_path) as mine:
        connect(mine, studio, Runtime(mine), project)
        studio.projects.update(project, model_version=TITLE)
        assert set(wrong(mine, project)) == {"model-version"}
        assert wrong(mine, project)["model-version"].severity == "warning"
    found = wrong(mine, project)
    assert set(found) == {"backend", "model-version"}
    assert "ls-clip serve" in found["backend"].fix
    assert found["model-version"].severity == "error"
    assert "that one is down" in found["model-version"].what


def test_another_program_at_the_backends_address_is_named(settings: Settings) -> None:
    found = wrong(changed(settings, public_url=settings.label_studio_url))
    assert set(found) == {"backend"}
    assert "not this backend" in found["backend"].what


def test_credentials_that_the_backend_refuses_are_named(
    settings: Settings, connected: Connected
) -> None:
    other = changed(settings, basic_auth_pass=SecretStr("another"))
    assert set(wrong(other, connected())) == {"backend-login"}


def test_credentials_that_label_studio_does_not_know_are_named(
    settings: Settings, studio: LabelStudioClient, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(photos=1)
    with backend_of_its_own(settings, tmp_path) as mine:
        connect(mine, studio, Runtime(mine), project)
    with backend_of_its_own(settings, tmp_path, basic_auth_pass=SecretStr("new")) as mine:
        found = wrong(mine, project)
    assert set(found) == {"backend-state"}
    assert "ls-clip connect" in found["backend-state"].fix


def test_a_project_without_the_backend_and_with_two_are_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected()
    body = {
        "project": project,
        "url": settings.backend_url,
        "title": "again",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": settings.basic_auth_user,
        "basic_auth_pass": settings.basic_auth_pass.get_secret_value(),
    }
    studio.backends.save(body)
    found = wrong(settings, project)
    assert set(found) == {"backend-registered", "webhook-automatic"}
    assert "2 times" in found["backend-registered"].what

    for hook in studio.webhooks.of_project(project):
        if not hook["url"].endswith(str(project)):
            studio.webhooks.delete(hook["id"])
    for one in studio.backends.of_project(project):
        studio.backends.delete(one["id"])
    found = wrong(settings, project)
    assert set(found) == {"backend-registered"}
    assert "no backend" in found["backend-registered"].what


def test_a_backend_registered_at_another_address_is_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    port = settings.backend_url.rpartition(":")[2]
    elsewhere = changed(settings, public_url=f"http://localhost:{port}")
    found = wrong(elsewhere, connected())
    assert "the settings say" in found["backend-registered"].what


# Webhooks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_active": False}, "switched off"),
        ({"headers": {}}, "no secret"),
        ({"headers": {SECRET_HEADER: "other"}}, "another secret"),
        ({"actions": ["TASKS_CREATED"]}, "leaves out ANNOTATIONS_CREATED"),
        ({"send_payload": False}, "bare name"),
    ],
)
def test_a_webhook_that_cannot_work_is_named(
    settings: Settings,
    studio: LabelStudioClient,
    connected: Connected,
    change: dict[str, Any],
    said: str,
) -> None:
    project = connected(photos=1)
    hook = studio.webhooks.of_project(project)[0]
    body = {key: hook[key] for key in ("url", "headers", "actions", "send_for_all_actions")}
    studio.webhooks.save({**body, **change}, hook["id"])
    found = wrong(settings, project)
    assert set(found) == {"webhook"}
    assert said in found["webhook"].what


def test_a_missing_webhook_and_the_automatic_one_are_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected(photos=1)
    studio.webhooks.delete(studio.webhooks.of_project(project)[0]["id"])
    assert "no webhook to this backend" in wrong(settings, project)["webhook"].what
    url = f"{settings.backend_url}/webhook"
    studio.webhooks.save({"project": project, "url": url, "send_for_all_actions": True})
    assert set(wrong(settings, project)) == {"webhook", "webhook-automatic"}


# What is shown


def test_prelabeling_that_is_off_is_named_and_not_its_consequences(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected(photos=1)
    studio.projects.update(project, show_collab_predictions=False)
    assert set(wrong(settings, project)) == {"prelabeling"}


def test_a_project_that_points_at_no_version_is_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected(photos=1)
    studio.projects.update(project, model_version="")
    found = wrong(settings, project)
    assert set(found) == {"model-version"}
    assert "no model version" in found["model-version"].what


def test_a_version_without_predictions_is_named(
    settings: Settings, connected: Connected, api: Api
) -> None:
    project = connected(photos=1)
    api(
        "POST",
        "/api/dm/actions",
        params={"id": "delete_tasks_predictions", "project": project},
        json={"selectedItems": {"all": True, "excluded": []}},
    )
    found = wrong(settings, project)
    assert set(found) == {"model-version"}


def test_a_server_with_other_settings_is_named(settings: Settings, connected: Connected) -> None:
    found = wrong(changed(settings, threshold=0.91), connected(photos=1))
    assert set(found) == {"backend-version"}
    assert "running backend serves" in found["backend-version"].what


def test_suggestions_older_than_the_labels_are_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected, label_config: str
) -> None:
    project = connected(photos=1)
    more = label_config.replace("</Choices>", '<Choice value="tractor"/></Choices>')
    studio.projects.update(project, label_config=more)
    found = wrong(settings, project)
    assert set(found) == {"backend-version"}
    assert "today's version" in found["backend-version"].what


def test_tasks_without_a_suggestion_are_counted(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected()
    image = next(studio.tasks.iterate(project))["data"]["image"]
    studio.tasks.create(project, [{"data": {"image": image}}])
    found = wrong(settings, project)
    assert set(found) == {"predictions-missing"}
    assert "1 of 4 tasks" in found["predictions-missing"].what


def test_predictions_that_are_there_twice_and_of_two_versions_are_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected(photos=2)
    keys = ("task", "result", "score", "model_version")
    item = {key: studio.predictions.of_project(project)[0][key] for key in keys}
    studio.predictions.import_items(project, [item])
    found = wrong(settings, project)
    assert set(found) == {"predictions-duplicated"}
    assert str(item["task"]) in found["predictions-duplicated"].what
    studio.predictions.import_items(project, [{**item, "model_version": "older"}])
    found = wrong(settings, project)
    assert set(found) == {"predictions-duplicated", "predictions-versions"}
    assert found["predictions-versions"].severity == "note"
    assert "older (1)" in found["predictions-versions"].what


def test_predictions_with_labels_that_are_gone_are_named(
    settings: Settings, studio: LabelStudioClient, connected: Connected, label_config: str, api: Api
) -> None:
    project = connected(photos=1)
    version = studio.projects.get(project)["model_version"]
    task = next(studio.tasks.iterate(project))["id"]
    item = {
        "from_name": "tags",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["GONE"]},
    }
    for one in studio.predictions.of_project(project):
        api("DELETE", f"/api/predictions/{one['id']}/")
    body = {"task": task, "result": [item], "score": 0.5, "model_version": version}
    api("POST", "/api/predictions/", json=body)
    found = wrong(settings, project)
    assert set(found) == {"predictions-labels"}
    assert "GONE (1)" in found["predictions-labels"].what


# Config, labels, images


def test_a_config_with_nothing_for_us_is_one_error(
    settings: Settings, make_project: MakeProject
) -> None:
    boxes = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="cat"/></RectangleLabels></View>'
    )
    found = wrong(settings, make_project(photos=1, config=boxes))
    assert "no control that can be predicted" in found["config"].what
    assert "predictions-missing" not in found


def test_a_skipped_control_and_missing_evidence_are_notes(
    settings: Settings, connected: Connected
) -> None:
    config = (
        '<View><Image name="image" value="$image"/><Choices name="tags" toName="image" '
        'choice="multiple"><Choice value="cat"/><Choice value="dog"/></Choices>'
        '<Choices name="part" toName="image" perRegion="true"><Choice value="a"/></Choices></View>'
    )
    found = wrong(settings, connected(photos=1, config=config))
    assert set(found) == {"config", "evidence"}
    assert {one.severity for one in found.values()} == {"note"}
    assert exit_code(found.values()) == 0


def test_labels_that_the_encoder_cannot_read_are_named(
    settings: Settings, connected: Connected, label_config: str
) -> None:
    config = label_config.replace("</Choices>", '<Choice value="消防車"/></Choices>')
    found = wrong(settings, connected(photos=1, config=config))
    assert set(found) == {"labels"}
    assert "消防車" in found["labels"].what


def test_images_that_cannot_be_had_are_named_with_the_reason_per_host(
    settings: Settings, connected: Connected
) -> None:
    extra = [
        {"data": {"image": "/data/local-files/?d=images/none.jpg"}},
        {"data": {"image": "http://127.0.0.2:9/x.jpg"}},
        {"data": {"image": ""}},
    ]
    project = connected(photos=1, extra=extra)
    findings = [one for one in doctor(settings, project) if one.severity not in QUIET]
    assert {one.check for one in findings} == {"images", "predictions-missing"}
    said = " ".join(one.what for one in findings if one.check == "images")
    assert "from Label Studio (not_found)" in said
    assert "from 127.0.0.2 (private_address)" in said
    assert "(no_image)" in said
    assert all(one.fix for one in findings)


# This machine


def test_an_encoder_and_a_store_that_cannot_be_had_are_one_error_each(
    settings: Settings, connected: Connected, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    broken = changed(
        settings, encoder="open_clip:ViT-B-16//none.pt", store=str(tmp_path / "file" / "store")
    )
    assert set(wrong(broken, connected(photos=1))) == {"encoder", "store"}
