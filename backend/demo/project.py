"""The demo's project in Label Studio: its labels, and one task per photo."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from backend.demo.photos import LABELS, DemoPhoto
from backend.demo.state import DemoState
from backend.errors import StudioError
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.logs import Progress

log = logging.getLogger(__name__)

TITLE = "Suggestions demo"


def make_project(
    studio: LabelStudioClient,
    state: DemoState,
    folder: Path,
    photos: Sequence[DemoPhoto],
    progress: Progress,
) -> int:
    """The number of the demo's project.

    The project is made if there is none, or if it was made with another number of tasks.

    Args:
        studio: the Label Studio.
        state: gets the number.
        folder: of the photos, below Label Studio's document root.
        photos: one task each.
        progress: shows progress.

    Raises:
        StudioError: Label Studio refuses a call.
    """
    if state.project is not None and state.tasks == len(photos):
        try:
            if studio.projects.get(state.project)["task_number"] == len(photos):
                return state.project
        except StudioError as error:
            log.info("the demo's project is made again: %s", error)
    progress("making the project", 0, 1)
    project = studio.projects.create(TITLE, _labeling_config())
    number = int(project["id"])
    studio.projects.add_local_files(number, str(folder))
    studio.tasks.create(
        number,
        [
            {"data": {"image": f"/data/local-files/?d={folder.name}/{photo.file}"}}
            for photo in photos
        ],
    )
    state.project, state.tasks = number, len(photos)
    progress("making the project", 1, 1)
    return number


def _labeling_config() -> str:
    """The config of plugin_config/ with the demo's labels."""
    config = files("plugin_config").joinpath("beside-the-image.xml").read_text()
    choices = "\n".join(f'      <Choice value="{label}"/>' for label in LABELS)
    start, end = config.index("<Choice value="), config.rindex("</Choices>")
    config = config[:start].rstrip() + "\n" + choices + "\n    " + config[end:]
    parse_config(config).require_controls()
    return config
