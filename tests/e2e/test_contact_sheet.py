"""The page of ``ls-clip suggest --html`` in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.cli.contact_sheet import contact_sheet
from backend.inference.suggestion import Suggestion, Suggestions
from backend.messages.catalogue import Language


@pytest.mark.parametrize(("width", "columns"), [(360, 2), (420, 2), (1280, 5)])
def test_a_narrow_window_shows_two_images_in_a_row(
    width: int, columns: int, chromium: Any, tmp_path: Path
):
    suggestions = [
        Suggestion(f"folder/IMG_{number:04}.JPG", ["dog"], {"dog": 0.9}) for number in range(9)
    ]
    sheet = contact_sheet(Suggestions(suggestions, ("dog",), 0.5, "offline"), Language.ENGLISH)
    (tmp_path / "page.html").write_text(sheet, "utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    tracks = page.evaluate(
        "getComputedStyle(document.querySelector('.images')).gridTemplateColumns"
    )
    assert len(tracks.split()) == columns
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
