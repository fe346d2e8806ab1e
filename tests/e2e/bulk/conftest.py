"""Two workers, a Valkey, and projects of many photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.demo.servers import LocalValkey, LocalWorker
from backend.labelstudio.client import LabelStudioClient
from backend.processes import free_port
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.prediction_log import PredictionLog
from jobs import queue
from jobs.run_store import RunStore
from tests.support.builders import photo
from tests.support.bulk import LOCAL, MANY
from tests.support.live import Servers
from tests.support.waiting import until


@pytest.fixture(scope="package")
def many(servers: Servers) -> list[str]:
    """Two hundred photos that differ, as Label Studio serves them."""
    folder = servers.files / "many"
    folder.mkdir(exist_ok=True)
    for number in range(MANY):
        photo(1000 + number, 320, 240).save(folder / f"{number:03}.jpg")
    return [f"{LOCAL}{number:03}.jpg" for number in range(MANY)]


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """A Valkey of these tests' own, since it is restarted."""
    with LocalValkey(tmp_path_factory.mktemp("queue"), free_port(26379)) as server:
        server.wait()
        yield server


@pytest.fixture(scope="package")
def bulk(
    settings: Settings, redis_server: LocalValkey, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """The servers's settings with a queue, small shards and a store of their own."""
    values: dict[str, Any] = {
        **dict(settings),
        "redis_url": redis_server.url,
        "store": str(tmp_path_factory.mktemp("store")),
        "shard_size": 32,
        "batch_size": 8,
    }
    return Settings(_env_file=None, **values)


@pytest.fixture(scope="package")
def workers(
    servers: Servers, bulk: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[LocalWorker]]:
    """Two workers, each with its supervisor."""
    folder = tmp_path_factory.mktemp("workers")
    with (
        LocalWorker(bulk, folder / "1.log") as one,
        LocalWorker(bulk, folder / "2.log") as two,
    ):
        connection = queue.connect(bulk)
        until(lambda: queue.workers(connection, queue.PREDICT) == 2)
        yield [one, two]


@pytest.fixture
def runs(bulk: Settings, workers: list[LocalWorker]) -> RunStore:
    return RunStore(queue.connect(bulk, retries=8))


@pytest.fixture(scope="package")
def made() -> list[int]:
    """The projects whose images the store may have."""
    return []


@pytest.fixture
def project(
    servers: Servers,
    studio: LabelStudioClient,
    many: list[str],
    label_config: str,
    bulk: Settings,
    made: list[int],
) -> Callable[..., int]:
    """Make a project of images, none of which is in the store."""

    def make(images: list[str] | None = None) -> int:
        # Not by deleting the folder: workers would wait for it to come back.
        for former in made:
            PredictionLog(open_store(bulk)).purge(f"{former}.")
        made.clear()
        number = int(studio.projects.create("bulk", label_config)["id"])
        made.append(number)
        studio.projects.add_local_files(number, str(servers.files / "many"))
        studio.tasks.create(
            number, [{"data": {"image": one}} for one in (many if images is None else images)]
        )
        return number

    return make
