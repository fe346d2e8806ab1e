"""Images on a disk that a process shares with Label Studio: the whole way, and the doctor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from backend.doctor import direct_reading
from backend.doctor.context import Context
from backend.doctor.finding import Finding, Severity
from tests.support.builders import choices_config, make_settings, photo, png_bytes
from tests.support.fixtures import MakeRuntime
from tests.support.hosted import serving
from tests.support.http_server import Server, answer

COUNT = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "set"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png_bytes(photo(number)))
    return folder.parent


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    """Serves the files below the root as Label Studio's local files."""

    def serve(handler: BaseHTTPRequestHandler) -> None:
        name = dict(parse_qsl(urlsplit(handler.path).query))["d"]
        path = root / name
        answer(path.read_bytes() if path.exists() else b"", 200 if path.exists() else 404)(handler)

    with serving() as server:
        server.routes["/data/local-files/"] = serve
        yield server


def local(number: int) -> str:
    return f"/data/local-files/?d=set/{number}.png"


VALUES = [local(number) for number in range(COUNT)]


def test_one_file_has_one_embedding_whichever_way_it_was_read(
    make_runtime: MakeRuntime, server: Server, root: Path, tmp_path: Path
):
    values = {"label_studio_url": server.url, "label_studio_api_key": "f" * 40}
    fetching = make_runtime(**values)
    fetched, failures = fetching.embedder.embed(VALUES)
    assert failures == {} and len(server.requests) == COUNT
    # A store of its own: all are read again.
    direct = make_runtime(**values, local_files_root=str(root), store=tmp_path / "other")
    read, failures = direct.embedder.embed(VALUES)
    assert failures == {} and len(server.requests) == COUNT + 1
    addresses = [direct.embedder.address(value) for value in VALUES]
    keys = fetching.store.vectors.keys_of(addresses)
    assert len(keys) == COUNT and direct.store.vectors.keys_of(addresses) == keys
    for value in VALUES:
        assert read[value].image.tobytes() == fetched[value].image.tobytes()
    # What was fetched is embedded already for those who read.
    shared = make_runtime(**values, local_files_root=str(root))
    before = len(server.requests)
    assert shared.embedder.fill(VALUES).cached == COUNT
    assert len(server.requests) == before


def test_what_is_no_image_reaches_nobody(make_runtime: MakeRuntime, server: Server, root: Path):
    (root / "set" / "passwords.png").write_text("root:x:0:0")
    runtime = make_runtime(
        label_studio_url=server.url, label_studio_api_key="f" * 40, local_files_root=str(root)
    )
    value = "/data/local-files/?d=set/passwords.png"
    _, failures = runtime.embedder.embed([local(0), value])
    assert failures[value].reason == "unsupported_format"
    assert "root:x" not in str(failures[value])


# The doctor


class Project(Context):
    """A project with these images."""

    def __init__(self, settings: Any, values: list[str]) -> None:
        super().__init__(settings, 1)
        self.project = {"label_config": choices_config()}
        self.sample = [{"id": n, "data": {"image": value}} for n, value in enumerate(values)]


def findings(server: Server, values: list[str] = VALUES, **settings: Any) -> list[Finding]:
    given = {"label_studio_url": server.url, "label_studio_api_key": "f" * 40, **settings}
    context = Project(make_settings(Path("store"), **given), values)
    found = [*direct_reading.roots(context), *direct_reading.images(context)]
    assert all(one.what and one.why and one.fix for one in found)
    return found


def test_nothing_is_said_where_nothing_is_set_and_where_all_is_well(server: Server, root: Path):
    assert findings(server) == [] and server.requests == []
    assert findings(server, local_files_root=str(root)) == []


@pytest.mark.parametrize("spoiled", ["gone", "empty", "a file"])
def test_a_root_that_cannot_be_read_is_named(server: Server, tmp_path: Path, spoiled: str):
    root = tmp_path / "other"
    if spoiled == "empty":
        root.mkdir()
    elif spoiled == "a file":
        root.write_text("")
    roots, images = findings(server, local_files_root=str(root))
    assert (roots.check, roots.severity) == ("direct-roots", Severity.WARNING)
    assert f"LS_CLIP_LOCAL_FILES_ROOT={root}" in roots.what
    assert images.check == "direct-images" and f"{COUNT} of {COUNT}" in images.what


def test_a_root_with_other_files_is_noticed(server: Server, root: Path, tmp_path: Path):
    other = tmp_path / "other" / "set"
    other.mkdir(parents=True)
    for number in range(COUNT):
        (other / f"{number}.png").write_bytes(png_bytes(photo(100 + number)))
    (found,) = findings(server, local_files_root=str(other.parent))
    assert (found.check, found.severity) == ("direct-images", Severity.WARNING)
    assert f"{COUNT} of {COUNT}" in found.what and "differs" in found.what


def test_only_what_label_studio_serves_is_missed(server: Server, root: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "set" / "1.png").unlink()
    (found,) = findings(server, [*VALUES, local(99)], local_files_root=str(copy))
    assert f"1 of {COUNT + 1}" in found.what and "missing; task 1)" in found.what


def test_a_setting_that_fits_no_address_is_noted(server: Server, root: Path):
    (found,) = findings(server, ["/data/upload/1/x.png"], local_files_root=str(root))
    assert (found.check, found.severity) == ("direct-images", Severity.NOTE)
