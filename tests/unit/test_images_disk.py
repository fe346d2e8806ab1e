"""What is read below a folder, and what is refused whatever the path is made of."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from backend.images import disk
from backend.images.direct import DirectReadError, Outcome
from backend.images.guard import remaining, time_limit
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from tests.support.waiting import PATIENCE

LIMIT = 100_000
BODY = b"the bytes of an image"
OLD = 1_600_000_000_123_456_789


@pytest.fixture(autouse=True)
def _time() -> Iterator[None]:
    with time_limit(PATIENCE):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one file, beside another that nothing below the first may lead to."""
    (tmp_path / "root" / "set").mkdir(parents=True)
    (tmp_path / "root" / "set" / "x.jpg").write_bytes(BODY)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").write_bytes(b"secret")
    return tmp_path / "root"


def read(root: Path, *parts: str, known: Validators = UNKNOWN) -> FetchedFile | None:
    return disk.read_below(root, parts, known, LIMIT)


def refusal(root: Path, *parts: str) -> Outcome:
    with pytest.raises(DirectReadError) as caught:
        read(root, *parts)
    # Task data chooses the path, and the reason is logged.
    assert not any(part in caught.value.reason for part in parts)
    return caught.value.outcome


@pytest.fixture
def settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, with an old time, and a clock that needs no pause between two changes."""
    monkeypatch.setattr(disk, "SETTLED_SECONDS", 0.0)
    path = root / "set" / "x.jpg"
    os.utime(path, ns=(OLD, OLD))
    return path


def test_a_file_is_read(root: Path):
    found = read(root, "set", "x.jpg")
    assert found is not None and found.data == BODY


def test_the_root_itself_may_be_a_symbolic_link(root: Path):
    (root.parent / "link").symlink_to(root)
    assert read(root.parent / "link", "set", "x.jpg") is not None


def _file_link(root: Path) -> Sequence[str]:
    (root / "set" / "link.jpg").symlink_to(root.parent / "outside" / "secret.jpg")
    return "set", "link.jpg"


def _inner_link(root: Path) -> Sequence[str]:
    """Even one that stays below the root."""
    (root / "set" / "link.jpg").symlink_to("x.jpg")
    return "set", "link.jpg"


def _folder_link(root: Path) -> Sequence[str]:
    (root / "alias").symlink_to(root.parent / "outside")
    return "alias", "secret.jpg"


def _first_of_three(root: Path) -> Sequence[str]:
    (root.parent / "outside" / "deep").mkdir()
    (root.parent / "outside" / "deep" / "x.jpg").write_bytes(b"secret")
    (root / "alias").symlink_to(root.parent / "outside")
    return "alias", "deep", "x.jpg"


def _loop(root: Path) -> Sequence[str]:
    (root / "set" / "loop").symlink_to("loop")
    return "set", "loop"


def _pipe(root: Path) -> Sequence[str]:
    os.mkfifo(root / "set" / "pipe")
    return "set", "pipe"


def _device(root: Path) -> Sequence[str]:
    os.mknod(root / "set" / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    return "set", "zero"


def _folder(root: Path) -> Sequence[str]:
    (root / "set" / "folder").mkdir()
    return "set", "folder"


def _below_a_file(root: Path) -> Sequence[str]:
    return "set", "x.jpg", "y.jpg"


def _large(root: Path) -> Sequence[str]:
    (root / "set" / "large").write_bytes(b"x" * (LIMIT + 1))
    return "set", "large"


def _long_name(root: Path) -> Sequence[str]:
    return "set", "n" * 300


def _nul(root: Path) -> Sequence[str]:
    return "set", "n\0l"


def _half_a_character(root: Path) -> Sequence[str]:
    return "set", "\ud800"


@pytest.mark.parametrize(
    "make",
    [
        _file_link,
        _inner_link,
        _folder_link,
        _first_of_three,
        _loop,
        _pipe,
        _folder,
        _below_a_file,
        _large,
        _long_name,
        _nul,
        _half_a_character,
    ],
)
def test_what_is_no_plain_file_is_refused(root: Path, make: Callable[[Path], Sequence[str]]):
    assert refusal(root, *make(root)) is Outcome.REFUSED


def test_a_device_and_a_socket_are_refused(root: Path):
    server = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(root / "set")
    try:
        server.bind("socket")
    finally:
        os.chdir(before)
        server.close()
    # Opening a socket fails by itself.
    assert refusal(root, "set", "socket") is Outcome.FAILED
    if os.geteuid() == 0:
        try:
            parts = _device(root)
        except PermissionError:
            pytest.skip("no device may be made here")
        assert refusal(root, *parts) is Outcome.REFUSED


def test_a_file_without_permission_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch):
    (root / "set" / "x.jpg").chmod(0)
    if os.geteuid() == 0:
        # Nothing is refused to root.
        opened = os.open

        def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if path == "x.jpg":
                raise PermissionError(13, "Permission denied", path)
            return opened(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", refuse)
    assert refusal(root, "set", "x.jpg") is Outcome.REFUSED


def test_what_is_not_there_is_missing(root: Path):
    assert refusal(root, "set", "y.jpg") is Outcome.MISSING
    assert refusal(root, "other", "x.jpg") is Outcome.MISSING
    assert refusal(root / "gone", "set", "x.jpg") is Outcome.MISSING


def during(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Do something after the first block was read."""
    original, done = os.read, []

    def reading(file: int, size: int) -> bytes:
        block = original(file, size)
        if not done:
            done.append(True)
            change()
        return block

    monkeypatch.setattr(os, "read", reading)


@pytest.mark.parametrize("length", [0, len(BODY), 3 * len(BODY)])
def test_a_file_that_changes_while_it_is_read_is_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, length: int
):
    path = root / "set" / "x.jpg"
    os.utime(path, ns=(OLD, OLD))
    during(monkeypatch, lambda: path.write_bytes(b"y" * length))
    assert refusal(root, "set", "x.jpg") is Outcome.FAILED


def test_a_file_that_grows_beyond_the_limit_while_it_is_read_is_not_read_to_its_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    path = root / "set" / "x.jpg"
    during(monkeypatch, lambda: os.truncate(path, 1 << 40))
    assert refusal(root, "set", "x.jpg") is Outcome.REFUSED


def test_a_file_that_another_replaces_meanwhile_is_read_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    path = root / "set" / "x.jpg"
    (root / "new").symlink_to(root.parent / "outside" / "secret.jpg")
    during(monkeypatch, lambda: (root / "new").replace(path))
    # The file is not gone as long as it is open, but its number of links has changed.
    with pytest.raises(DirectReadError) as caught:
        read(root, "set", "x.jpg")
    assert caught.value.outcome is Outcome.FAILED
    monkeypatch.undo()
    assert refusal(root, "set", "x.jpg") is Outcome.REFUSED


def test_a_disk_that_takes_too_long_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch):
    during(monkeypatch, lambda: time.sleep(0.02))
    with time_limit(0.01):
        assert refusal(root, "set", "x.jpg") is Outcome.FAILED


# Whether a file is still the same


def test_an_unchanged_file_is_not_read_again(
    root: Path, settled: Path, monkeypatch: pytest.MonkeyPatch
):
    found = read(root, "set", "x.jpg")
    assert found is not None and found.validators.tell_something
    # As Label Studio makes it.
    assert found.validators.etag == f'W/"{OLD:x}-{len(BODY):x}"'
    monkeypatch.setattr(os, "read", None)
    assert read(root, "set", "x.jpg", known=found.validators) is None


@pytest.mark.parametrize("by", ["writing", "renaming"])
def test_another_file_with_the_same_length_and_time_is_noticed(root: Path, settled: Path, by: str):
    found = read(root, "set", "x.jpg")
    assert found is not None
    # The clock's ticks are longer than what lies between.
    time.sleep(0.02)
    other = settled if by == "writing" else settled.with_name("new")
    other.write_bytes(BODY[::-1])
    os.utime(other, ns=(OLD, OLD))
    other.replace(settled)
    again = read(root, "set", "x.jpg", known=found.validators)
    assert again is not None and again.data == BODY[::-1]


def test_a_file_that_was_changed_just_now_tells_nothing(root: Path):
    found = read(root, "set", "x.jpg")
    assert found is not None and found.validators == UNKNOWN
    assert read(root, "set", "x.jpg", known=found.validators) is not None


@pytest.mark.parametrize("date", ["", "Mon, 23 Nov 2026 06:56:13 GMT"])
def test_what_label_studio_told_of_a_file_is_no_proof_here(root: Path, settled: Path, date: str):
    told = Validators(f'W/"{OLD:x}-{len(BODY):x}"', date, len(BODY))
    assert read(root, "set", "x.jpg", known=told) is not None


def test_no_file_stays_open(root: Path):
    # The lowest that is free.
    before = os.dup(0)
    os.close(before)
    read(root, "set", "x.jpg")
    for parts in (
        _file_link(root),
        _folder_link(root),
        _pipe(root),
        _large(root),
        ("set", "gone.jpg"),
    ):
        refusal(root, *parts)
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_inside_another_limit_the_one_that_ends_first_holds():
    with time_limit(0.0), time_limit(PATIENCE), pytest.raises(TimeoutError):
        remaining()
    with time_limit(PATIENCE):
        with time_limit(0.0), pytest.raises(TimeoutError):
            remaining()
        assert 0 < remaining() <= PATIENCE
