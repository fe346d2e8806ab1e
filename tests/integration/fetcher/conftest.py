"""Servers to fetch from, and fetchers with short limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.images.fetcher import ImageFetcher
from backend.settings import Settings
from tests.support.http_server import TOKEN, Server
from tests.support.waiting import PATIENCE


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*args: Any) -> Server:
        servers.append(Server(*args))
        return servers[-1]

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def studio(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def other(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def fetcher_of() -> Iterator[Callable[..., ImageFetcher]]:
    fetchers: list[ImageFetcher] = []

    def make(url: str, **changes: Any) -> ImageFetcher:
        options = {
            "fetch_timeout": PATIENCE,
            "connect_timeout": PATIENCE,
            "max_image_bytes": 100_000,
        }
        settings = Settings(label_studio_url=url, **(options | changes))
        fetchers.append(ImageFetcher(settings, lambda: dict(TOKEN)))
        return fetchers[-1]

    yield make
    for fetcher in fetchers:
        fetcher.close()
