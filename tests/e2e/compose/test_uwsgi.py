"""Label Studio on uWSGI, its image's other server, and on the same database.

There a request to a backend keeps one of a few threads waiting, while the backend fetches images
from the same Label Studio.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from backend.demo.photos import make_photos
from backend.projects.registration import register_backend
from tests.e2e.compose.conftest import Connected
from tests.support.composed import CONFIG, Services
from tests.support.composed_studio import THREADS, ComposedStudio
from tests.support.live import shown_predictions
from tests.support.waiting import PATIENCE

OPENED = 8
"""Twice as many as uWSGI has processes."""


@pytest.fixture(scope="module")
def on_uwsgi(services: Services, connected: Connected) -> Iterator[Services]:
    """Label Studio is started again on the other server, at the same address."""
    services.label_studio.stop()
    with ComposedStudio(services.site, {"UWSGI_NUMBER_OF_THREADS": THREADS}, uwsgi=True) as other:
        other.wait()
        yield services


def test_connect_finds_a_connected_project_in_order(on_uwsgi: Services, connected: Connected):
    done = on_uwsgi.exec_in_backend("connect", str(connected.number))
    assert done.returncode == 0, done.stderr
    assert set(shown_predictions(on_uwsgi.studio, connected.number)) <= set(connected.truth)


def test_more_people_than_it_has_processes_open_tasks_that_nobody_has_predicted(on_uwsgi: Services):
    studio, folder = on_uwsgi.studio, on_uwsgi.site.folder / "unpredicted"
    number = int(studio.projects.create("unpredicted", CONFIG)["id"])
    photos = make_photos(folder, OPENED, seed=99)
    addresses = studio.tasks.upload(number, [folder / photo.file for photo in photos])
    tasks = studio.tasks.create(number, [{"data": {"image": one}} for one in addresses])
    studio.projects.update(number, show_collab_predictions=True)
    register_backend(on_uwsgi.settings, studio, number)
    headers = {**studio.headers(), "Connection": "close"}

    def open_task(task: int) -> int:
        address = f"{on_uwsgi.label_studio.url}/api/tasks/{task}/"
        answer = requests.get(address, headers=headers, timeout=PATIENCE)
        return len(answer.json()["predictions"])

    with ThreadPoolExecutor(OPENED) as pool:
        assert list(pool.map(open_task, tasks)) == [1] * OPENED
