"""The doctor on a project: its backend, webhook, predictions, labels and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.doctor.checks import doctor
from backend.doctor.finding import exit_code
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import SECRET_HEADER
from backend.projects.connect import connect
from backend.projects.registration import TITLE
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.doctor import QUIET, Api, Connected, changed, wrong
from tests.support.live import MakeProject, own_backend

# The backend


def test_a_backend_that_is_down_is_one_error(
    settings: Settings, studio: LabelStudioClient, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(photos=2)
    with own_backend(settings, tmp_path, store=str(tmp_path)) as mine:
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
    with own_backend(settings, tmp_path, store=str(tmp_path)) as mine:
        connect(mine, studio, Runtime(mine), project)
    with own_backend(
        settings, tmp_path, store=str(tmp_path), basic_auth_pass=SecretStr("new")
    ) as mine:
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
    assert "not registered" in found["backend-registered"].what


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
    assert "current version" in found["backend-version"].what


def test_tasks_without_a_suggestion_are_counted(
    settings: Settings, studio: LabelStudioClient, connected: Connected
) -> None:
    project = connected()
    image = next(studio.tasks.iterate(project))["data"]["image"]
    studio.tasks.create(project, [{"data": {"image": image}}])
    newest = max(task["id"] for task in studio.tasks.iterate(project))
    found = wrong(settings, project)
    assert set(found) == {"predictions-missing"}
    assert "1 of 4 tasks" in found["predictions-missing"].what
    assert found["predictions-missing"].what.endswith(f": task {newest}.")


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
    assert f"GONE (1), in task {task}." in found["predictions-labels"].what


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
    assert "from Label Studio, cannot be used (not_found" in said
    assert "from 127.0.0.2, cannot be used (private_address" in said
    assert "(no_image" in said
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
