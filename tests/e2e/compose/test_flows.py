"""Everything that docker-compose.yml starts, from connecting a project to exporting its labels.

A worker is killed in the project's first run, and a backend while people annotate.
"""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError

from backend.labelstudio.projects import project_key
from backend.runtime import Runtime
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from jobs.training_state import Training
from tests.e2e.compose.conftest import TASKS, Connected
from tests.support.annotators import Submits
from tests.support.compose import SERVICES, filled
from tests.support.composed import Services
from tests.support.live import shown_predictions
from tests.support.postgres import ComposedDatabase


def test_database_label_studio_and_queue_are_healthy_and_keep_things_where_the_file_says(
    services: Services, database: ComposedDatabase, connected: Connected
):
    assert database.healthy()
    _, _, *check = (filled(word, {}) for word in SERVICES["label-studio"]["healthcheck"]["test"])
    port = str(services.site.ports["label-studio"])
    here = [word.replace("8080", port) for word in check]
    subprocess.run([sys.executable, *here], check=True, timeout=60)
    count = f"select count(*) from task where project_id = {connected.number}"
    assert database.query(count) == str(TASKS)
    assert not list((services.site.folder / "label-studio").glob("*.sqlite3"))
    with Redis(port=services.site.ports["redis"]) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    assert list((services.site.folder / "redis" / "appendonlydir").iterdir())


def test_connect_predicts_every_task_once_although_a_worker_was_killed(
    services: Services, connected: Connected
):
    assert connected.done.returncode == 0, connected.done.stderr
    assert not services.workers[0].running
    assert set(shown_predictions(services.studio, connected.number)) == set(connected.truth)
    (run,) = services.runs.of_project(connected.number)
    assert (run.imported, run.failed) == (TASKS, 0)


def test_fifty_people_submit_at_once_and_nothing_is_lost_although_a_backend_was_killed(
    services: Services, database: ComposedDatabase, connected: Connected, submitted: Submits
):
    assert not submitted.failures
    assert len(submitted.tasks) > 50
    count = f"select count(*) from task_completion where project_id = {connected.number}"
    assert database.query(count) == str(len(submitted.tasks))
    assert not services.backends[0].running
    port = services.backends[1].given["LS_CLIP_PORT"]
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert 'ls_clip_webhooks_total{action="ANNOTATION_CREATED"}' in metrics


def test_all_that_was_approved_trains_heads_and_the_rest_is_refreshed(
    services: Services, connected: Connected, submitted: Submits, trained: Training
):
    # What the killed backend heard last is read from Label Studio.
    services.exec_in_backend("train", str(connected.number), "--wait")
    heads = HeadRegistry(Runtime(services.settings).store)
    key = project_key(services.studio.projects.get(connected.number))
    serving = heads.serving(key)
    assert serving != ZERO_SHOT
    newest = heads.get(key, heads.names(key)[-1])
    assert newest.approvals == len(submitted.tasks)
    shown = shown_predictions(services.studio, connected.number)
    assert set(connected.truth) - set(submitted.tasks) <= set(shown)


def test_a_rollback_shows_the_first_version_again(
    services: Services, connected: Connected, submitted: Submits, trained: Training
):
    first = services.runs.of_project(connected.number)[-1]
    done = services.exec_in_backend("rollback", str(connected.number), ZERO_SHOT, "--wait")
    assert done.returncode == 0, done.stderr
    shown = shown_predictions(services.studio, connected.number)
    assert set(connected.truth) - set(submitted.tasks) <= set(shown)
    assert {one["model_version"] for one in shown.values()} == {first.model_version}


def test_the_export_has_what_people_submitted(
    services: Services, connected: Connected, submitted: Submits
):
    done = services.exec_in_backend("export", str(connected.number), "--output", "labels.csv")
    assert done.returncode == 0, done.stderr
    exported: dict[int, set[str]] = {}
    with (services.site.folder / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["state"] == "approved" and row["present"] == "True":
                exported.setdefault(int(row["task"]), set()).add(row["label"])
    assert exported == {task: set(connected.truth[task]) for task in submitted.tasks}
