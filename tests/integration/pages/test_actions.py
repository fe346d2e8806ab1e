"""The buttons of a project's page: what they start, and for whom."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from backend.labelstudio.person import Credential, CredentialKind
from backend.server.app import create_app
from backend.server.pages.access import access
from backend.server.pages.protection import csrf_token
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.store import Store
from jobs.run import RunState, Trigger
from jobs.run_store import RunStore
from jobs.training_state import TrainingState, TrainingStore
from tests.support.fixtures import MakeRuntime
from tests.support.heads import head_set
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

SESSION = "eyJhIjoiYiJ9:1tXyZ0:AbC-d_e"
OURS = "http://127.0.0.1"


class Page:
    """A person at the page of a project."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        with client.application.app_context():
            self.csrf = csrf_token(access().secret, Credential(CredentialKind.SESSION, SESSION))

    def press(self, button: str, **fields: str) -> TestResponse:
        return self.client.post(
            f"/projects/{PROJECT}/actions/{button}",
            base_url=OURS,
            headers={"Cookie": f"sessionid={SESSION}", "Origin": OURS},
            data={"csrf": self.csrf, **fields},
        )

    def shown(self, path: str = "") -> TestResponse:
        headers = {"Cookie": f"sessionid={SESSION}"}
        return self.client.get(f"/projects/{PROJECT}/{path}", base_url=OURS, headers=headers)


@pytest.fixture
def runs(connection: Redis) -> RunStore:
    return RunStore(connection)


@pytest.fixture
def trainings(connection: Redis) -> TrainingStore:
    return TrainingStore(connection)


@pytest.fixture
def store(make_runtime: MakeRuntime) -> Store:
    return make_runtime().store


@pytest.fixture(params=["person@example.com"])
def person(
    request: pytest.FixtureRequest,
    make_runtime: MakeRuntime,
    studio: StubStudio,
    valkey: object,
    connection: Redis,
) -> Page:
    url = str(valkey.url)  # type: ignore[attr-defined]
    runtime = make_runtime(label_studio_url=studio.url, redis_url=url, admins=request.param)
    return Page(create_app(runtime).test_client(use_cookies=False))


def test_predict_starts_a_run_and_the_page_follows_it(person: Page, runs: RunStore):
    answer = person.press("predict")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/projects/{PROJECT}/")
    (run,) = runs.of_project(PROJECT)
    assert run.trigger == Trigger.PAGE
    before = person.shown("progress").get_json()
    assert before["goes_on"] and [one["id"] for one in before["runs"]] == [run.id]
    assert f'data-run="{run.id}"' in person.shown().text
    assert person.press("cancel", run=run.id).status_code == 303
    assert runs.require(PROJECT, run.id).state == RunState.CANCELLED
    after = person.shown("progress").get_json()
    assert not after["goes_on"] and after["stamp"] != before["stamp"]


def test_train_asks_for_a_training(person: Page, trainings: TrainingStore):
    assert person.press("train").status_code == 303
    assert trainings.get(PROJECT).state == TrainingState.QUEUED
    assert person.shown("progress").get_json()["goes_on"]


def test_roll_back_returns_to_what_was_in_use_before(person: Page, runs: RunStore, store: Store):
    heads = HeadRegistry(store)
    heads.save(KEY, head_set("h1"))
    heads.set_serving(KEY, "h1")
    assert person.press("rollback", head="h1").status_code == 303
    assert runs.of_project(PROJECT) == []
    assert person.press("rollback", head=ZERO_SHOT).status_code == 303
    (run,) = runs.of_project(PROJECT)
    assert (run.head, run.trigger) == (ZERO_SHOT, Trigger.PAGE)
    # One run at a time: the reason is told on a page.
    refused = person.press("rollback", head=ZERO_SHOT)
    assert refused.status_code >= 400 and "already has a run in progress" in refused.text


@pytest.mark.parametrize("person", ["somebody.else@example.com"], indirect=True)
@pytest.mark.parametrize("button", ["predict", "train", "cancel", "rollback"])
def test_who_is_no_admin_starts_nothing(person: Page, runs: RunStore, button: str):
    answer = person.press(button)
    assert answer.status_code == 403 and "Only admins" in answer.text
    assert runs.of_project(PROJECT) == []
    assert "<button>" not in person.shown().text


def test_a_bug_is_told_on_a_page_too(person: Page, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("backend.server.pages.overview_page.overview", fail)
    answer = person.shown()
    assert answer.status_code == 500
    assert "<h1>Something went wrong inside the backend.</h1>" in answer.text
    assert "Content-Security-Policy" in answer.headers


def test_without_a_queue_the_page_says_so(make_runtime: MakeRuntime, studio: StubStudio):
    page = Page(
        create_app(make_runtime(label_studio_url=studio.url)).test_client(use_cookies=False)
    )
    assert "There is no queue" in page.shown().text
