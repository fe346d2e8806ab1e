"""A guard that every Python below a test loads: it refuses and notes what leaves this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.builders import ROOT
from tests.support.processes import child_environment

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
        return self.run("-c", "from backend.cli.main import main; main()", *arguments, **variables)
