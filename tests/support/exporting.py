"""Exports of a stand-in Label Studio's project, and the scores that they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.inference.prediction import logged
from backend.inference.predictor import Predictor, images_of
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.projects.export.collecting import exported
from backend.projects.export.export import Format, Request, RowsPer, Written, export
from backend.projects.export.rows import ExportedTask
from backend.projects.export.scores import KeptScores
from backend.projects.label_states import State
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.score_files import ScoreFiles
from backend.training.pulling import Pulled
from jobs.score_keeping import ScoreKeeper
from tests.support.stub_label_studio import KEY, StubStudio

ALL = tuple(State)
HUMAN = (State.APPROVED, State.KNOWN, State.UNKNOWN)


def annotation(number: int, *choices: str, control: str = "tags", **fields: Any) -> dict[str, Any]:
    """What a person has submitted, who saw no suggestion."""
    item = {
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(choices)},
    }
    return {
        "id": number,
        "result": [item],
        "was_cancelled": False,
        "completed_by": 1,
        "lead_time": 3.0,
        "created_at": "2026-11-23T07:00:00Z",
        "updated_at": "2026-11-23T07:00:00Z",
        **fields,
    }


def keep_scores(runtime: Runtime, config: str, tasks: Mapping[int, dict[str, Any]]) -> str:
    """Predict tasks and keep what a run keeps; returns the name of the model version."""
    version = runtime.versions.get(parse_config(config), KEY)
    listed = [{"id": number, "data": data} for number, data in tasks.items()]
    predictions = Predictor(version, runtime.embedder).predict(listed)
    runtime.prediction_log.link_images(KEY, images_of(runtime.embedder, predictions))
    runtime.prediction_log.add(KEY, logged(predictions))
    files = ScoreFiles(runtime.store)
    keeper = ScoreKeeper(files, runtime.prediction_log, KEY, version, replaces=False)
    keeper.add_predictions(predictions)
    keeper.write()
    return version.name


def connected(runtime: Runtime, studio: StubStudio) -> None:
    """Have the stand-in's project show predictions of all its tasks."""
    studio.shown = keep_scores(runtime, studio.config, studio.tasks)


def rows_of(
    runtime: Runtime, pulled: Pulled, *, pseudo: bool, version: str = ""
) -> list[ExportedTask]:
    """The rows that these approvals give."""
    scores = KeptScores(runtime.store, pulled, version, "")
    studio = LabelStudioClient(runtime.settings)
    return [*exported(studio, 1, pulled, scores, pseudo=pseudo)]


def run_export(settings: Settings, kind: Format, path: Path, **fields: Any) -> Written:
    """Export a project, the first one if not said otherwise."""
    is_table = kind in {Format.CSV, Format.PARQUET}
    given: dict[str, Any] = {
        "project": 1,
        "rows": RowsPer.LABEL if is_table else RowsPer.IMAGE,
        "states": HUMAN,
        "splits": path.with_name("splits.csv"),
        "images": kind == Format.IMAGEFOLDER,
        **fields,
    }
    asked = Request(format=kind, path=path, **given)
    return export(settings, LabelStudioClient(settings), asked, lambda what, done, total: None)
