"""Approvals that a head can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.labels.config import parse_config
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.decisions import NEGATIVE, POSITIVE, Provenance
from tests.support.builders import data_uri
from tests.support.stub_label_studio import KEY

COUNT = 30

TWO = (
    '<View><Image name="image" value="$image"/><Choices name="tags" toName="image" '
    'choice="multiple"><Choice value="cat"/><Choice value="dog"/></Choices><Choices name="more" '
    'toName="image" choice="multiple"><Choice value="x"/><Choice value="y"/></Choices></View>'
)


def approvals(states: Callable[[int], tuple[int, ...]], provenance: Provenance) -> list[Approval]:
    return [Approval(task, states(task), provenance, 1.0) for task in range(1, COUNT + 1)]


def mixed(task: int) -> tuple[int, int]:
    return (POSITIVE if task % 2 else NEGATIVE, POSITIVE if task % 3 else NEGATIVE)


def pulled(config: str, found: Mapping[str, list[Approval]]) -> Pulled:
    data = {task: {"image": data_uri(task)} for task in range(1, COUNT + 1)}
    return Pulled(KEY, parse_config(config), found, data)
