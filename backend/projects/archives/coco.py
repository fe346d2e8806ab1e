"""COCO files: the categories of each image's annotations are its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.labels.label_files import label_name
from backend.projects.archives.places import Places
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Reason, Row
from backend.projects.label_states import STATE, State

_PARTS = ("images", "annotations", "categories")


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
        SettingsError: an image, an annotation or a category lacks what it needs.
    """
    names = {
        _field(path, category, "categories", number, "id"): label_name(
            str(_field(path, category, "categories", number, "name"))
        )
        for number, category in enumerate(content["categories"], 1)
    }
    identities = {
        _field(path, image, "images", number, "id")
        for number, image in enumerate(content["images"], 1)
    }
    labels: dict[Any, dict[str, None]] = {}
    for number, annotation in enumerate(content["annotations"], 1):
        image = _field(path, annotation, "annotations", number, "image_id")
        if _is_pseudo(annotation):
            continue
        if image not in identities:
            yield Row(f"annotation {number}", reason=Reason.NO_SUCH_IMAGE)
            continue
        segments = annotation.get("segments_info")
        for part in segments if isinstance(segments, list) else [annotation]:
            category = _field(path, part, "annotations", number, "category_id")
            if category not in names:
                raise SettingsError(
                    f"{path}: annotation {number} has a category that is not among the categories.",
                    "Export the file again, with all its categories.",
                )
            labels.setdefault(image, {})[names[category]] = None
    places = Places(request, path.parent, path.parent / "images")
    for number, image in enumerate(content["images"], 1):
        identity = _field(path, image, "images", number, "id")
        name = str(_field(path, image, "images", number, "file_name"))
        # Our own export says where Label Studio has the image.
        address = image.get("image")
        if not request.images and isinstance(address, str) and places.is_served(address):
            name = address
        yield places.row(name, f"image {number}", tuple(labels.get(identity, ())))


def _field(path: Path, item: Any, part: str, number: int, name: str) -> Any:
    value = item.get(name) if isinstance(item, Mapping) else None
    if not isinstance(value, str | int):
        raise SettingsError(
            f"{path} is no COCO file with labels: item {number} of its {part} has no {name!r}.",
            "Give a file of instances or of image-level labels (not of captions).",
        )
    return value


def _is_pseudo(annotation: Mapping[str, Any]) -> bool:
    """Whether our own export says that nobody but a model has put the label there."""
    attributes = annotation.get("attributes")
    return isinstance(attributes, Mapping) and attributes.get(STATE) == State.PSEUDO
