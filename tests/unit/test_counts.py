"""Sentences with a number in them read well at 0 and at 1, too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from backend.errors import counted, with_verb
from backend.labelstudio.importing import duplicates_note
from backend.projects.review import blind_sentence
from jobs.rewriting import changed_note
from tests.support.builders import ROOT
from tests.support.message_calls import called, texts

NOUNS = (
    "annotations|approvals|embeddings|files|heads|images|jobs|labels|predictions|records|reviews|"
    "rows|runs|sets|tasks|workers"
)
AFTER = re.compile(rf"^ ((?!has |have |shows |other )[a-z-]+ ){{0,2}}({NOUNS})\b(?!/)")
NEVER_ONE = {
    "backend/cli/protocol_page.py": "compared are small projects of 5 labels and more",
    "backend/inference/versions.py": "a head is trained on a dozen reviewed tasks",
    "backend/projects/review.py": "a head needs a dozen reviewed tasks",
    "backend/training/head_trainer.py": "a correction needs several labels",
    "backend/training/verdict_text.py": "what is named tasks there is a count with its noun",
    "backend/vlpl/head.py": "it tells programmers of shapes",
    "backend/vlpl/zero_shot.py": "it tells programmers of shapes",
    "backend/vlpl/fitting.py": "percentages are corrected from many tasks on",
}


def bare_counts(path: Path) -> Iterator[str]:
    """Numbers in a module's texts that a plural follows, whatever the number is."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and called(node) == "Message" and texts(node):
            yield from _bare_placeholders(node, path)
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            told = ast.unparse(value.value)
            is_fixed = told.rpartition(".")[2].isupper()
            is_number = not re.match(r"(counted|with_verb)\(", told) and "shape" not in told
            if is_number and not is_fixed and AFTER.match(str(text.value)):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {{{told}}}{text.value!s}"


def _bare_placeholders(node: ast.Call, path: Path) -> Iterator[str]:
    """The same, of the placeholders of a message that are not filled by a count with its noun."""
    values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    before = None
    for text, name, _, _ in Formatter().parse(texts(node)[0]):
        is_counted = re.match(r"(counted|with_verb)\(", values.get(before, "counted("))
        if not is_counted and AFTER.match(text):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {{{before}}}{text}"
        before = name


@pytest.mark.parametrize("package", ["backend", "jobs"])
def test_no_plural_follows_a_number_that_may_be_one(package: str):
    found = [
        line
        for path in sorted((ROOT / package).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in NEVER_ONE
        for line in bare_counts(path)
    ]
    assert found == [], "use counted() or with_verb() of backend/errors.py"


def test_the_exceptions_are_in_use():
    for name in NEVER_ONE:
        assert [*bare_counts(ROOT / name)], name


def test_a_count_agrees_with_its_noun_and_its_verb():
    assert [counted(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    told = [with_verb(number, "task", "has", "have") for number in (0, 1, 2)]
    assert told == ["no task has", "1 task has", "2 tasks have"]


def test_sentences_about_one_are_in_the_singular():
    assert duplicates_note(1, [7]).startswith("1 task has several equal predictions")
    assert changed_note([7]).startswith("1 annotated task has another image")
    assert blind_sentence(1, 30).startswith("1 of 30 tasks is shown without suggestions")
