"""What today's code makes of the inputs: labeling configs and predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.golden import adapter, cases

DATA = Path(__file__).parent / "data"
STORE = DATA / "store-v1"


def configs(_: Path) -> dict[str, Any]:
    """All labeling configs, parsed."""
    gathered: dict[str, str] = json.loads((DATA / "labeling-configs.json").read_text())
    own = {"options taxonomy": cases.TRICKY["options taxonomy"], "options": cases.OPTIONS}
    return {
        "gathered": {name: adapter.parsed_config(xml) for name, xml in gathered.items()},
        "tricky": {name: adapter.parsed_config(xml) for name, xml in cases.TRICKY.items()},
        "of tasks": {
            name: [adapter.controls_for_task(xml, data) for data in cases.OPTION_DATA]
            for name, xml in own.items()
        },
    }


def predictions(folder: Path) -> dict[str, Any]:
    """Predictions from the stored embeddings, statistics, table and heads."""
    store = adapter.copy_store(STORE, folder / "store")
    house = adapter.make_runtime(store)
    some, few = cases.tasks(*range(1, 9)), cases.tasks(9, 20, 36)
    known = [
        cases.task(1, category="cat"),
        cases.task(2, category=["coffee", "nothing", "rocket"]),
        cases.task(3, category="animal / cat"),
        cases.task(4, category=None),
        cases.task(5),
    ]
    blind = adapter.make_runtime(store, blind_share=0.5)
    strict = adapter.make_runtime(store, threshold=0.2)
    asked: dict[str, tuple[Any, ...]] = {
        "zero-shot": (house, cases.PLAIN, cases.BARE, some),
        "zero-shot of no project": (house, cases.PLAIN, "", few),
        "evidence": (house, cases.EVIDENT, cases.BARE, few),
        "statistics": (house, cases.PLAIN, cases.MEASURED, some),
        "head": (house, cases.EVIDENT, cases.TRAINED, some),
        "head without evidence": (house, cases.PLAIN, cases.TRAINED, few),
        "head that was not accepted": (house, cases.EVIDENT, cases.TRAINED, few, "h2"),
        "zero-shot beside a head": (house, cases.EVIDENT, cases.TRAINED, few, "zero-shot"),
        "head with other labels": (house, cases.CHANGED, cases.TRAINED, few),
        "known labels": (house, cases.EVIDENT, cases.KNOWN, known),
        "known labels of two controls": (house, cases.TWO, cases.KNOWN, known),
        "blind": (blind, cases.EVIDENT, cases.MEASURED, some),
        "blind with a head": (blind, cases.EVIDENT, cases.TRAINED, some),
        "threshold of the settings": (strict, cases.EVIDENT, cases.TRAINED, few),
        "thresholds": (house, cases.THRESHOLDS, cases.BARE, few),
        "options": (house, cases.OPTIONS, cases.BARE, cases.OPTION_TASKS),
        "two controls": (house, cases.TWO, cases.BARE, few),
        "follow-up": (house, cases.FOLLOWED_UP, cases.BARE, some),
        "single": (house, cases.SINGLE, cases.MEASURED, few),
        "taxonomy": (house, cases.view(cases.TAXONOMY), cases.BARE, few),
        "nothing for us": (house, "<View/>", cases.BARE, few),
        "odd tasks": (house, cases.PLAIN, cases.BARE, cases.ODD_TASKS),
        "odd tasks of two controls": (house, cases.TWO, cases.TRAINED, cases.ODD_TASKS),
        "no tasks": (house, cases.PLAIN, cases.BARE, []),
    }
    found: dict[str, Any] = {name: adapter.predict(*what) for name, what in asked.items()}
    bare = adapter.copy_store(STORE, folder / "bare")
    shutil.rmtree(bare / "tables")
    shipped = adapter.make_runtime(bare)
    found["shipped table"] = adapter.predict(shipped, cases.EVIDENT, cases.TRAINED, few)
    found["versions"] = {
        f"{key} {name}": adapter.version(house, xml, key)
        for key in (cases.TRAINED, cases.MEASURED, cases.BARE, cases.KNOWN, "", "../x")
        for name, xml in (("plain", cases.PLAIN), ("two", cases.TWO), ("none", "<View/>"))
    }
    return found
