"""The table of attributes in docs/labels.md, from the place in the code that knows them.

``python -m tests.support.attribute_table`` writes it.
"""

from __future__ import annotations

from itertools import groupby

from backend.labels.attributes import ATTRIBUTES, Answer
from tests.support.builders import ROOT

PAGE = ROOT / "docs" / "labels.md"
BEGIN, END = "<!-- attributes: begin -->\n", "<!-- attributes: end -->\n"


def attribute_table() -> str:
    """A Markdown table: of each tag the attributes with one answer and one meaning in one row."""
    counts = {answer: sum(one.answer is answer for one in ATTRIBUTES) for answer in Answer}
    lines = [
        f"Of {len(ATTRIBUTES)} attributes {counts[Answer.HONOURED]} are honoured, "
        f"{counts[Answer.LEFT_OUT]} leave a control out, and {counts[Answer.NO_EFFECT]} have no "
        "effect on predictions.",
        "",
        "| tag | attribute | answer | what that means |",
        "| --- | --- | --- | --- |",
    ]
    rows = groupby(ATTRIBUTES, key=lambda one: (one.tag, one.answer, one.meaning))
    for (tag, answer, meaning), group in rows:
        names = ", ".join(f"`{one.name}`" for one in group)
        escaped = meaning.replace("<", "&lt;").replace("|", "\\|")
        lines.append(f"| {tag} | {names} | {answer} | {escaped} |")
    return "\n".join([*lines, ""])


def page_with_table(text: str) -> str:
    """The page with today's table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{attribute_table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
