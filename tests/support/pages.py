"""The pages of the documentation, read as Markdown."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.builders import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
TRANSLATIONS = {ROOT / "README.md": ROOT / "README.ja.md"} | {
    DOCS / page.name: page for page in sorted((DOCS / "ja").glob("*.md"))
}
"""English page -> Japanese page."""


def relative(path: Path) -> str:
    """A page's name in the ids and messages of tests."""
    return str(path.relative_to(ROOT))


@dataclass
class Section:
    """A heading and what stands below it, down to the next one.

    Attributes:
        heading: the heading's text; empty for what stands above the first one.
        level: 1 to 6; 0 above the first heading.
        blocks: the contents of code blocks, fenced or indented.
        spans: what is written as code within a line.
        links: targets of links and images.
        rows: of tables, the cells of each row as they are written; heads are rows.
        parts: how many paragraphs and list items there are, by the parser's names for them.
        text: everything else that is read, a line for each line of the page.
    """

    heading: str = ""
    level: int = 0
    blocks: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)
    text: str = ""

    @property
    def anchor(self) -> str:
        """The heading's anchor, as the hosting platforms derive it."""
        return re.sub(r"[^\w\- ]", "", self.heading.lower()).replace(" ", "-")

    def take(self, token: Token) -> None:
        """Add what a token of the page, or of a line of it, contributes."""
        if token.type in {"fence", "code_block"}:
            self.blocks.append(token.content)
        elif token.type == "tr_open":
            self.rows.append([])
        elif token.type == "code_inline":
            self.spans.append(token.content)
        elif token.type in {"link_open", "image"}:
            self.links.append(unquote(str(token.attrs.get("href") or token.attrs["src"])))
        elif token.type in {"paragraph_open", "list_item_open"}:
            self.parts[token.type] += 1
        elif token.type == "text":
            self.text += token.content
        elif token.type == "softbreak":
            self.text += "\n"
        for child in token.children or []:
            self.take(child)
        if token.type == "inline":
            self.text += "\n\n"


def sections(page: Path) -> list[Section]:
    """A page's sections in order; the first holds what stands above the first heading."""
    found = [Section()]
    before = ""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        if before == "heading_open":
            found[-1].heading = token.content
        elif token.type == "heading_open":
            found.append(Section(level=int(token.tag.removeprefix("h"))))
        elif before in {"th_open", "td_open"}:
            found[-1].rows[-1].append(token.content)
        found[-1].take(token)
        before = token.type
    return found


def links(page: Path) -> list[str]:
    """Link targets of a page, images included, code left out."""
    return [link for section in sections(page) for link in section.links]


def anchors(page: Path) -> list[str]:
    """Anchors of a page's headings in order."""
    return [section.anchor for section in sections(page) if section.level]
