"""The Japanese pages say what the English ones say, and do not lag behind them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.labels.attributes import ATTRIBUTES
from tests.support.attribute_meanings import JAPANESE_MEANINGS
from tests.support.builders import ROOT
from tests.support.pages import DOCS, TRANSLATIONS, Section, anchors, links, relative, sections

JAPANESE_PAGES = sorted(TRANSLATIONS.values())
SAME_PAGES = pytest.mark.parametrize(
    ("english", "japanese"),
    TRANSLATIONS.items(),
    ids=[relative(japanese) for japanese in TRANSLATIONS.values()],
)
NOT_OUR_WORDS = {
    "私設アドレス": "プライベートアドレス",
    "合言葉": "シークレット",
    "代用品": "代替",
    "切り離し方": "接続解除",
}


def pairs(english: Path, japanese: Path) -> list[tuple[Section, Section]]:
    """Sections of a page beside those of its translation."""
    return list(zip(sections(english), sections(japanese), strict=True))


def figures(text: str) -> set[str]:
    """Numbers that are written as digits."""
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


def targets(page: Path, section: Section) -> list[tuple[str, str]]:
    """What a section links, as page and anchor, in the words of the Japanese pages.

    Links from one language to the other, which only one of the two pages has, are left out.
    """
    found = []
    for link in section.links:
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            found.append((link, ""))
            continue
        target = (page.parent / path).resolve() if path else page
        english_page = page in TRANSLATIONS
        if target in (TRANSLATIONS.values() if english_page else TRANSLATIONS):
            continue
        if target in TRANSLATIONS and anchor:
            anchor = anchors(TRANSLATIONS[target])[anchors(target).index(anchor)]
        found.append((relative(TRANSLATIONS.get(target, target)), anchor))
    return sorted(found)


@SAME_PAGES
def test_headings_correspond(english: Path, japanese: Path):
    theirs, ours = sections(english), sections(japanese)
    assert [section.level for section in ours] == [section.level for section in theirs]
    for section in ours[1:]:
        # The README's heading is the name of the project.
        translated = re.search(r"[ぁ-んァ-ヶ一-龠]", section.heading)
        assert translated or section.heading == "label-studio-clip", section.heading


@SAME_PAGES
def test_no_paragraph_or_list_item_is_missing(english: Path, japanese: Path):
    for theirs, ours in pairs(english, japanese):
        # The Japanese pages explain here and there what an English example says.
        assert theirs.parts - ours.parts == {}, ours.heading


@SAME_PAGES
def test_code_blocks_and_what_is_written_as_code_are_the_same(english: Path, japanese: Path):
    for theirs, ours in pairs(english, japanese):
        assert ours.blocks == theirs.blocks, ours.heading
        assert set(ours.spans) == set(theirs.spans), ours.heading


@SAME_PAGES
def test_tables_have_the_same_rows_and_figures(english: Path, japanese: Path):
    for theirs, ours in pairs(english, japanese):
        assert len(ours.rows) == len(theirs.rows), ours.heading
        for their_row, our_row in zip(theirs.rows, ours.rows, strict=True):
            assert len(our_row) == len(their_row), our_row
            for their_cell, our_cell in zip(their_row, our_row, strict=True):
                if not re.search(r"[^\W\d_]", their_cell):
                    assert our_cell == their_cell, our_row


@SAME_PAGES
def test_figures_of_the_text_are_the_same(english: Path, japanese: Path):
    for theirs, ours in pairs(english, japanese):
        assert figures(theirs.text) - figures(ours.text) == set(), ours.heading


@SAME_PAGES
def test_links_lead_to_the_japanese_page_where_there_is_one(english: Path, japanese: Path):
    for theirs, ours in pairs(english, japanese):
        assert targets(japanese, ours) == targets(english, theirs), ours.heading


@SAME_PAGES
def test_each_page_links_its_translation(english: Path, japanese: Path):
    for page, other in ((english, japanese), (japanese, english)):
        assert other in [(page.parent / link).resolve() for link in links(page)]


def test_both_indexes_link_every_japanese_page():
    for index in (DOCS / "index.md", DOCS / "ja" / "index.md"):
        linked = {(index.parent / link).resolve() for link in links(index)}
        assert set((DOCS / "ja").glob("*.md")) - {index} <= linked


@pytest.mark.parametrize("page", JAPANESE_PAGES, ids=relative)
def test_emphasis_and_line_breaks_read_well(page: Path):
    for section in sections(page):
        # Between two Japanese letters, asterisks after a full stop are not taken for emphasis.
        assert "**" not in section.text
        # A line break within a sentence is shown as a space.
        assert re.findall(r"[^\x00-\x7f。]\n[^\x00-\x7f]", section.text) == []


@pytest.mark.parametrize("word", NOT_OUR_WORDS)
def test_words_that_nobody_says_do_not_come_back(word: str):
    files = [*ROOT.glob("*.md")]
    for folder in ("backend", "docs", "jobs", "plugin_config"):
        found = (ROOT / folder).rglob("*")
        files += [path for path in found if path.is_file() and path.suffix != ".pyc"]
    for path in files:
        if word.encode() in path.read_bytes():
            pytest.fail(f"{relative(path)}: {NOT_OUR_WORDS[word]} instead of {word}")


def test_every_meaning_of_an_attribute_has_its_translation():
    assert set(JAPANESE_MEANINGS) == {one.meaning for one in ATTRIBUTES}
