"""With LS_CLIP_OFFLINE=1 none of our processes tries to reach anything but this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, child_environment, photo

GUARD = '''
"""Loaded by every Python that starts below the test; refuses and notes what leaves the machine."""
import json, os, socket, sys

HERE = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", b"localhost", b"127.0.0.1"}

def note(kind, target):
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(json.dumps([kind, str(target), " ".join(sys.argv[:3]), os.getpid()]) + "\\n")

def guarded(name):
    original = getattr(socket.socket, name)
    def connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in HERE:
            note("refused", address)
            raise OSError(f"guard: {address} is not this machine")
        return original(self, address)
    setattr(socket.socket, name, connect)

# Label Studio lives in an environment of its own and is another program.
if sys.prefix == os.environ.get("GUARD_PREFIX"):
    note("started", sys.executable)
    guarded("connect")
    guarded("connect_ex")
    resolve = socket.getaddrinfo
    def getaddrinfo(host, *args, **kwargs):
        if host not in HERE:
            note("refused", host)
            raise socket.gaierror(f"guard: {host} is not this machine")
        return resolve(host, *args, **kwargs)
    socket.getaddrinfo = getaddrinfo
'''


@dataclass
class Guard:
    """What the guarded processes did."""

    folder: Path

    @property
    def log(self) -> list[list[str]]:
        path = self.folder / "guard.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def refused(self) -> list[str]:
        return [target for kind, target, *_ in self.log if kind == "refused"]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "sitecustomize.py").write_text(GUARD)
        environment = child_environment(
            {
                "GUARD_LOG": str(self.folder / "guard.log"),
                "GUARD_PREFIX": sys.prefix,
                # A cache of its own: nothing that was downloaded before helps.
                "HF_HOME": str(self.folder / "hub"),
                **variables,
            }
        )
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def run_cli(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from backend.cli import main; main()", *arguments, **variables)


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


def test_the_whole_demo_asks_nobody_else_when_offline(guard: Guard) -> None:
    done = guard.run_cli(
        *("demo", "--check", "--directory", str(guard.folder / "demo"), "--tasks", "24"),
        *("--port", "28380"),
        LS_CLIP_OFFLINE="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every task shows exactly one prediction" in done.stderr
    assert guard.refused() == []
    # The demo itself and the backend that it starts.
    assert len({pid for kind, _, _, pid in guard.log if kind == "started"}) >= 2


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
