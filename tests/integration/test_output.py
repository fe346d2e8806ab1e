"""Commands whose standard output takes nothing: a full disk, or a pipe that nobody reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from tests.support.builders import make_settings
from tests.support.heads import head_set
from tests.support.processes import CLI, child_environment
from tests.support.stub_label_studio import KEY, StubStudio

FULL = Path("/dev/full")


def ended(cwd: Path, out: int, *arguments: str, **variables: str) -> tuple[int, str]:
    """The exit code of a command that prints to a file descriptor, and what it says beside it."""
    done = subprocess.run(
        [*CLI, *arguments],
        cwd=cwd,
        env=child_environment({"LS_CLIP_ENCODER": "offline", **variables}),
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture
def commands(
    studio: StubStudio, tmp_path: Path, photos: list[str]
) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Commands that print something, with their variables."""
    HeadRegistry(open_store(make_settings(tmp_path / "store"))).save(KEY, head_set("h1"))
    variables = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
    }
    return {
        "suggest": (("suggest", "--labels", "a,b", photos[0]), variables),
        "suggest --json": (("suggest", "--labels", "a,b", "--json", photos[0]), variables),
        "heads": (("heads", "1"), variables),
        "help": (("--help",), {}),
    }


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("name", "unbuffered"),
    [("suggest", ""), ("suggest --json", "1"), ("heads", ""), ("help", ""), ("help", "1")],
)
def test_an_output_that_takes_nothing_is_one_error(
    tmp_path: Path, commands, name: str, unbuffered: str
):
    arguments, variables = commands[name]
    variables["PYTHONUNBUFFERED"] = unbuffered
    with FULL.open("w") as full:
        code, said = ended(tmp_path, full.fileno(), *arguments, **variables)
    assert code == 1 and "Traceback" not in said and "Exception ignored" not in said
    assert said.splitlines()[-2:] == [
        "Error: The output cannot be written: No space left on device.",
        "Fix: Make room where it goes, or send it elsewhere.",
    ]


def test_a_pipe_that_nobody_reads_ends_a_command_in_silence(tmp_path: Path, commands):
    arguments, variables = commands["heads"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, said = ended(tmp_path, writing, *arguments, **variables)
    finally:
        os.close(writing)
    assert (code, said) == (1, "")
