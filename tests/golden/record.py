"""Writes down what the code does: ``python -m tests.golden.record [--check] [NAME ...]``.

Each NAME of `RECORDINGS` is a file in ``data``. With ``--check`` nothing is written; what differs
from the files, be it one byte, is told, and the exit code is 1. The files are made anew only when a
change of behaviour is wanted, and the difference is part of that change's review.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.golden import command_recordings, recordings, route_recordings
from tests.golden.normal import differences, dumped
from tests.golden.recordings import DATA

RECORDINGS: dict[str, Callable[[Path], Any]] = {
    "configs": recordings.configs,
    "predictions": recordings.predictions,
    "routes": route_recordings.routes,
    "commands": command_recordings.commands,
}


def file_of(name: str) -> Path:
    """Where a recording is kept."""
    return DATA / f"{name}.json"


def main(arguments: list[str]) -> int:
    """Record or compare; the exit code."""
    check = "--check" in arguments
    names = [one for one in arguments if one != "--check"] or list(RECORDINGS)
    code = 0
    logging.getLogger().addHandler(logging.NullHandler())
    for name in names:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = dumped(RECORDINGS[name](Path(folder).resolve()))
        verb = "written"
        if not check:
            file_of(name).write_text(found)
        elif found == file_of(name).read_text():
            verb = "the same"
        else:
            verb, code = "DIFFERENT", 1
            wanted = json.loads(file_of(name).read_text())
            for one in differences(json.loads(found), wanted, 0.0)[:20]:
                print(f"  {one}"[:600])
        print(f"{name}: {verb} ({time.monotonic() - started:.0f} s)", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
