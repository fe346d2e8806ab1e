"""``ls-clip store``, ``heads`` and ``doctor`` on stores that are damaged, shared or open to all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from rq.serializers import JSONSerializer

from backend.doctor import store as store_checks
from backend.doctor.context import Context
from backend.doctor.finding import examine
from backend.labelstudio.projects import project_key
from backend.settings import Settings
from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from jobs import queue
from jobs.worker import ClipWorker
from tests.support.builders import make_settings
from tests.support.commands import Done, run_command
from tests.support.heads import head_set
from tests.support.live import environment_of
from tests.support.processes import free_port
from tests.support.stub_label_studio import StubStudio


@pytest.fixture
def settings(studio: StubStudio, tmp_path: Path) -> Settings:
    given = {"label_studio_url": studio.url, "label_studio_api_key": "f" * 40}
    return make_settings(tmp_path / "store", **given)


@pytest.fixture
def key(settings: Settings) -> str:
    return project_key(Context(settings, 1).project)


@pytest.fixture
def heads(settings: Settings, key: str) -> HeadRegistry:
    registry = HeadRegistry(open_store(settings))
    for name in ("h1", "h2"):
        registry.save(key, head_set(name))
        registry.set_serving(key, name)
    return registry


def command(settings: Settings, tmp_path: Path, *arguments: str) -> Done:
    return run_command(*arguments, cwd=tmp_path, **environment_of(settings))


def file_of(settings: Settings, name: str) -> Path:
    return Path(open_store(settings).uri) / name


def test_a_check_reports_and_repairs(
    settings: Settings, heads: HeadRegistry, key: str, tmp_path: Path
):
    assert command(settings, tmp_path, "store", "check").returncode == 0
    file_of(settings, f"projects/{key}/serving.json").write_text("[]")
    done = command(settings, tmp_path, "store", "check")
    assert done.returncode == 1
    assert "serving.json" in done.stderr
    assert "ls-clip store check --repair" in done.stderr
    done = command(settings, tmp_path, "store", "check", "--repair", "--json")
    (problem,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert problem["repaired"]
    assert json.loads(command(settings, tmp_path, "store", "check", "--json").stdout) == []


def test_heads_lists_the_intact_ones_and_names_the_damaged(
    settings: Settings, heads: HeadRegistry, key: str, tmp_path: Path
):
    file_of(settings, f"heads/{key}/h2.json").write_text("{")
    done = command(settings, tmp_path, "heads", "1")
    assert done.returncode == 0
    assert "h2 is damaged" in done.stderr
    assert "h1 is in use instead" in done.stderr
    answer = json.loads(command(settings, tmp_path, "heads", "1", "--json").stdout)
    assert [listed["name"] for listed in answer["heads"]] == ["h1"]
    assert answer["serving"] == "h1"
    assert answer["history"][-1] == "h2"
    assert "h2.json" in answer["damaged"]["h2"]


def test_heads_works_where_the_pointer_is_lost(
    settings: Settings, heads: HeadRegistry, key: str, tmp_path: Path
):
    for name in ("serving", "serving-copy"):
        file_of(settings, f"projects/{key}/{name}.json").write_text("")
    done = command(settings, tmp_path, "heads", "1")
    assert done.returncode == 0
    assert "ls-clip rollback 1 HEAD" in done.stderr
    assert "h1" in done.stdout


def test_installations_are_listed_and_adopted(
    settings: Settings, heads: HeadRegistry, key: str, tmp_path: Path
):
    moved = settings.model_copy(update={"installation": "moved"})
    listed = command(moved, tmp_path, "store", "installations").stdout
    assert f"{settings.installation_id}  tests\n" in listed
    assert f"{moved.installation_id}  moved (this one)" in listed
    done = command(moved, tmp_path, "store", "adopt", "tests")
    assert (done.returncode, "now that of moved" in done.stderr) == (0, True)
    assert HeadRegistry(open_store(moved)).serving(key) == "h2"
    again = command(moved, tmp_path, "store", "adopt", "tests")
    assert again.returncode == 1
    assert "no other installation" in again.stderr


def test_nothing_is_adopted_while_workers_run(
    settings: Settings, heads: HeadRegistry, key: str, queue_settings: Settings, tmp_path: Path
):
    redis = {"redis_url": queue_settings.redis_url}
    former = settings.model_copy(update=redis)
    moved = settings.model_copy(update={"installation": "moved", **redis})
    connection = queue.connect(former)
    worker = ClipWorker(
        [queue.queue(connection, queue.TRAIN)], connection=connection, serializer=JSONSerializer
    )
    worker.register_birth()
    refused = command(moved, tmp_path, "store", "adopt", "tests")
    assert refused.returncode == 1
    assert "Workers of tests are running" in refused.stderr and "Stop them" in refused.stderr
    assert HeadRegistry(open_store(former)).serving(key) == "h2"
    worker.register_death()
    assert command(moved, tmp_path, "store", "adopt", "tests").returncode == 0
    assert HeadRegistry(open_store(moved)).serving(key) == "h2"


def test_a_redis_that_was_stopped_keeps_nobody_from_adopting(
    settings: Settings, heads: HeadRegistry, key: str, tmp_path: Path
):
    url = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    moved = settings.model_copy(update={"installation": "moved", "redis_url": url})
    done = command(moved, tmp_path, "store", "adopt", "tests")
    assert done.returncode == 0 and "Workers are not looked for" in done.stderr
    assert HeadRegistry(open_store(moved)).serving(key) == "h2"


# The doctor


def found(settings: Settings) -> dict[str, tuple[str, str]]:
    """Check -> what and fix, of the checks of the store that are not well."""
    context = Context(settings, 1)
    # Whether the project is there is another module's check.
    checks = [
        replace(check, needs=tuple(name for name in check.needs if name != "project"))
        for check in (*store_checks.CHECKS, *store_checks.PROJECT_CHECKS)
    ]
    findings = examine(context, checks)
    return {one.check: (one.what, one.fix) for one in findings if one.severity != "ok"}


def test_an_intact_store_is_well(settings: Settings, heads: HeadRegistry):
    assert found(settings) == {}


def test_a_store_that_everybody_can_read_is_told(settings: Settings, heads: HeadRegistry):
    Path(settings.store).chmod(0o755)
    ((what, fix),) = found(settings).values()
    assert "Every user" in what
    assert fix == f"chmod o-rwx {settings.store_uri}"


def test_damaged_heads_and_pointers_are_told(settings: Settings, heads: HeadRegistry, key: str):
    file_of(settings, f"heads/{key}/h2.json").write_text("")
    what, fix = found(settings)["heads"]
    assert "h2.json" in what
    assert "ls-clip rollback 1 h1" in fix
    for name in ("serving", "serving-copy"):
        file_of(settings, f"projects/{key}/{name}.json").write_text("7")
    assert "ls-clip rollback 1 HEAD" in found(settings)["heads"][1]


def test_work_of_another_installation_on_the_project_is_told(
    settings: Settings, heads: HeadRegistry
):
    moved = settings.model_copy(update={"installation": "moved"})
    what, fix = found(moved)["installation"]
    assert "tests" in what
    assert "ls-clip store adopt tests" in fix
