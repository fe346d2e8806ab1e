"""The tables of attributes in docs/labels.md and docs/ja/labels.md, from the code that knows them.

``python -m tests.support.attribute_table`` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from backend.labels.attributes import ATTRIBUTES, Answer
from tests.support.attribute_meanings import JAPANESE_ANSWERS, JAPANESE_MEANINGS
from tests.support.builders import ROOT

BEGIN, END = "<!-- attributes: begin -->\n", "<!-- attributes: end -->\n"


@dataclass(frozen=True)
class TablePage:
    """A page that holds the table, and the words of its language.

    Attributes:
        path: the page.
        summary: the sentence above the table, with places for the counts.
        head: the names of the columns.
        comma: what stands between two names of attributes.
        answers: what the table calls each answer.
        meanings: English meaning -> that of the page.
    """

    path: Path
    summary: str
    head: tuple[str, str, str, str]
    comma: str
    answers: Mapping[Answer, str]
    meanings: Mapping[str, str]

    def table(self) -> str:
        """A Markdown table: of each tag the attributes with one answer and meaning in one row."""
        counts = {
            answer.name.lower(): sum(one.answer is answer for one in ATTRIBUTES)
            for answer in Answer
        }
        lines = [
            self.summary.format(attributes=len(ATTRIBUTES), **counts),
            "",
            f"| {' | '.join(self.head)} |",
            "| --- | --- | --- | --- |",
        ]
        rows = groupby(ATTRIBUTES, key=lambda one: (one.tag, one.answer, one.meaning))
        for (tag, answer, meaning), group in rows:
            names = self.comma.join(f"`{one.name}`" for one in group)
            escaped = self.meanings[meaning].replace("<", "&lt;").replace("|", "\\|")
            lines.append(f"| {tag} | {names} | {self.answers[answer]} | {escaped} |")
        return "\n".join([*lines, ""])

    def with_table(self, text: str) -> str:
        """The text of the page with today's table between its marks."""
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        return f"{before}{BEGIN}{self.table()}{END}{after}"


ENGLISH = TablePage(
    path=ROOT / "docs" / "labels.md",
    summary=(
        "Of {attributes} attributes {honoured} are honoured, {left_out} leave a control out, and "
        "{no_effect} have no effect on predictions."
    ),
    head=("tag", "attribute", "answer", "what that means"),
    comma=", ",
    answers={answer: answer.value for answer in Answer},
    meanings={one.meaning: one.meaning for one in ATTRIBUTES},
)
JAPANESE = TablePage(
    path=ROOT / "docs" / "ja" / "labels.md",
    summary=(
        "{attributes} 個の属性のうち、{honoured} 個は反映され、"
        "{left_out} 個はコントロールを対象外にし、{no_effect} 個は予測に影響しません。"
    ),
    head=("タグ", "属性", "扱い", "意味"),
    comma="、",
    answers=JAPANESE_ANSWERS,
    meanings=JAPANESE_MEANINGS,
)
TABLE_PAGES = (ENGLISH, JAPANESE)


if __name__ == "__main__":
    for page in TABLE_PAGES:
        page.path.write_text(page.with_table(page.path.read_text()))
