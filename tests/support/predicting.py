"""Predictions of a runtime, as the server makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.runtime import Runtime

PROJECT = "1.1795416973"
NO_IMAGE = {"id": 90, "data": {"image": "data:image/png;base64,AAAA"}}
"""A task whose image cannot be decoded."""


def predict(
    runtime: Runtime, config: str, tasks: Sequence[Mapping[str, Any]], project: str = PROJECT
) -> list[Any]:
    """Predictions of the version that serves; `Prediction` objects without their None checks."""
    version = runtime.versions.get(parse_config(config), project)
    return [*Predictor(version, runtime.embedder).predict(tasks)]


def items(predictions: Sequence[Prediction]) -> str:
    """What Label Studio would be told, to the byte."""
    return json.dumps([prediction.as_item() for prediction in predictions])


def version(runtime: Runtime, config: str, project: str = PROJECT) -> str:
    """The name of the version that serves."""
    return runtime.versions.get(parse_config(config), project).name
