"""Which files of Label Studio are read from the disk, and that it decides whose they are."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from backend import telemetry
from backend.errors import ImageError, ImageReason
from backend.images import local_files
from backend.images.direct import Outcome, Place
from backend.images.local_files import LocalFiles
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.settings import Settings
from tests.support.waiting import PATIENCE

STUDIO = "http://studio.example:8080/label"


class Studio:
    """Serves the files below its root, of folders that it may; remembers what was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = {"set", "1"}
        self.asked: list[str] = []
        self.known: list[Validators] = []
        self.before: Callable[[], object] = lambda: None

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        self.asked.append(value)
        self.known.append(known)
        self.before()
        url = urlsplit(value)
        name = dict(parse_qsl(url.query)).get("d") or unquote(url.path.partition("upload/")[2])
        path = self.root / name
        if str(path.parent.name) not in self.folders or not path.is_file():
            raise ImageError(ImageReason.NOT_FOUND, "404", "Add a storage.")
        return FetchedFile(path.read_bytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("set", "set/deep", "1", "private", ".hidden"):
        (tmp_path / "root" / folder).mkdir(parents=True)
        for number in range(20):
            content = f"{folder} {number}".encode()
            (tmp_path / "root" / folder / f"{number}.jpg").write_bytes(content)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.fixture
def studio(root: Path) -> Studio:
    return Studio(root)


@pytest.fixture
def make(root: Path, studio: Studio) -> Callable[..., LocalFiles]:
    def make(**values: Any) -> LocalFiles:
        given = {"local_files_root": str(root), "uploads_root": str(root), **values}
        return LocalFiles(Settings(_env_file=None, label_studio_url=STUDIO, **given), studio)

    return make


Make = Callable[..., LocalFiles]


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Place, Outcome]]:
    """Attempts of this test."""
    seen: Counter[tuple[Place, Outcome]] = Counter()
    plain = telemetry.DIRECT_READS.labels

    def labels(place: Place, outcome: Outcome) -> Any:
        seen[place, outcome] += 1
        return plain(place, outcome)

    monkeypatch.setattr(telemetry.DIRECT_READS, "labels", labels)
    return seen


def local(name: str) -> str:
    return f"/data/local-files/?d={name}"


def data(files: LocalFiles, value: str, known: Validators = UNKNOWN) -> bytes:
    found = files.fetch_file(value, known)
    assert found is not None
    return found.data


@pytest.mark.parametrize(
    ("place", "start"),
    [
        (Place.LOCAL_FILES, "/data/local-files/?d=set/"),
        (Place.LOCAL_FILES, "/label/data/local-files/?d=set/"),
        (Place.LOCAL_FILES, STUDIO + "/data/local-files/?d=set/"),
        (Place.LOCAL_FILES, "/data/local-files/?copy=1&d=set%2F"),
        (Place.UPLOADS, "/data/upload/1/"),
        (Place.UPLOADS, STUDIO + "/data/upload/1/"),
    ],
)
def test_one_file_of_a_folder_is_fetched_and_the_others_are_read(
    make: Make,
    studio: Studio,
    counts: Counter[tuple[Place, Outcome]],
    place: Place,
    start: str,
):
    files = make()
    folder = "set" if place is Place.LOCAL_FILES else "1"
    values = [f"{start}{number}.jpg" for number in range(20)]
    assert [data(files, value) for value in values] == [f"{folder} {n}".encode() for n in range(20)]
    assert studio.asked == values[:1]
    assert counts == {(place, Outcome.ASKED): 1, (place, Outcome.READ): 19}


def test_without_a_root_everything_is_fetched(make: Make, studio: Studio):
    files = make(local_files_root="", uploads_root="")
    values = [local("set/1.jpg"), local("set/2.jpg"), "/data/upload/1/3.jpg"]
    assert [files.fetch_file(value, UNKNOWN) is None for value in values] == [False] * 3
    assert studio.asked == values
    assert files.place_of(values[0]) is None


def test_each_folder_is_asked_for(make: Make, studio: Studio):
    studio.folders.add("deep")
    files = make()
    for name in ("set/1", "set/2", "set/deep/1", "set/deep/2", "set/3"):
        data(files, local(f"{name}.jpg"))
    assert studio.asked == [local("set/1.jpg"), local("set/deep/1.jpg")]


def test_what_label_studio_does_not_serve_is_never_read(
    make: Make, studio: Studio, counts: Counter[tuple[Place, Outcome]]
):
    files = make()
    for number in range(5):
        with pytest.raises(ImageError) as caught:
            files.fetch_file(local(f"private/{number}.jpg"), UNKNOWN)
        assert caught.value.reason == "not_found"
    assert len(studio.asked) == 5
    assert counts == {(Place.LOCAL_FILES, Outcome.ASKED): 5}
    # Nor what it does not serve any more, once that is asked for again.
    studio.folders.clear()
    files = make()
    with pytest.raises(ImageError):
        files.fetch_file(local("set/1.jpg"), UNKNOWN)


def test_a_missing_file_hides_no_others(make: Make, studio: Studio):
    files = make()
    with pytest.raises(ImageError):
        files.fetch_file(local("set/gone.jpg"), UNKNOWN)
    data(files, local("set/1.jpg"))
    data(files, local("set/2.jpg"))
    assert studio.asked == [local("set/gone.jpg"), local("set/1.jpg")]


def test_label_studio_is_asked_again_after_some_minutes(
    make: Make, studio: Studio, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local_files, "SERVED_SECONDS", 0.0)
    files = make()
    for number in range(3):
        data(files, local(f"set/{number}.jpg"))
    studio.folders.clear()
    with pytest.raises(ImageError):
        files.fetch_file(local("set/4.jpg"), UNKNOWN)
    assert len(studio.asked) == 4


def test_a_root_with_other_files_is_not_used(
    make: Make,
    studio: Studio,
    tmp_path: Path,
    counts: Counter[tuple[Place, Outcome]],
    caplog: pytest.LogCaptureFixture,
):
    other = tmp_path / "other"
    (other / "set").mkdir(parents=True)
    for number in range(20):
        (other / "set" / f"{number}.jpg").write_bytes(b"another")
    files = make(local_files_root=str(other))
    found = [data(files, local(f"set/{number}.jpg")) for number in range(5)]
    assert found == [f"set {number}".encode() for number in range(5)]
    assert counts == {(Place.LOCAL_FILES, Outcome.DIFFERS): 5}
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert f"LS_CLIP_LOCAL_FILES_ROOT={other}" in line and "ls-clip doctor" in line


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda path: path.unlink(), Outcome.MISSING),
        (lambda path: path.write_bytes(b"x" * 2000), Outcome.REFUSED),
        (lambda path: path.unlink() or path.symlink_to("1.jpg"), Outcome.REFUSED),
    ],
)
def test_what_cannot_be_read_goes_through_label_studio(
    make: Make,
    studio: Studio,
    root: Path,
    tmp_path: Path,
    counts: Counter[tuple[Place, Outcome]],
    spoil: Callable[[Path], object],
    outcome: Outcome,
):
    (tmp_path / "theirs" / "set").mkdir(parents=True)
    (tmp_path / "theirs" / "set" / "2.jpg").write_bytes(b"from label studio")
    files = make(max_image_bytes=1024)
    data(files, local("set/1.jpg"))
    spoil(root / "set" / "2.jpg")
    studio.root = tmp_path / "theirs"
    known = Validators('"1"')
    assert data(files, local("set/2.jpg"), known) == b"from label studio"
    assert studio.known == [UNKNOWN, known]
    assert counts[Place.LOCAL_FILES, outcome] == 1


def test_threads_that_begin_together_ask_once(make: Make, studio: Studio):
    threads, waiting = 8, threading.Event()
    studio.before = lambda: waiting.wait(0.3)
    files = make()
    values = [local(f"set/{number}.jpg") for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        found = [*pool.map(lambda value: data(files, value), values)]
    assert found == [f"set {number}".encode() for number in range(threads)]
    assert len(studio.asked) == 1


def test_threads_do_not_wait_for_each_other_where_nothing_is_served(make: Make, studio: Studio):
    files = make()
    with pytest.raises(ImageError):
        files.fetch_file(local("private/0.jpg"), UNKNOWN)
    both = threading.Barrier(2)
    studio.before = lambda: both.wait(PATIENCE)

    def refused(value: str) -> bool:
        try:
            files.fetch_file(value, UNKNOWN)
        except ImageError:
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(refused, [local("private/1.jpg"), local("private/2.jpg")]))


def test_folders_are_not_remembered_without_end(make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_files, "MOST_FOLDERS", 4)
    files = make()
    for number in range(20):
        with pytest.raises(ImageError):
            files.fetch_file(local(f"folder-{number}/x.jpg"), UNKNOWN)
        assert len(files._folders) <= 4


# What an address may mean

ODD = [
    "set/../../secret.jpg",
    "../secret.jpg",
    "/etc/passwd",
    "set/..%2f..%2fsecret.jpg",
    "set/%2e%2e/%2e%2e/secret.jpg",
    "set/%252e%252e/%252e%252e/secret.jpg",
    "..\\secret.jpg",
    "set\\1.jpg",
    "set%5C1.jpg",
    "set/1.jpg%00.png",
    "set//1.jpg",
    "./set/1.jpg",
    "set/./1.jpg",
    "set/1.jpg/",
    ".hidden/1.jpg",
    "set/.1.jpg",
    "1.jpg",
    "",
    "set/1.jpg&d=private/1.jpg",
    "private/1.jpg&d=set/1.jpg",
    "C:/set/1.jpg",
    "link/secret.jpg",
]


@pytest.mark.parametrize("name", ODD)
def test_an_address_that_is_not_plain_is_left_to_label_studio(make: Make, name: str):
    assert make().place_of(local(name)) in {None, *([Place.LOCAL_FILES] if "link" in name else [])}


@pytest.mark.parametrize(
    "value",
    [
        "http://elsewhere.example/data/local-files/?d=set/1.jpg",
        "http://studio.example/label/data/local-files/?d=set/1.jpg",
        "https://studio.example:8080/label/data/local-files/?d=set/1.jpg",
        "http://user:word@studio.example:8080/label/data/local-files/?d=set/1.jpg",
        "//studio.example:8080/label/data/local-files/?d=set/1.jpg",
        "/data/local-files/x?d=set/1.jpg",
        "/other/data/local-files/?d=set/1.jpg",
        "/data/upload/1/deep/1.jpg",
        "/data/upload/1.jpg",
        "/data/upload/%2e%2e/secret.jpg",
        "/data/upload/1/..%2f..%2fsecret.jpg",
        "/data/upload/1/%2e%2e",
        "/tasks/1/resolve/?fileuri=czM6Ly94L3k=",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "set/1.jpg",
        "",
        "x" * 9000,
    ],
)
def test_other_addresses_are_passed_on(make: Make, value: str):
    assert make().place_of(value) is None


PIECES = st.sampled_from(
    [
        *"/.\\&=%#?+; é\x7f\ufffd",
        *("..", "%2e", "%2F", "%5c", "%00", "%25", "%ff", "d=", "&d=", "C:"),
        *("set", "deep", "private", "link", "alias", "secret.jpg", "1.jpg", ".hidden"),
    ]
)


@example(["link", "/", "secret.jpg"])
@example(["set", "/", "alias"])
@given(st.lists(PIECES, max_size=8))
@hypothesis_settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_address_leads_to_what_label_studio_would_not_serve(
    make: Make, root: Path, studio: Studio, pieces: list[str]
):
    for link, target in (
        (root / "link", root.parent),
        (root / "set" / "alias", "../private/1.jpg"),
    ):
        if not link.is_symlink():
            link.symlink_to(target)
    # Everything that may be served is known to be.
    studio.folders = {"set", "deep", "1"}
    files = make()
    for name in ("set/1.jpg", "set/deep/1.jpg"):
        data(files, local(name))
    data(files, "/data/upload/1/1.jpg")
    text = "".join(pieces)
    for value in (local(text), local(quote(text)), f"/data/upload/{text}", f"/data/{text}"):
        studio.asked.clear()
        try:
            found = files.fetch_file(value, UNKNOWN)
        except ImageError:
            continue
        assert found is not None
        if not studio.asked:
            assert found.data.rpartition(b" ")[0] in {b"set", b"set/deep", b"1"}
