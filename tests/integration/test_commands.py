"""What the commands around runs, heads, archives and exports answer when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from redis import Redis

from backend.errors import QueueError, StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.settings import Settings
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.installations import open_store
from backend.storage.project_state import ProjectState
from jobs import enqueue, queue
from jobs.polling import wait_until_started
from jobs.run import RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore
from tests.support.builders import make_settings
from tests.support.fixtures import Cli, MakeRuntime
from tests.support.heads import head_set
from tests.support.processes import free_port
from tests.support.stub_label_studio import KEY, StubStudio

COMMANDS = (
    ("train", "1"),
    ("heads", "1"),
    ("rollback", "1"),
    ("export", "1"),
    ("import-archive", "1", "archive.csv"),
)


@pytest.fixture
def heads(tmp_path: Path) -> HeadRegistry:
    return HeadRegistry(open_store(make_settings(tmp_path / "store")))


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: command[0])
def test_without_label_studio_each_command_says_so(cli: Cli, tmp_path: Path, command: Any):
    (tmp_path / "archive.csv").write_text("image,label\nx.jpg,cat\n")
    code, said = cli(*command, LABEL_STUDIO_URL=f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "does not answer" in said and "LABEL_STUDIO_URL" in said


def test_a_training_without_a_queue_or_with_a_dead_one_says_so(cli: Cli):
    code, said = cli("train", "1", LS_CLIP_REDIS_URL="")
    assert code == 1
    assert "LS_CLIP_REDIS_URL" in said
    code, said = cli("train", "1", LS_CLIP_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert code == 1
    assert "Start Redis or Valkey" in said


def test_a_training_that_nobody_will_do_is_told_and_asked_for_once(cli: Cli, connection: Redis):
    for _ in range(2):
        code, said = cli("train", "1")
        assert code == 0
        assert "No worker listens" in said and "ls-clip heads 1" in said
    assert list(queue.queue(connection, queue.TRAIN).get_job_ids()) == [
        enqueue.train_id(connection, 1)
    ]


def test_json_of_a_training_that_is_not_waited_for_is_its_record(cli: Cli):
    code, said = cli("train", "1", "--json")
    assert code == 0
    record, _ = json.JSONDecoder().raw_decode(said)
    assert record["state"] in {"idle", "queued"}


def test_a_project_without_heads_says_that_it_is_zero_shot(cli: Cli):
    code, said = cli("heads", "1")
    assert code == 0
    assert "zero-shot" in said


def test_on_a_narrow_terminal_the_list_of_heads_is_whole(cli: Cli, heads: HeadRegistry):
    heads.save(KEY, head_set("h1"))
    code, said = cli("heads", "1", COLUMNS="80")
    assert code == 0
    first, row, *rest = said.splitlines()
    assert first.split()[:3] == ["head", "in", "use"] and first.rstrip().endswith("verdict")
    assert row.split()[0] == "h1" and row.rstrip().endswith(("accepted", "rejected"))
    assert "None of them is in use: suggestions are zero-shot, as before any review." in rest
    assert any(line.startswith("h1: ") for line in rest)


def test_there_is_nothing_to_go_back_to_before_the_first_head(cli: Cli):
    code, said = cli("rollback", "1")
    assert code == 1
    assert "has been in use before" in said


def test_a_rollback_to_what_is_not_there_or_serves_already_is_told(cli: Cli, heads: HeadRegistry):
    code, said = cli("rollback", "1", "h7")
    assert code == 1
    assert "no head 'h7'" in said and "ls-clip heads" in said
    code, said = cli("rollback", "1", ZERO_SHOT)
    assert code == 0
    assert "already in use" in said


def test_a_second_rollback_goes_on_back(cli: Cli, heads: HeadRegistry, connection: Redis):
    for name in ("h1", "h2", "h1"):
        heads.save(KEY, head_set(name))
        heads.set_serving(KEY, name)
    # h1 served, then h2, and one rollback has been made.
    code, said = cli("rollback", "1")
    assert code == 0
    assert f"returns to {ZERO_SHOT}" in said


def test_forgetting_a_project_forgets_the_head_that_waits(cli: Cli, connection: Redis):
    trainings = TrainingStore(connection)
    trainings.note(1, candidate="h1")
    assert cli("forget", "1", "--task", "5", "--yes")[0] == 0
    assert trainings.get(1).candidate == "h1"
    assert cli("forget", "1", "--yes")[0] == 0
    assert trainings.get(1).candidate == ""


def test_a_rollback_during_a_training_is_refused(cli: Cli, heads: HeadRegistry, connection: Redis):
    heads.save(KEY, head_set("h1"))
    heads.set_serving(KEY, "h1")
    TrainingStore(connection).begin(1)
    code, said = cli("rollback", "1")
    assert code == 1
    assert "is being trained" in said and "ls-clip heads 1" in said
    assert RunStore(connection).active() == []


def test_a_rollback_during_a_run_is_refused_and_changes_nothing(
    cli: Cli, heads: HeadRegistry, connection: Redis
):
    heads.save(KEY, head_set("h1"))
    heads.set_serving(KEY, "h1")
    run, _ = enqueue.start_run(RunStore(connection), 1, Scope.MISSING, Trigger.CLI)
    code, said = cli("rollback", "1")
    assert code == 1
    assert run.id in said and "--cancel" in said
    assert heads.serving(KEY) == "h1"


def test_an_export_that_fails_leaves_no_file(cli: Cli, tmp_path: Path, studio: StubStudio):
    studio.before = lambda method, path: 404 if path == "/api/tasks/" else None
    (tmp_path / "project-1.csv").write_text("as before")
    code, _ = cli("export", "1")
    assert code == 1
    assert (tmp_path / "project-1.csv").read_text() == "as before"
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_project_is_no_archive_of_itself(cli: Cli):
    code, said = cli("import-archive", "1", "1")
    assert code == 1
    assert "cannot be an archive of itself" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone.csv", "There is no file or folder gone.csv."),
        ("7", "404"),
        ("", "SOURCE is empty"),
        ("empty.csv", "holds no image with a label"),
        ("empty", "holds no image with a label"),
    ],
)
def test_an_archive_with_nothing_in_it_changes_nothing(
    cli: Cli, tmp_path: Path, source: str, said: str
):
    (tmp_path / "empty.csv").write_text("image,label\n,cat\n")
    (tmp_path / "empty").mkdir()
    code, answer = cli("import-archive", "1", source)
    assert code == 1
    assert said in " ".join(answer.split())
    assert ProjectState(open_store(make_settings(tmp_path / "store")), KEY).known_field() == ""


def test_the_field_of_known_labels_is_not_changed_by_the_way(cli: Cli, tmp_path: Path):
    ProjectState(open_store(make_settings(tmp_path / "store")), KEY).set_known_field("category")
    (tmp_path / "archive.csv").write_text("image,label\nx.jpg,cat\n")
    code, said = cli("import-archive", "1", "archive.csv", "--field", "other")
    assert code == 1
    assert "already has its known labels in 'category'" in said


@pytest.mark.parametrize("field", ["", "image", "clip_source"])
def test_labels_are_not_written_over_what_a_task_needs(cli: Cli, tmp_path: Path, field: str):
    (tmp_path / "archive.csv").write_text("image,label\nx.jpg,cat\n")
    code, said = cli("import-archive", "1", "archive.csv", "--field", field)
    assert code == 1
    assert f"--field {field!r} cannot hold the labels" in said


# Runs


@pytest.mark.parametrize("command", ["runs", "train", "prune"])
def test_a_number_that_no_project_has_is_refused_at_once(cli: Cli, connection: Redis, command: str):
    code, said = cli(command, "99")
    assert code == 1
    assert "404" in said and "Check the project's number" in said
    assert not queue.queue(connection, queue.PREDICT).get_job_ids()


def test_a_run_of_a_project_that_there_is_not_is_told_as_soon_as_a_worker_has_looked(
    cli: Cli, connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.polling.BEGIN_SECONDS", 20.0)
    runs = RunStore(connection)
    run, _ = runs.start(99, Scope.MISSING, Trigger.CLI)

    def look(_: float) -> None:
        runs.end(
            run.id, RunState.FAILED, StudioError("There is none.", "Check the project's number.")
        )

    monkeypatch.setattr("time.sleep", look)
    assert wait_until_started(runs, run).state == RunState.FAILED


def test_a_run_that_has_begun_is_not_waited_for(connection: Redis):
    runs = RunStore(connection)
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.note(run.id, config="abc")
    assert wait_until_started(runs, run).config == "abc"


def test_a_run_is_asked_for_while_label_studio_is_away(cli: Cli, connection: Redis):
    code, said = cli("predict", "1", LABEL_STUDIO_URL=f"http://127.0.0.1:{free_port()}")
    assert code == 0
    assert "ls-clip runs 1" in said
    assert len(RunStore(connection).of_project(1)) == 1


def test_on_a_narrow_terminal_the_list_of_runs_shows_whole_ids_and_why_one_failed(
    cli: Cli, connection: Redis
):
    runs = RunStore(connection)
    run, _ = runs.start(1, Scope.UNLABELLED, Trigger.LABEL_STUDIO)
    runs.end(run.id, RunState.FAILED, StudioError("It says no.", "Ask nicely."))
    code, said = cli("runs", "1", COLUMNS="80")
    assert code == 0
    first, *rows = said.splitlines()
    assert " ".join(first.split()) == "run when state tasks imported failed only asked by"
    assert rows[0].split() == [
        *(run.id, *rows[0].split()[1:3], "failed", "0", "0", "0", "unlabelled", "label-studio")
    ]
    assert f"{run.id} failed: It says no. Fix: Ask nicely." in said


def test_a_project_without_runs_says_so(cli: Cli):
    assert cli("runs", "1") == (0, "Project 1 has no recorded runs.\n")


def test_a_run_can_be_named_by_the_beginning_of_its_id(cli: Cli, connection: Redis):
    run, _ = RunStore(connection).start(1, Scope.MISSING, Trigger.CLI)
    code, said = cli("runs", "1", "--cancel", run.id[:5], "--json")
    assert code == 0
    assert run.id in said and "cancelled" in said


def test_several_runs_that_begin_alike_are_named(cli: Cli, connection: Redis):
    runs = RunStore(connection)
    ids: list[str] = []
    while len({one[0] for one in ids}) == len(ids):
        run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
        runs.end(run.id, RunState.DONE)
        ids.append(run.id)
    code, said = cli("runs", "1", "--show", ids[-1][0])
    assert code == 1
    assert f"Several runs of project 1 begin with '{ids[-1][0]}'" in said
    assert ids[-1] in said and "ls-clip runs 1" in said


def test_why_a_task_failed_is_told_with_what_mends_it(cli: Cli, connection: Redis):
    runs = RunStore(connection)
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.record_failures(
        run.id, {7: {"code": "truncated", "message": "It is cut.", "fix": "Mend it."}}
    )
    runs.end(run.id, RunState.DONE)
    said = " ".join(cli("runs", "1", "--show", run.id)[1].split())
    assert "Task 7: It is cut. Fix: Mend it." in said


def test_the_version_on_show_is_not_deleted_without_a_warning(cli: Cli, studio: StubStudio):
    studio.shown = "v2"
    studio.predictions = [{"id": n, "task": n, "model_version": f"v{n}"} for n in (1, 2)]
    assert "The project shows" not in cli("prune", "1", "--version", "v1")[1]
    said = " ".join(cli("prune", "1", "--version", "v2")[1].split())
    assert "The project shows v2: its tasks will open with nothing ticked" in said
    assert len(studio.predictions) == 2


def test_without_a_worker_connect_changes_nothing(
    studio: StubStudio, make_runtime: MakeRuntime, queue_settings: Settings, monkeypatch: Any
):
    monkeypatch.setattr("backend.projects.connect.WORKER_SECONDS", 0.0)
    runtime = make_runtime(
        redis_url=queue_settings.redis_url.get_secret_value(),
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
    )
    with pytest.raises(QueueError, match="No worker listens"):
        connect(runtime.settings, LabelStudioClient(runtime.settings), runtime, 1)
    assert {method for method, _ in studio.calls} == {"GET"}


def test_a_version_that_there_is_not_is_no_reason_to_say_all_is_well(cli: Cli):
    code, said = cli("prune", "1", "--version", "nope", "--yes")
    assert code == 1
    assert "'nope'" in said and "ls-clip prune 1" in said


def test_forget_says_when_there_was_nothing_and_asks_nothing(cli: Cli):
    code, said = cli("forget", "1", "--task", "5")
    assert code == 0
    assert "Nothing is stored about project 1, tasks 5." in said


# Addresses and tokens


def token(**content: Any) -> str:
    return jwt.encode(content, "k" * 32)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (token(token_type="access", exp=2**33), "an access token, which lives five minutes"),
        (token(token_type="refresh", exp=2**33)[:60], "is incomplete"),
        (token(token_type="refresh", exp=1), "has expired"),
    ],
)
def test_what_is_wrong_with_a_token_is_told(cli: Cli, key: str, said: str):
    code, answer = cli("prune", "1", LABEL_STUDIO_API_KEY=key)
    assert code == 1
    assert said in answer and "Personal Access Token" in answer


def test_an_address_with_https_before_a_plain_server_is_told(cli: Cli, studio: StubStudio):
    wrong = studio.url.replace("http://", "https://")
    code, said = cli("prune", "1", LABEL_STUDIO_URL=wrong)
    assert code == 1
    assert "speaks no TLS" in said and f"LABEL_STUDIO_URL to {studio.url}." in said
