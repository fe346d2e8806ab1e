"""Tasks with annotations: Label Studio's JSON export, and the annotated tasks of a project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.labels.task_values import field_value
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.cells import labels_of, stored_labels
from backend.projects.archives.keys import addresses_in, key_of_pages
from backend.projects.archives.places import Places
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Reason, Row, is_unicode
from backend.projects.label_states import KNOWN_FIELD
from backend.text_files import listed, shortened


def is_task(item: Mapping[str, Any]) -> bool:
    """Whether an object is a task, and not a record of Label Studio's JSON_MIN export."""
    return isinstance(item.get("data"), Mapping)


def rows_of_tasks(
    path: Path, tasks: Sequence[Mapping[str, Any]], request: ArchiveRequest
) -> list[Row]:
    """Read Label Studio's JSON export, or tasks as Label Studio imports them.

    Annotations that were cancelled (by Skip), drafts and predictions do not count.

    Args:
        path: of the file.
        tasks: its content.
        request: may name controls, and fields of the tasks' data, that have the labels.

    Raises:
        SettingsError: something is no task, or no task has an image or a label where they should
            be, but elsewhere.
    """
    places = Places(request)
    rows, fields, others = [], Counter[str](), Counter[str]()
    is_found = False
    for number, task in enumerate(tasks, 1):
        where = f"task {shortened(str(task.get('id', number)))}"
        annotations = task.get("annotations", task.get("completions")) or []
        if not is_task(task) or not _are_objects(annotations):
            raise SettingsError(
                f"{path}: {where} is no task as Label Studio exports it.",
                "Export the project again: Export > JSON, or JSON-MIN.",
            )
        data = task["data"]
        image = field_value(data, request.image_column or request.image_field)
        fields.update(data.keys())
        row = _annotated(where, data, annotations, request, own_field=_own_field(task, request))
        others.update(_other_controls(annotations, request))
        own = dict(data)
        if isinstance(image, list):
            place, own[request.image_field] = places.row_of_pages(image, where, row.labels)
        else:
            place = places.row(image if isinstance(image, str) else "", where, row.labels)
        if not is_unicode(json.dumps(own, ensure_ascii=False)):
            place = Row(where, reason=Reason.NOT_TEXT)
        # A task that does not count needs no file.
        looked_for = "" if row.reason else place.path
        reason = row.reason if place.path and row.reason else place.reason or row.reason
        is_found = is_found or place.reason != Reason.NO_IMAGE
        rows.append(replace(place, data=own, reason=reason, one_of_several=True, path=looked_for))
    if rows and not is_found:
        raise SettingsError(
            f"No task of {path} has an image in {request.image_column or request.image_field!r}.",
            f"Its fields are: {listed(fields) or 'none'}. Name one with --image-column.",
        )
    if others and not any(row.labels for row in rows):
        raise SettingsError(
            f"No task of {path} has a label in {listed(request.label_names)}.",
            f"Its labels are in: {listed(others)}. Name one with --label-column.",
        )
    return rows


def rows_of_project(
    studio: LabelStudioClient, number: int, request: ArchiveRequest
) -> Iterator[Row]:
    """Read the annotated tasks of another project.

    Args:
        studio: the Label Studio.
        number: the annotated project.
        request: labels of controls of the same name are taken, or of those that it names.

    Raises:
        StudioError: there is no such project, or Label Studio does not answer.
    """
    studio.projects.get(number)
    for task in studio.tasks.annotated(number):
        where = f"task {task['id']}"
        data = task["data"]
        row = _annotated(where, data, task["annotations"], request, own_field="")
        image = field_value(data, request.image_column or request.image_field)
        addresses = addresses_in(image)
        if request.image_column and addresses:
            data = {**data, request.image_field: image}
        # By its image, as in an export of the project; a task without one by its number.
        yield replace(
            row,
            data=data,
            image=addresses[0] if addresses else "",
            source=key_of_pages(addresses) if addresses else f"{number}/{task['id']}",
            one_of_several=True,
        )


def _annotated(
    where: str,
    data: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    request: ArchiveRequest,
    *,
    own_field: str,
) -> Row:
    """The labels of all annotations of a task that were not cancelled.

    Args:
        where: the task is.
        data: of the task.
        annotations: of the task.
        request: may name other controls and fields.
        own_field: has labels known beforehand in our own export; empty for other tasks.

    Raises:
        SettingsError: the import would write over a field of the task's data.
    """
    fields = request.label_columns
    live = [annotation for annotation in annotations if not _is_cancelled(annotation)]
    if data.get(request.known_field) and request.known_field not in {*fields, own_field}:
        raise SettingsError(
            f"{where} has a field {request.known_field!r} already, which gets the labels.",
            "If labels stand in it, name it, and the controls that count: --label-column "
            f"{request.known_field}. Else have the labels put into another: --field NAME.",
        )
    if own_field and not live:
        # What a person has said of the whole task supersedes what was known before.
        fields = tuple(dict.fromkeys((*fields, own_field)))
    labels = [
        label
        for name in fields
        for label in labels_of(field_value(data, name), request, request.control(name))
    ]
    for name, value in _values(live):
        if name in request.label_names:
            labels += stored_labels(value, request.control(name))
    is_skipped = bool(annotations) and not live and not labels
    return Row(where, tuple(labels), data=data, reason=Reason.SKIPPED if is_skipped else None)


def _own_field(task: Mapping[str, Any], request: ArchiveRequest) -> str:
    """The field with known labels of a task that our own export has written; else nothing.

    Such a task names its images; those of earlier releases do not name the field.
    """
    meta = task.get("meta")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("images"), list):
        return ""
    named = meta.get(KNOWN_FIELD)
    return named if isinstance(named, str) else request.known_field


def _other_controls(annotations: Sequence[Mapping[str, Any]], request: ArchiveRequest) -> set[str]:
    """Names of controls with labels that are not asked for."""
    asked = request.label_names
    live = [annotation for annotation in annotations if not _is_cancelled(annotation)]
    return {
        name for name, value in _values(live) if name not in asked and stored_labels(value, None)
    }


def _is_cancelled(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation was skipped; Label Studio once called that so."""
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _values(
    annotations: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name of the control and the ``value`` of each result item."""
    for annotation in annotations:
        result = annotation.get("result")
        for item in result if isinstance(result, list) else []:
            value = item.get("value") if isinstance(item, Mapping) else None
            if isinstance(value, Mapping):
                yield str(item.get("from_name")), value


def _are_objects(annotations: Any) -> bool:
    return isinstance(annotations, list) and all(isinstance(one, Mapping) for one in annotations)
