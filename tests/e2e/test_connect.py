"""Connecting a project of a real Label Studio, and what it shows afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from backend.demo.servers import LocalBackend
from backend.errors import LabelConfigError, StudioError
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.labelstudio.projects import project_key
from backend.projects.connect import connect
from backend.projects.registration import VIEW_TITLE
from backend.runtime import Runtime
from backend.settings import Settings, load_settings
from backend.storage.review_record import ReviewOrder
from jobs.review_round import TAB_TITLE
from tests.support.live import (
    PHOTOS,
    MakeProject,
    Servers,
    choices_of,
    review_what_has_no_box_ticked,
    ticking_early,
)
from tests.support.processes import free_port

Api = Callable[..., Any]
CONFIGS = Path(__file__).parents[2] / "plugin_config"


def shown(studio: LabelStudioClient, project: int, version: str) -> Counter[int]:
    """How many predictions of the version each task has."""
    return Counter(
        item["task"]
        for item in studio.predictions.of_project(project)
        if item["model_version"] == version
    )


def test_connecting_twice_changes_nothing_the_second_time(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    project = make_project()
    first = connect(settings, studio, runtime, project)
    second = connect(settings, studio, runtime, project)

    assert (first.tasks, first.imported, first.failures) == (PHOTOS, PHOTOS, {})
    assert (second.tasks, second.imported, second.failures) == (PHOTOS, 0, {})
    assert first.model_version == second.model_version
    assert set(shown(studio, project, first.model_version).values()) == {1}
    assert len(shown(studio, project, first.model_version)) == PHOTOS
    state = studio.projects.get(project)
    assert state["model_version"] == first.model_version
    assert state["show_collab_predictions"] is True
    assert state["sampling"] == "Uniform sampling"
    assert len(studio.backends.of_project(project)) == 1
    assert [view["data"]["title"] for view in studio.views.of_project(project)].count(
        VIEW_TITLE
    ) == 1
    assert [view["data"]["title"] for view in studio.views.of_project(project)].count(
        TAB_TITLE
    ) == 1
    hidden = studio.views.of_project(project)[0]["data"]["hiddenColumns"]["explore"]
    assert "tasks:predictions_score" not in hidden
    assert "tasks:predictions_results" in hidden


def test_two_connects_at_once_import_every_prediction_once(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    project = make_project()

    def run(_: int) -> str:
        try:
            return connect(settings, studio, runtime, project).model_version
        except StudioError as error:
            return error.message

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(run, range(3)))

    versions = {end for end in ends if end.startswith("offline-")}
    refused = [end for end in ends if not end.startswith("offline-")]
    assert len(versions) == 1
    assert all("already being connected" in message for message in refused)
    assert list(shown(studio, project, versions.pop()).values()) == [1] * PHOTOS


def test_a_task_that_lacks_one_of_its_images_is_predicted_and_told(
    servers: Servers,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
) -> None:
    things = '<Choice value="cat"/><Choice value="rocket"/>'
    config = (
        '<View><Image name="one" value="$image"/><Image name="two" value="$other"/>'
        f'<Choices name="first" toName="one" choice="multiple">{things}</Choices>'
        f'<Choices name="second" toName="two" choice="multiple">{things}</Choices></View>'
    )
    project = make_project(photos=0, config=config)
    photo = min(path.name for path in (servers.files / "images").iterdir())
    there, gone = (f"/data/local-files/?d=images/{name}" for name in (photo, "gone.jpg"))
    tasks = [{"data": {"image": there, "other": other}} for other in (there, gone)]
    whole, lacking = studio.tasks.create(project, tasks)
    report = connect(settings, studio, runtime, project)
    assert set(report.failures) == {lacking}
    assert "gone.jpg" in report.failures[lacking]
    assert {one["task"] for one in studio.predictions.of_project(project)} == {whole, lacking}


def test_the_webhook_without_a_secret_is_replaced_by_one_with_it(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    project = make_project(photos=2)
    connect(settings, studio, runtime, project)

    hooks = studio.webhooks.of_project(project)
    assert len(hooks) == 1
    assert hooks[0]["url"].endswith(f"/webhook?project={project}")
    assert hooks[0]["headers"] == {SECRET_HEADER: settings.webhook_secret.get_secret_value()}
    assert set(hooks[0]["actions"]) == EVENT_ACTIONS


def test_the_label_stream_shows_the_prediction_while_the_backend_is_not_asked(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    label_config: str,
    api: Callable[..., Any],
) -> None:
    project = make_project(config=ticking_early(label_config))
    report = connect(settings, studio, runtime, project, order=ReviewOrder.UNCERTAIN)
    review_what_has_no_box_ticked(studio, project)

    task = api("GET", f"/api/projects/{project}/next")

    assert [one["model_version"] for one in task["predictions"]] == [report.model_version]
    prediction = task["predictions"][0]
    assert choices_of(prediction)
    texts = [item["value"]["text"] for item in prediction["result"] if item["type"] == "textarea"]
    assert texts[0][0].startswith("suggested: ")
    assert texts[0][-1].endswith("not calibrated yet")
    # The least certain of those that are left, as was asked for.
    shown = studio.predictions.of_project(project)
    assert prediction["score"] == min(one["score"] for one in shown if choices_of(one))


def test_setup_and_predict_agree_on_the_version_and_a_new_task_is_answered_live(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    api: Api,
) -> None:
    project = make_project()
    report = connect(settings, studio, runtime, project)
    imported = {
        one["task"]: (one["score"], one["result"]) for one in studio.predictions.of_project(project)
    }
    image = next(studio.tasks.iterate(project))["data"]["image"]
    task = studio.tasks.create(project, [{"data": {"image": image}}])[0]

    api(
        "POST",
        "/api/dm/actions",
        params={"id": "retrieve_tasks_predictions", "project": project},
        json={"selectedItems": {"all": True, "excluded": []}},
    )

    live = [one for one in studio.predictions.of_project(project) if one["task"] == task]
    assert [one["model_version"] for one in live] == [report.model_version]
    twin = next(one["id"] for one in studio.tasks.iterate(project) if one["data"]["image"] == image)
    assert (live[0]["score"], live[0]["result"]) == imported[twin]
    assert set(shown(studio, project, report.model_version).values()) == {1}


def test_a_broken_and_a_missing_image_leave_only_their_own_tasks_open(
    servers: Servers,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
) -> None:
    (servers.files / "broken").mkdir(exist_ok=True)
    (servers.files / "broken" / "cut.jpg").write_bytes(
        next((servers.files / "images").iterdir()).read_bytes()[:900]
    )
    bad = ["/data/local-files/?d=broken/cut.jpg", "/data/local-files/?d=images/missing.jpg", ""]
    project = make_project(photos=5, extra=[{"data": {"image": address}} for address in bad])
    studio.projects.add_local_files(project, str(servers.files / "broken"))

    report = connect(settings, studio, runtime, project)

    assert (report.tasks, report.imported, len(report.failures)) == (8, 5, 3)
    assert sorted(shown(studio, project, report.model_version).values()) == [1] * 5
    assert all("Fix:" in reason for reason in report.failures.values())


def test_uploaded_images_are_predicted_with_a_personal_access_token(
    servers: Servers,
    settings: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
    api: Api,
    personal_token: str,
    tmp_path: Path,
) -> None:
    project = make_project(photos=0)
    names = sorted((servers.files / "images").iterdir())[:3]
    # Label Studio takes one file a field.
    handles = {
        f"file{index}": (path.name, path.read_bytes(), "image/jpeg")
        for index, path in enumerate(names)
    }
    api("POST", f"/api/projects/{project}/import", files=handles)
    mine = load_settings(
        **{
            **{name: value for name, value in settings},
            "label_studio_api_key": personal_token,
            "store": str(tmp_path / "store"),
        }
    )

    report = connect(mine, LabelStudioClient(mine), Runtime(mine), project)

    assert (report.imported, report.failures) == (3, {})


def test_new_labels_give_a_new_version_and_the_old_predictions_stay(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    label_config: str,
) -> None:
    project = make_project(photos=4)
    before = connect(settings, studio, runtime, project)
    changed = label_config.replace("</Choices>", '<Choice value="tractor"/></Choices>')
    studio.projects.update(project, label_config=changed)

    after = connect(settings, studio, runtime, project)

    assert after.model_version != before.model_version
    assert studio.predictions.versions(project) == {before.model_version: 4, after.model_version: 4}
    assert studio.projects.get(project)["model_version"] == after.model_version


def test_a_config_with_nothing_for_us_is_refused_before_anything_is_changed(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    project = make_project(
        photos=1,
        config='<View><Image name="image" value="$image"/>'
        '<RectangleLabels name="box" toName="image"><Label value="cat"/></RectangleLabels></View>',
    )
    with pytest.raises(LabelConfigError, match="no control that can be predicted"):
        connect(settings, studio, runtime, project)
    assert studio.backends.of_project(project) == []
    assert studio.webhooks.of_project(project) == []


def test_a_backend_that_is_down_is_named_with_the_way_to_start_it(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    project = make_project(photos=1)
    down = settings.model_copy(update={"public_url": "http://127.0.0.1:9"})
    with pytest.raises(StudioError) as caught:
        connect(down, studio, runtime, project)
    assert "ls-clip serve" in caught.value.fix
    assert studio.backends.of_project(project) == []


def test_a_project_that_does_not_exist_says_so(studio: LabelStudioClient) -> None:
    with pytest.raises(StudioError, match="404"):
        studio.projects.get(987654)


def test_a_wrong_token_names_the_setting(settings: Settings) -> None:
    wrong = settings.model_copy(update={"label_studio_api_key": SecretStr("x" * 40)})
    with pytest.raises(StudioError) as caught:
        LabelStudioClient(wrong).projects.get(1)
    assert "LABEL_STUDIO_API_KEY" in caught.value.fix


def test_events_of_label_studio_pass_with_the_secret(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    api: Api,
) -> None:
    project = make_project(photos=1)
    connect(settings, studio, runtime, project)
    task = next(studio.tasks.iterate(project))["id"]

    def counted(action: str) -> float:
        text = requests.get(f"{settings.backend_url}/metrics", timeout=10).text
        rows = [line for line in text.splitlines() if f'webhooks_total{{action="{action}"' in line]
        return sum(float(line.split()[-1]) for line in rows)

    before = counted("ANNOTATION_CREATED"), counted("START_TRAINING")
    result = [
        {
            "from_name": "tags",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["cat"]},
        }
    ]
    api("POST", f"/api/tasks/{task}/annotations/", json={"result": result, "lead_time": 1.5})
    api("POST", f"/api/ml/{studio.backends.of_project(project)[0]['id']}/train")
    after = counted("ANNOTATION_CREATED"), counted("START_TRAINING")
    assert after == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.xml")), ids=lambda path: path.stem)
def test_the_ready_labeling_configs_pass_label_studios_validation(
    path: Path, studio: LabelStudioClient, api: Api
) -> None:
    config = path.read_text()
    api("POST", "/api/projects/validate/", json={"label_config": config})
    parsed = parse_config(config)
    parsed.require_controls()
    assert parsed.evidence is not None


def test_bulk_and_live_use_the_same_project_key(
    studio: LabelStudioClient, make_project: MakeProject
) -> None:
    project = studio.projects.get(make_project(photos=0))
    number, _, created = project_key(project).partition(".")
    assert (int(number), created.isdigit()) == (project["id"], True)


def test_a_backend_without_a_password_is_connected(
    settings: Settings, studio: LabelStudioClient, make_project: MakeProject, tmp_path: Path
) -> None:
    port = free_port()
    values: dict[str, Any] = {
        **dict(settings),
        "basic_auth_user": "",
        "basic_auth_pass": SecretStr(""),
        "store": str(tmp_path / "store"),
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
    }
    mine = Settings(_env_file=None, **values)
    with LocalBackend(mine, tmp_path / "backend.log") as backend:
        backend.wait()
        project = make_project(photos=2)
        report = connect(mine, studio, Runtime(mine), project)
        assert (report.imported, report.failures) == (2, {})
        assert studio.backends.of_project(project)[0]["auth_method"] == "NONE"
