"""COCO files with labels of whole images: an annotation that spans the image for each label."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backend.projects.export.formats.content import Content, LabelKey
from backend.projects.export.formats.json_text import write_lists
from backend.projects.export.rows import ExportedImage, ExportedTask, LabelState, Presence


def write(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write one COCO file. Images whose size is unknown are 0 x 0.

    Raises:
        OSError: the file cannot be written.
    """
    categories: dict[LabelKey, int] = {
        key: number for number, key in enumerate(content.labels, start=1)
    }
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for task in tasks:
        for place, image in enumerate(task.images):
            for state in image.labels:
                # Of tasks that bring their own labels along.
                key = state.control.name, state.label.key
                categories.setdefault(key, len(categories) + 1)
            item = _image(image, categories)
            images.append(item)
            if place:
                others.append(item)
            annotations += [
                {"image": item, **_annotation(image, state, categories)}
                for state in image.labels
                if state.presence == Presence.PRESENT
            ]
    # A task's first image has the task's number, the others numbers that no task has.
    free = max((image["id"] for image in images), default=0) + 1
    for number, item in enumerate(others, start=free):
        item["id"] = number
    for number, annotation in enumerate(annotations, start=1):
        annotation |= {"id": number, "image_id": annotation.pop("image")["id"]}
    write_lists(
        path,
        {
            "info": {
                "description": f"Label Studio project {content.project}",
                "states": [state.value for state in content.states],
                "model_version": content.version,
            }
        },
        {
            "licenses": [],
            "images": images,
            "categories": [
                {"id": number, "name": label, "supercategory": control}
                for (control, label), number in categories.items()
            ],
            "annotations": annotations,
        },
    )


def _image(image: ExportedImage, categories: dict[LabelKey, int]) -> dict[str, Any]:
    present, absent, unknown = (
        [categories[key] for key in image.keys(presence)] for presence in Presence
    )
    return {
        "id": image.task,
        "file_name": image.file_name or image.name,
        "width": image.width or 0,
        "height": image.height or 0,
        "task": image.task,
        "name": image.name,
        "image": image.image,
        "split": None if image.split is None else image.split.value,
        "reviewed": image.reviewed,
        "present_category_ids": present,
        "absent_category_ids": absent,
        "unknown_category_ids": unknown,
        # What the first release called absent_category_ids.
        "absent": absent,
    }


def _annotation(
    image: ExportedImage, state: LabelState, categories: dict[LabelKey, int]
) -> dict[str, Any]:
    width, height = image.width or 0, image.height or 0
    return {
        "category_id": categories[state.control.name, state.label.key],
        "bbox": [0, 0, width, height],
        "area": width * height,
        "segmentation": [[0, 0, width, 0, width, height, 0, height]],
        "iscrowd": 0,
        "attributes": {
            "presence": state.presence.value,
            "state": state.state.value,
            "probability": state.probability,
            "provenance": str(state.provenance),
            "version": state.version,
        },
    }
