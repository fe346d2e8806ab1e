"""With LS_CLIP_OFFLINE=1 none of our processes tries to reach anything but this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import photo
from tests.support.first_demo import FirstDemo
from tests.support.network_guard import Guard


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(tmp_path)


def test_the_guard_sees_names_and_addresses(guard: Guard) -> None:
    code = (
        "import socket, requests\n"
        "for call in (lambda: socket.create_connection(('192.0.2.1', 80), 1),\n"
        "             lambda: requests.get('http://example.com', timeout=1)):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
    )
    done = guard.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert [one.split("'")[1] if "'" in one else one for one in guard.refused()] == [
        "192.0.2.1",
        "example.com",
    ]


def test_the_whole_demo_asks_nobody_else_when_offline(first_demo: FirstDemo) -> None:
    assert first_demo.guard.refused() == []
    # The demo itself, the backend, the worker's supervisor and its process.
    started = {pid for kind, _, _, pid in first_demo.guard.log if kind == "started"}
    assert len(started) >= 4


@pytest.mark.parametrize("offline", ["1", "0"])
def test_the_model_hub_is_asked_only_when_not_offline(guard: Guard, offline: str) -> None:
    photo(1).save(guard.folder / "photo.png")
    done = guard.run_cli(
        *("suggest", "--encoder", "open_clip:ViT-B-16/datacomp_xl_s13b_b90k"),
        *("--labels", "cat,dog", "photo.png"),
        LS_CLIP_OFFLINE=offline,
    )
    assert done.returncode == 1
    assert "Fix:" in done.stderr
    assert bool(guard.refused()) == (offline == "0"), guard.log
