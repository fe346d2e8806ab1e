"""Does the loop help? An annotator that answers from the truth drives a real Label Studio.

``python benchmarks/loop.py --data DIR`` (a quarter of an hour on two cores) starts a Label Studio,
a Valkey, the backend and a worker in a temporary folder and writes the tables of docs/training.md.
``DIR`` holds ``coco-dev/images`` and ``coco-dev/labels.json``. Half of the photos, chosen at
random, are never annotated, and only the final measures read their labels.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from backend.cli import markdown
from benchmarks import loop_parts, report
from benchmarks.bulk import ROOT, ignore_the_environment
from benchmarks.bulk_servers import machine
from benchmarks.loop_scene import Scene, build

PARTS: dict[str, Callable[[Scene], tuple[loop_parts.Rows, str]]] = {
    "accepting": loop_parts.accepting,
    "single-positive": loop_parts.single_positive,
    "latency": loop_parts.latency,
    "reviews": loop_parts.reviews,
}
"""In the order in which they run; "reviews" comes last because it changes the project."""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--photos", type=int, default=1605)
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    options = parser.parse_args(arguments)
    options.data = options.data.resolve()
    options.part = options.part or [*PARTS]
    return options


def main() -> None:
    """Command line."""
    options = parsed()
    ignore_the_environment()
    with tempfile.TemporaryDirectory(prefix="ls-clip-loop-") as folder:
        os.chdir(folder)
        try:
            with ExitStack() as stack:
                scene = build(stack, Path(folder), options.data, options.photos)
                for part, run in PARTS.items():
                    if part not in options.part:
                        continue
                    started = time.monotonic()
                    rows, note = run(scene)
                    text = f"{markdown.table(rows)}\n\n{note}\n\n{machine()}."
                    print(f"\n## {part} ({time.monotonic() - started:.0f} s)\n\n{text}", flush=True)
                    if not options.no_write:
                        page = ROOT / "docs" / "training.md"
                        marks = (
                            f"<!-- {part}: written by benchmarks/loop.py -->",
                            f"<!-- end of {part} -->",
                        )
                        report.put(page, *marks, text)
        finally:
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
