"""What ``ls-clip heads`` says of heads: verdicts, clicks, and figures of each label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from backend.vlpl.clicks import Clicks
from backend.vlpl.label_figures import LabelFigures, Source
from jobs.training_state import Outcome, TrainingStore
from tests.support.builders import make_settings
from tests.support.fixtures import Cli
from tests.support.heads import head_set, judged_set
from tests.support.stub_label_studio import KEY

COSTING = Clicks(30, 2.2, (1.9, 2.5), 1.0, -1.2, (-1.5, -0.9), 0.9)
SAVING = Clicks(42, 1.9, (1.6, 2.2), 2.7, 0.8, (0.5, 1.1))
FIGURES = (
    LabelFigures("cat", 40, 6, Source.JUDGED, 0.71, 0.5, 0.834),
    LabelFigures("dog", 12, 1, Source.CROSS_VALIDATION, 0.3, None, 0.0, missing=2),
    LabelFigures("pig", 1, 0, Source.NONE, missing=2),
)


@pytest.fixture
def heads(tmp_path: Path) -> HeadRegistry:
    return HeadRegistry(open_store(make_settings(tmp_path / "store")))


def words(said: str) -> str:
    return " ".join(said.split())


def test_each_head_says_what_it_costs_and_the_one_in_use_what_will_change_that(
    cli: Cli, heads: HeadRegistry, connection: Redis
):
    heads.save(KEY, judged_set("h1", SAVING, *FIGURES))
    heads.save(KEY, judged_set("h2", COSTING, *FIGURES))
    heads.set_serving(KEY, "h2")
    TrainingStore(connection).note(1, pending=3)
    code, said = cli("heads", "1", COLUMNS="80")
    assert code == 0
    rows = said.splitlines()
    assert words(rows[0]) == "head in use made (UTC) reviewed judged mAP (before) clicks verdict"
    assert words(rows[1]) == "h1 2026-11-25 10:00 40 42 41.2 (38.1) 1.9 accepted"
    assert words(rows[2]) == "h2 yes 2026-11-25 10:00 40 42 41.2 (38.1) 2.2 accepted"
    assert "Clicks a task: 1.9 (1.6 to 2.2) with suggestions, 2.7 from nothing." in words(said)
    assert (
        "At present suggestions cost more clicks than they save (2.2 a task against 1.0). The next "
        "head, which about 9 more reviewed tasks train, should correct that; until then, "
        "LS_CLIP_THRESHOLD=0.9 shows fewer."
    ) in words(said)
    found = json.loads(cli("heads", "1", "--json")[1])
    assert [head["clicks"]["per_task"] for head in found["heads"]] == [1.9, 2.2]


def test_heads_without_clicks_say_whether_they_were_recorded(cli: Cli, heads: HeadRegistry):
    heads.save(KEY, head_set("h1"))
    heads.save(KEY, judged_set("h2", None, *FIGURES))
    said = words(cli("heads", "1")[1])
    assert "Clicks a task: not recorded, an earlier release made this head." in said
    assert "Clicks a task: not measured, no held-out task was reviewed." in said


def test_labels_are_listed_with_their_support_and_what_is_missing(cli: Cli, heads: HeadRegistry):
    heads.save(KEY, judged_set("h1", SAVING, *FIGURES))
    code, said = cli("heads", "1", "--labels", COLUMNS="100")
    assert code == 0
    title, columns, cat, dog, pig, *_ = said.splitlines()
    assert title == "h1, not in use"
    assert words(columns) == "label reviewed judged AP precision recall measured on missing"
    assert words(cat) == "cat 40 6 71 50 83 judged tasks"
    assert words(dog) == "dog 12 1 30 – 0 cross-validation 2 more judged positives"
    assert words(pig) == "pig 1 0 – – – 2 more positives"
    assert "reviewed: reviewed tasks with the label" in said


def test_labels_of_another_head_and_as_json(cli: Cli, heads: HeadRegistry):
    heads.save(KEY, judged_set("h1", SAVING, *FIGURES))
    heads.save(KEY, judged_set("h2", SAVING, *FIGURES[:1]))
    heads.set_serving(KEY, "h2")
    found = json.loads(cli("heads", "1", "--labels", "h1", "--json")[1])
    assert (found["head"], found["in_use"], found["recorded"]) == ("h1", False, True)
    assert [LabelFigures.from_dict(one) for one in found["controls"]["tags"]] == [*FIGURES]
    own = json.loads(cli("heads", "1", "--labels", "--json")[1])
    assert (own["head"], own["in_use"], len(own["controls"]["tags"])) == ("h2", True, 1)


def test_labels_of_a_head_of_an_earlier_release_were_not_recorded(cli: Cli, heads: HeadRegistry):
    heads.save(KEY, head_set("h1"))
    code, said = cli("heads", "1", "--labels")
    assert code == 0 and "not recorded" in said
    found = json.loads(cli("heads", "1", "--labels", "--json")[1])
    assert (found["recorded"], found["controls"]) == (False, {})


def test_labels_of_no_head_say_what_is_missing(cli: Cli, heads: HeadRegistry):
    code, said = cli("heads", "1", "--labels")
    assert code == 1 and "no head" in said and "trained on 12 of them" in words(said)
    code, said = cli("heads", "1", "--labels", "h7")
    assert code == 1 and "no head 'h7'" in said
    code, said = cli("heads", "1", "h7")
    assert code == 1 and "--labels h7" in words(said)


@pytest.mark.parametrize(
    ("outcome", "told", "kept_back"),
    [(Outcome.ACCEPTED, "1.9 (1.6", "cost more"), (Outcome.REJECTED, "cost more", "1.9 (1.6")],
)
def test_a_training_says_what_its_outcome_costs_people(
    cli: Cli, connection: Redis, outcome: Outcome, told: str, kept_back: str
):
    """Those of the new head where it comes into use, else those of what stays in use."""
    TrainingStore(connection).end(
        1,
        outcome,
        "why",
        head="h1",
        clicks=SAVING.as_dict(),
        serving_clicks=COSTING.as_dict(),
    )
    said = words(cli("heads", "1")[1])
    assert told in said and kept_back not in said


def test_the_map_of_a_handful_of_tasks_is_not_shown(cli: Cli, heads: HeadRegistry):
    few = judged_set("h1", None, *FIGURES)
    heads.save(KEY, replace(few, metrics={**few.metrics, "judged": 6.0}))
    row = words(cli("heads", "1")[1].splitlines()[1])
    assert row == "h1 2026-11-25 10:00 40 6 accepted"
