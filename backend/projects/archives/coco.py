"""COCO files: the categories of each image's annotations are its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.labels.label_files import label_name
from backend.projects.archives.places import Places
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Reason, Row
from backend.projects.label_states import STATE, State
from backend.text_files import shortened

_PARTS = ("images", "annotations", "categories")
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""A text that is a number, and that no other text is: "007" is another id than 7."""


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is COCO's."""
    return isinstance(content, Mapping) and all(
        isinstance(content.get(part), list) for part in _PARTS
    )


def rows_of_coco(path: Path, content: Mapping[str, Any], request: ArchiveRequest) -> Iterator[Row]:
    """Read a COCO file of instances, keypoints, panoptic segments or image-level labels.

    Boxes and outlines are ignored. Files are looked for in the folder, or below the address, that
    the request names, else beside the file and in ``images`` there.

    Args:
        path: of the file.
        content: of it.
        request: may name the folder or the address of the images.

    Raises:
        SettingsError: an image, an annotation or a category lacks what it needs, an id stands for
            several of them, or no annotation is of an image in the file.
    """
    names: dict[int | str, str] = {}
    for number, category in enumerate(content["categories"], 1):
        identity = _identity(path, category, "categories", number, "id")
        name = label_name(str(_field(path, category, "categories", number, "name")))
        _require_once(path, "categories", identity, names.setdefault(identity, name), name)
    places = Places(request, path.parent, path.parent / "images")
    images: dict[int | str, tuple[int, str]] = {}
    for number, image in enumerate(content["images"], 1):
        identity = _identity(path, image, "images", number, "id")
        name = str(_field(path, image, "images", number, "file_name"))
        # Our own export says where Label Studio has the image.
        address = image.get("image")
        if not request.images and isinstance(address, str) and places.is_served(address):
            name = address
        first = images.setdefault(identity, (number, name))
        _require_once(path, "images", identity, first[1], name)
    labels: dict[int | str, dict[str, None]] = {}
    for number, annotation in enumerate(content["annotations"], 1):
        identity = _identity(path, annotation, "annotations", number, "image_id")
        if _is_pseudo(annotation):
            continue
        if identity not in images:
            yield Row(f"annotation {number}", reason=Reason.NO_SUCH_IMAGE)
            continue
        segments = annotation.get("segments_info")
        for part in segments if isinstance(segments, list) else [annotation]:
            category = _identity(path, part, "annotations", number, "category_id")
            if category not in names:
                raise SettingsError(
                    f"{path}: annotation {number} has a category that is not among the categories.",
                    "Export the file again, with all its categories.",
                )
            labels.setdefault(identity, {})[names[category]] = None
    _require_some(path, content, images)
    for identity, (number, name) in images.items():
        yield places.row(name, f"image {number}", tuple(labels.get(identity, ())))


def _identity(path: Path, item: Any, part: str, number: int, name: str) -> int | str:
    """An id; programs write the same one as 1, 1.0 or "1"."""
    value = _field(path, item, part, number, name)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return value


def _require_once(path: Path, part: str, identity: int | str, first: str, second: str) -> None:
    """Refuse an id that stands for two things: nobody can say whose the annotations are."""
    if first != second:
        raise SettingsError(
            f"{path}: two of its {part} have the id {shortened(str(identity))}: "
            f"{shortened(first)} and {shortened(second)}.",
            "Files that were put together need other ids: number images, categories and "
            "annotations anew, or import each file alone.",
        )


def _require_some(
    path: Path, content: Mapping[str, Any], images: Mapping[int | str, object]
) -> None:
    """Refuse annotations that are of no image in the file, all of them."""
    named = [one["image_id"] for one in content["annotations"]]
    known = {_identity(path, one, "annotations", 0, "image_id") for one in content["annotations"]}
    if named and images and not known & images.keys():
        given = content["images"][0]["id"]
        raise SettingsError(
            f"{path}: no annotation is of an image in it. Its images have ids such as "
            f"{_shown(given)}, its annotations an image_id such as {_shown(named[0])}.",
            "Write the ids alike, or export the file again with all its images.",
        )


def _shown(identity: int | float | str) -> str:
    """An id fit for a message, by which a text can be told from a number."""
    told = shortened(str(identity))
    return f"the text {told!r}" if isinstance(identity, str) else f"the number {told}"


def _field(path: Path, item: Any, part: str, number: int, name: str) -> int | str:
    value = item.get(name) if isinstance(item, Mapping) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SettingsError(
            f"{path} is no COCO file with labels: item {number} of its {part} has no {name!r}.",
            "Give a file of instances or of image-level labels (not of captions).",
        )
    return value


def _is_pseudo(annotation: Mapping[str, Any]) -> bool:
    """Whether our own export says that nobody but a model has put the label there."""
    attributes = annotation.get("attributes")
    return isinstance(attributes, Mapping) and attributes.get(STATE) == State.PSEUDO
