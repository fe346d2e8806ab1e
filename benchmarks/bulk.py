"""How fast whole projects are predicted: `python benchmarks/bulk.py --data DIR`.

DIR holds ``coco-dev/`` (photos, labels). Starts a Label Studio, a Valkey and workers of its own in
a temporary folder, prints a table for each part, and puts those into docs/performance.md (not with
``--no-write``). Parts that are not run keep the table they have there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from backend.cli import markdown
from benchmarks import bulk_runs, bulk_stages, report
from benchmarks.bulk_servers import Servers, machine
from benchmarks.bulk_upstream import upstream

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
PARTS = ("stages", "end-to-end", "upstream", "memory", "large")
SETTING_PREFIXES = ("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_", "REDIS_URL")

Outcome = tuple[list[dict[str, Any]], str]


def markers(part: str) -> tuple[str, str]:
    """The lines of the document before and after a part's table."""
    return f"<!-- {part}: written by benchmarks/bulk.py -->", f"<!-- end of {part} -->"


def section(outcome: Outcome, measured_on: str) -> str:
    """A part's table, the note on it, and the machine."""
    rows, note = outcome
    return f"{markdown.table(rows)}\n\n{note}\n\n{measured_on}."


def write(part: str, text: str) -> None:
    """Put a part into the document."""
    report.put(PAGE, *markers(part), text)


def chosen_photos(data: Path, count: int) -> tuple[list[Path], list[str]]:
    """So many photos, spread evenly over the sorted names, and the labels of the data set."""
    content = json.loads((data / "coco-dev" / "labels.json").read_text())
    names = sorted(content["images"])
    count = min(count, len(names))
    chosen = [names[index * len(names) // count] for index in range(count)]
    return [data / "coco-dev" / "images" / name for name in chosen], content["classes"]


def run_parts(
    servers: Servers, options: argparse.Namespace, done: Callable[[str, Outcome], None]
) -> None:
    """Run the chosen parts in order, and call ``done`` with the outcome of each."""
    sizes = [size for size in options.tasks if size]

    @cache
    def stages() -> bulk_stages.Stages:
        return bulk_stages.measure(servers, "stages" in options.part)

    parts: dict[str, Callable[[], Outcome]] = {
        "stages": lambda: bulk_stages.outcome(stages()),
        "end-to-end": lambda: bulk_runs.end_to_end(servers, stages()),
        "upstream": lambda: upstream(servers, options.one_by_one),
        "memory": lambda: bulk_runs.memory(servers, sizes),
        "large": lambda: bulk_runs.large(servers, options.large),
    }
    for part in PARTS:
        if part in options.part:
            started = time.monotonic()
            outcome = parts[part]()
            print(f"\n## {part} ({time.monotonic() - started:.0f} s)\n", flush=True)
            done(part, outcome)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--photos", type=int, default=1605, help="of end-to-end and upstream")
    parser.add_argument("--one-by-one", type=int, default=60, help="tasks of upstream's loop")
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[1600, 16_000], help="of memory's runs"
    )
    parser.add_argument("--large", type=int, default=10_000, help="tasks of the large project")
    parser.add_argument("--threads", type=int, help="of torch, here and in the worker")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    options = parser.parse_args(arguments)
    options.data = options.data.resolve()
    options.part = options.part or [*PARTS]
    return options


def ignore_the_environment() -> None:
    """Log errors only, and drop settings that the environment brings."""
    logging.basicConfig(level=logging.ERROR)
    # Servers are started after the store was opened; they do not use the connection.
    warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)
    # A .env file is not read either: the benchmarks run in a temporary folder.
    for name in [name for name in os.environ if name.startswith(SETTING_PREFIXES)]:
        del os.environ[name]


def main() -> None:
    """Command line."""
    options = parsed()
    if "MALLOC_ARENA_MAX" not in os.environ:
        # What `backend.heap.use_one_heap` does for ls-clip; here threads have been started already.
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "MALLOC_ARENA_MAX": "1"})
    ignore_the_environment()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        torch.set_num_threads(options.threads)
    started = time.monotonic()
    measured_on = machine()
    print(measured_on, flush=True)
    photos, labels = chosen_photos(options.data, options.photos)

    def done(part: str, outcome: Outcome) -> None:
        text = section(outcome, measured_on)
        print(text, flush=True)
        if not options.no_write:
            write(part, text)

    with tempfile.TemporaryDirectory(prefix="ls-clip-bulk-") as folder:
        os.chdir(folder)
        try:
            with Servers(Path(folder), photos, labels) as servers:
                run_parts(servers, options, done)
        finally:
            os.chdir(ROOT)
    print(f"\n{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
