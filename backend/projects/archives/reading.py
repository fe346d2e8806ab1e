"""Reads an archive of whatever format: a file, a folder or an annotated project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.errors import SettingsError, counted
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.coco import is_coco, rows_of_coco
from backend.projects.archives.disk_paths import located
from backend.projects.archives.folders import rows_of_folder
from backend.projects.archives.label_studio import is_task, rows_of_project, rows_of_tasks
from backend.projects.archives.parquet import is_parquet, read_parquet
from backend.projects.archives.places import Places
from backend.projects.archives.records import Table, rows_of_records
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Archive, Reason, Row, gather
from backend.projects.archives.tables import rows_of_table
from backend.text_files import (
    is_json_lines,
    read_json,
    read_json_lines,
    shortened,
    starts_like_json,
    user_path,
)

SOURCES = (
    "Give a CSV, TSV, JSON or Parquet file, a folder with one subfolder per label, or the number "
    "of an annotated project."
)


def read_archive(source: str, request: ArchiveRequest, studio: LabelStudioClient) -> Archive:
    """Read an archive.

    Args:
        source: the path of a file or a folder, or the number of an annotated project.
        request: how it is to be read.
        studio: the Label Studio with the project.

    Raises:
        SettingsError: the archive cannot be read, or an image is where Label Studio cannot show it.
        StudioError: there is no such project, or Label Studio does not answer.
    """
    rows, stripped = [*_rows(source, request, studio)], ""
    if any(row.path for row in rows):
        rows, stripped = located(rows, user_path(request.images))
    archive = replace(gather(rows), stripped=stripped)
    refused = archive.left_out.get(Reason.NOT_SERVED)
    if refused is not None:
        raise SettingsError(
            f"{counted(refused.count, 'image')} of {source} cannot be shown by Label Studio, e.g. "
            f"{shortened(refused.example)} (it shows web, cloud and its own addresses).",
            "Let the files be uploaded: --images FOLDER for names and paths of files below a "
            "folder, or give a folder with one subfolder per label instead. Or serve them: "
            "--images https://HOST/PATH puts an address before relative names; with a local-files "
            "storage of the project (Settings > Cloud Storage) write "
            "/data/local-files/?d=photos/1.jpg.",
        )
    return archive


def _rows(source: str, request: ArchiveRequest, studio: LabelStudioClient) -> Iterable[Row]:
    if source.isascii() and source.isdigit():
        return rows_of_project(studio, int(source), request)
    path = user_path(source)
    if not path.exists():
        raise SettingsError(f"There is no file or folder {path}.", SOURCES)
    if path.is_dir():
        return rows_of_folder(path, request)
    if is_parquet(path):
        return rows_of_records(read_parquet(path), request, Places(request))
    if starts_like_json(path, request.encoding):
        return _rows_of_json(path, request)
    return rows_of_table(path, request)


def _rows_of_json(path: Path, request: ArchiveRequest) -> Iterable[Row]:
    if is_json_lines(path):
        numbered = read_json_lines(path, request.encoding)
        content: Any = [*numbered.values()]
    else:
        content = read_json(path, request.encoding)
        numbered = dict(enumerate(content, 1)) if isinstance(content, list) else {}
    if is_coco(content):
        return rows_of_coco(path, content, request)
    if not isinstance(content, list) or not all(isinstance(item, Mapping) for item in content):
        raise SettingsError(
            f"{path} is JSON of a form that is not known.",
            "Give Label Studio's export (JSON or JSON_MIN: a list of objects), or a COCO file (an "
            "object with images, annotations and categories).",
        )
    if any(is_task(item) or "annotations" in item for item in content):
        return rows_of_tasks(path, content, request)
    if not content:
        return []
    return rows_of_records(Table.of_objects(path, numbered), request, Places(request))
