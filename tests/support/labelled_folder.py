"""A folder of labelled images, as evaluate and compare-encoders take it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.builders import photo


def make_labelled_folder(
    folder: Path,
    classes: Sequence[str],
    labels_of: Callable[[int], Sequence[str]],
    count: int,
    size: tuple[int, int],
) -> Path:
    """Write ``count`` made-up photos of this size, each with its labels; returns the folder."""
    (folder / "images").mkdir(parents=True)
    truth = {f"{number:02}.jpg": labels_of(number) for number in range(count)}
    for number, name in enumerate(truth):
        photo(number, *size).save(folder / "images" / name)
    (folder / "labels.json").write_text(json.dumps({"classes": classes, "images": truth}))
    return folder
