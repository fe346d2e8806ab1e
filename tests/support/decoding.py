"""What decoding costs: a program that decodes files with many threads and says what it used.

    python -m tests.support.decoding FILE...

Prints JSON: ``outcomes`` (sizes and reasons), ``cpu`` (seconds of this process and its children),
``peak`` and ``left`` (bytes of resident memory, children included, more than before: at the most,
and at the end).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.builders import ROOT
from tests.support.processes import child_environment

THREADS = 8


def cost(folder: Path, *files: bytes, **variables: str) -> dict[str, Any]:
    """Decode these files at the same time, in a process of its own with these settings."""
    names = []
    for number, data in enumerate(files):
        path = folder / f"image-{number}"
        path.write_bytes(data)
        names.append(str(path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.decoding", *names],
        cwd=folder,
        env=child_environment({"PYTHONPATH": str(ROOT), **variables}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used: dict[str, Any] = json.loads(done.stdout)
    return used


def decoding(parent: psutil.Process) -> psutil.Process | None:
    """The process below this one that has a decoder process at work."""
    for child in parent.children(recursive=True):
        if "backend.images.decoder_process" in child.cmdline() and child.cpu_times().user > 0.5:
            return child.parent()
    return None


def _resident() -> int:
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def main() -> None:
    from backend.errors import ImageError
    from backend.images.decoder import Decoder
    from backend.settings import load_settings

    decoder = Decoder(load_settings())
    files = [Path(name) for name in sys.argv[1:]]
    before, peaks, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peaks.append(_resident())

    def decode(path: Path) -> list[int] | str:
        try:
            return decoder.decoded(path.read_bytes(), lambda image: [*image.size], 896)
        except ImageError as error:
            return str(error.reason)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = [*pool.map(decode, files)]
    left = _resident()
    done.set()
    watcher.join()
    decoder.close()
    times = psutil.Process().cpu_times()
    cpu = times.user + times.system + times.children_user + times.children_system
    print(
        json.dumps(
            {
                "outcomes": outcomes,
                "cpu": cpu,
                "peak": max(peaks) - before,
                "left": left - before,
            }
        )
    )


if __name__ == "__main__":
    main()
