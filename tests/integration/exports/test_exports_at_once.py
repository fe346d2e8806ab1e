"""Two exports to one place at the same time: the second is refused, the first is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.errors import SettingsError
from backend.projects.export.export import Format
from backend.projects.export.files import Target, drafts, reserved
from backend.projects.export.splits import Shares
from backend.settings import Settings
from tests.support.exporting import run_export
from tests.support.stub_label_studio import StubStudio
from tests.support.waiting import PATIENCE


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def going_on(studio: StubStudio, *arguments: Any, **fields: Any) -> Iterator[None]:
    """An export in a thread of its own, which goes on while the block runs, and then ends well."""
    begun, ended = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def hold(method: str, path: str) -> None:
        if threading.current_thread() is not main and path == "/api/tasks/" and not ended.is_set():
            begun.set()
            ended.wait(PATIENCE)

    def run() -> None:
        try:
            run_export(*arguments, **fields)
        except Exception as error:
            failed.append(error)
            begun.set()

    main = threading.current_thread()
    studio.before = hold
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)
        studio.before = lambda method, path: None
    assert failed == []


@pytest.mark.parametrize(
    ("kind", "fields", "second", "named"),
    [
        (Format.CSV, {}, "out.csv", "out.csv"),
        (Format.CSV, {"images": True}, "out.csv", "out-images"),
        (Format.IMAGEFOLDER, {}, "out.csv", "out.csv"),
        (Format.CSV, {"shares": Shares(0.8, 0.1, 0.1)}, "other.csv", "splits.csv"),
    ],
)
def test_a_second_export_to_the_same_place_is_refused_before_any_work(
    settings: Settings,
    studio: StubStudio,
    tmp_path: Path,
    kind: Format,
    fields: dict[str, Any],
    second: str,
    named: str,
):
    alone, folder = tmp_path / "alone", tmp_path / "exports"
    alone.mkdir()
    folder.mkdir()
    run_export(settings, kind, alone / "out.csv", **fields)
    with going_on(studio, settings, kind, folder / "out.csv", **fields):
        calls = len(studio.calls)
        with pytest.raises(SettingsError, match=f"Another export writes .*{named}[.]"):
            run_export(settings, kind, folder / second, **fields)
        assert len(studio.calls) == calls
    assert contents(folder) == contents(alone)


def test_exports_to_other_places_run_side_by_side(
    settings: Settings, studio: StubStudio, tmp_path: Path
):
    with going_on(studio, settings, Format.CSV, tmp_path / "a.csv"):
        begun = tmp_path / "b.csv"
        with reserved([Target(begun)]), drafts([Target(begun)]):
            Target(begun).draft.write_text("b")
    assert begun.read_text() == "b" and (tmp_path / "a.csv").stat().st_size > 0


def test_what_ended_processes_left_behind_is_erased_and_keeps_nobody_out(tmp_path: Path):
    targets = [Target(tmp_path / "a[1].csv"), Target(tmp_path / "images", is_folder=True)]
    for name in (".a[1].csv.lock", ".a[1].csv.part", ".a[1].csv.0123abcd.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".images.0123abcd.part").mkdir()
    (tmp_path / ".images.0123abcd.part" / "1.jpg").write_text("x")
    # Of the exports a[1].csv.b and a1.csv, which may be going on.
    others = [".a1.csv.0123abcd.part", ".a[1].csv.b.0123abcd.part"]
    for name in others:
        (tmp_path / name).write_text("x")
    with reserved(targets), drafts(targets):
        targets[0].draft.write_text("a")
        assert {path.name for path in tmp_path.glob(".*.part")} == {
            *others,
            *(target.draft.name for target in targets),
        }
    assert {path.name for path in tmp_path.iterdir()} == {*others, "a[1].csv", "images"}
