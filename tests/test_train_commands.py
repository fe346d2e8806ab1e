"""What the commands around heads, archives and exports answer when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from backend.heads import ZERO_SHOT, Heads
from backend.store import Store
from jobs import orders, queues
from jobs.runs import Runs
from tests.conftest import free_port, run_cli
from tests.stub_studio import KEY, StubStudio, stub_studio
from tests.test_heads import head_set

Cli = Callable[..., Any]
COMMANDS = (
    ("train", "1"),
    ("heads", "1"),
    ("rollback", "1"),
    ("export", "1"),
    ("import-archive", "1", "archive.csv"),
)


@pytest.fixture
def studio() -> Iterator[StubStudio]:
    with stub_studio() as stub:
        yield stub


@pytest.fixture
def cli(tmp_path: Path, studio: StubStudio, valkey: Any, connection: Redis) -> Cli:
    given = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
        "LS_CLIP_ENCODER": "offline",
        "LS_CLIP_REDIS_URL": valkey.url,
    }

    def run(*arguments: str, **changes: str) -> tuple[int, str]:
        done = run_cli(*arguments, cwd=tmp_path, **{**given, **changes})
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    return Heads(Store(str(tmp_path / "store")))


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
    assert list(queues.queue(connection, queues.TRAIN).get_job_ids()) == ["1-train"]


def test_a_project_without_heads_says_that_it_is_zero_shot(cli: Cli):
    code, said = cli("heads", "1")
    assert code == 0
    assert "zero-shot" in said


def test_there_is_nothing_to_go_back_to_before_the_first_head(cli: Cli):
    code, said = cli("rollback", "1")
    assert code == 1
    assert "No other head has served" in said


def test_a_rollback_to_what_is_not_there_or_serves_already_is_told(cli: Cli, heads: Heads):
    code, said = cli("rollback", "1", "h7")
    assert code == 1
    assert "no head 'h7'" in said and "ls-clip heads" in said
    code, said = cli("rollback", "1", ZERO_SHOT)
    assert code == 0
    assert "serves already" in said


def test_a_rollback_during_a_run_is_refused_and_changes_nothing(
    cli: Cli, heads: Heads, connection: Redis
):
    heads.keep(KEY, head_set("h1"))
    heads.serve(KEY, "h1")
    run, _ = orders.start(Runs(connection), 1, "missing", "cli")
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
