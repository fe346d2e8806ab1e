"""Labels that are renamed, merged, split or removed in mid-project."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.cli.labels import print_renames
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.projects.renaming import ProbableRename, notice
from backend.runtime import Runtime
from backend.storage.label_history import Rename as Stored
from backend.storage.project_state import ProjectState
from tests.support.builders import choices_config, data_uri
from tests.support.renames import Labels, Pulled, Rename
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio


def annotate(studio: StubStudio, task: int, when: str, *names: str, control: str = "tags") -> None:
    item = {"from_name": control, "to_name": "image", "type": "choices"}
    annotation = {
        "id": task,
        "result": [{**item, "value": {"choices": list(names)}}],
        "was_cancelled": False,
        "completed_by": 1,
        "lead_time": 3.0,
        "parent_prediction": None,
        "created_at": when,
        "updated_at": when,
    }
    studio.tasks[task] = {"image": data_uri(task)}
    studio.annotations[task] = [annotation]


BEFORE, LATER = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


def test_a_probable_rename_is_noticed_until_somebody_decides(
    labels: Labels, client: LabelStudioClient, runtime: Runtime, go: Rename
):
    labels("cat", "dog", "tree")
    labels("cat", "hound", "tree")
    found = notice(client, runtime.store, PROJECT)
    assert found == [ProbableRename(PROJECT, "tags", "dog", "hound")]
    assert found[0].command == "ls-clip rename 1 dog hound"
    go("dog", "hound")
    assert notice(client, runtime.store, PROJECT) == []


@pytest.mark.parametrize(
    ("new", "word"),
    [("hot dog", '"hot dog"'), ('5" nail', "'5\" nail'"), ("$x", "'$x'"), ("犬", "犬")],
)
def test_the_command_can_be_pasted(new: str, word: str):
    assert ProbableRename(1, "tags", "dog", new).command == f"ls-clip rename 1 dog {word}"
    dashed = ProbableRename(1, "tags", "dog", "-none").command
    assert dashed == "ls-clip rename -- 1 dog -none"


def test_what_is_no_rename_is_not_asked_again(
    labels: Labels, client: LabelStudioClient, runtime: Runtime
):
    labels("cat", "dog", "tree")
    labels("cat", "bus", "tree")
    ProjectState(runtime.store, KEY).settle("tags", "dog")
    assert notice(client, runtime.store, PROJECT) == []


@pytest.mark.parametrize(
    "after",
    [("cat", "tree"), ("cat", "dog", "tree", "hound"), ("cat", "tree", "hound"), ("x", "y", "z")],
    ids=["removed", "added", "elsewhere", "all others"],
)
def test_other_changes_are_no_probable_rename(
    after: tuple[str, ...], labels: Labels, client: LabelStudioClient, runtime: Runtime
):
    labels("cat", "dog", "tree")
    labels(*after)
    assert notice(client, runtime.store, PROJECT) == []


def test_approvals_count_under_the_new_name_and_the_old_one_is_forgiven(
    labels: Labels, studio: StubStudio, go: Rename, pulled: Pulled
):
    labels("cat", "dog")
    annotate(studio, 1, BEFORE, "dog")
    annotate(studio, 2, BEFORE, "cat")
    labels("cat", "hound")
    assert [item.states for item in pulled()["tags"]] == [(-1, 0), (1, 0)]
    done = go("dog", "hound")
    assert (done.control, done.is_undo, done.is_merge) == ("tags", False, False)
    assert [item.states for item in pulled()["tags"]] == [(-1, 1), (1, -1)]
    # In Label Studio nothing was changed.
    assert not [call for call in studio.calls if call[0] != "GET"]
    done = go("hound", "dog")
    assert done.is_undo
    assert [item.states for item in pulled()["tags"]] == [(-1, 0), (1, 0)]


def test_renames_follow_each_other_and_are_taken_back_one_by_one(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename, pulled: Pulled
):
    labels("cat", "a")
    annotate(studio, 1, BEFORE, "a")
    labels("cat", "b")
    go("a", "b")
    labels("cat", "c")
    go("b", "c")
    assert [item.states for item in pulled()["tags"]] == [(-1, 1)]
    with pytest.raises(SettingsError, match="circle"):
        go("c", "a")
    go("c", "b")
    go("b", "a")
    assert ProjectState(runtime.store, KEY).renames() == {}


def test_who_renames_the_label_back_in_the_config_renames_it_back(
    labels: Labels, studio: StubStudio, go: Rename, pulled: Pulled
):
    labels("cat", "a")
    annotate(studio, 1, BEFORE, "a")
    labels("cat", "b")
    go("a", "b")
    annotate(studio, 2, BEFORE, "b")
    labels("cat", "a")
    assert not go("b", "a").is_undo
    assert [item.states for item in pulled()["tags"]] == [(-1, 1), (-1, 1)]


def test_a_label_is_merged_into_another_one_from_when_both_were_there(
    labels: Labels, studio: StubStudio, go: Rename, pulled: Pulled
):
    labels("cat", "dog")
    annotate(studio, 1, BEFORE, "dog")
    annotate(studio, 2, BEFORE, "cat")
    labels("cat", "dog", "hound")
    annotate(studio, 3, LATER, "cat")
    annotate(studio, 4, LATER, "hound")
    labels("cat", "hound")
    assert go("dog", "hound").is_merge
    states = [item.states for item in pulled()["tags"]]
    # Nobody asked about hounds when the second task was reviewed.
    assert states == [(-1, 1), (1, 0), (1, -1), (-1, 1)]


def test_a_label_that_was_split_or_removed_says_nothing_of_the_new_ones(
    labels: Labels, studio: StubStudio, pulled: Pulled
):
    labels("cat", "dog")
    annotate(studio, 1, BEFORE, "dog")
    annotate(studio, 2, BEFORE, "cat")
    labels("cat", "poodle", "terrier")
    assert [item.states for item in pulled()["tags"]] == [(-1, 0, 0), (1, 0, 0)]


def test_a_question_that_is_asked_of_more_tasks_is_not_absent_where_it_was_not_asked(
    studio: StubStudio, pulled: Pulled
):
    question = (
        '<View{}><Choices name="more" toName="image"><Choice value="street"/></Choices></View>'
    )
    condition = ' visibleWhen="choice-selected" whenTagName="tags" whenChoiceValue="dog"'
    studio.config = choices_config("cat", "dog", extra=question.format(condition))
    annotate(studio, 1, BEFORE, "cat")
    annotate(studio, 2, BEFORE, "dog")
    approvals = pulled()["more"]
    assert [(item.task, item.states) for item in approvals] == [(2, (-1,))]
    studio.config = choices_config("cat", "dog", extra=question.format(""))
    assert pulled()["more"] == []


@pytest.mark.parametrize(
    ("old", "new", "control", "message", "fix"),
    [
        ("dog", "dog", None, "itself", "new name"),
        ("dog", "wolf", None, "no label 'wolf'", "hound"),
        ("wolf", "hound", None, "'wolf'", "Former labels: dog"),
        ("cat", "hound", None, "still a label", "Remove it"),
        ("dog", "hound", "less", "no control 'less'", "tags, more"),
        ("gone", "cat", None, "Several controls", "--control"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_fix(
    old: str,
    new: str,
    control: str | None,
    message: str,
    fix: str,
    labels: Labels,
    go: Rename,
    runtime: Runtime,
):
    labels("cat", "dog", "gone", more=("cat", "gone"))
    labels("cat", "hound", more=("cat",))
    with pytest.raises(SettingsError) as refused:
        go(old, new, control)
    assert message in refused.value.message
    assert fix in refused.value.fix
    assert ProjectState(runtime.store, KEY).renames() == {}


def test_labels_with_line_breaks_are_listed_in_one_line(labels: Labels, go: Rename, capsys: Any):
    labels("traffic&#10;light", "cat")
    labels("traffic&#13;lamp", "cat")
    with pytest.raises(SettingsError) as refused:
        go("traffic\nlight", "wolf")
    assert r"The labels are: traffic\rlamp, cat." in refused.value.fix
    with pytest.raises(SettingsError) as refused:
        go("wolf", "cat")
    assert r"Former labels: traffic\nlight." in refused.value.fix
    print_renames({"tags": {"traffic\nlight": "traffic\u2028lamp"}})
    said = " ".join(capsys.readouterr().err.split())
    assert r"traffic\nlight is understood as traffic\u2028lamp" in said


def test_the_control_is_named_where_several_have_the_label(
    labels: Labels, runtime: Runtime, go: Rename
):
    labels("cat", "kitty", more=("cat", "pussy"))
    labels("cat", more=("cat",))
    # Only one of them had it.
    assert go("kitty", "cat").control == "tags"
    assert go("pussy", "cat", "more").control == "more"
    assert ProjectState(runtime.store, KEY).former_names() == {
        "tags": {"kitty": "cat"},
        "more": {"pussy": "cat"},
    }


def test_a_name_that_only_annotations_or_task_data_have_can_be_renamed(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename
):
    labels("cat", "hound")
    with pytest.raises(SettingsError):
        go("dog", "hound")
    annotate(studio, 1, BEFORE, "dog")
    assert go("dog", "hound").control == "tags"
    ProjectState(runtime.store, KEY).set_known_field("category")
    studio.tasks[2] = {"image": data_uri(2), "category": ["wolf", "cat"]}
    assert go("wolf", "hound").control == "tags"


def test_of_two_renames_in_the_same_moment_none_is_lost(
    labels: Labels, runtime: Runtime, go: Rename, monkeypatch: pytest.MonkeyPatch
):
    labels("cat", "dog", "tree")
    labels("kitten", "hound", "tree")
    read = ProjectState.renames

    def slowly(state: ProjectState) -> dict[str, list[Stored]]:
        found = read(state)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(ProjectState, "renames", slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(go, ("cat", "dog"), ("kitten", "hound")))
    former = ProjectState(runtime.store, KEY).former_names()
    assert former == {"tags": {"cat": "kitten", "dog": "hound"}}
