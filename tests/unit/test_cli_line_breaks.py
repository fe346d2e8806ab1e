"""Lines of Japanese text on a terminal."""

from __future__ import annotations

from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.text import Text

from backend.cli.line_breaks import flowing

TEXT = (
    "チェックの付くラベル: 1 タスクあたり 0.00 件。プロジェクトのタブ「next 25」には、これまでに"
    "確認したものと似ていない画像のタスクがあります(docs/ja/training.md を参照)。"
    "ls-clip connect 5 をもう一度実行してください。"
)


@pytest.mark.parametrize("width", range(30, 100, 7))
def test_lines_are_filled_and_torn_nowhere_that_hurts(width: int):
    lines = flowing(Text(TEXT), width).plain.split("\n")
    assert "".join("".join(lines).split()) == "".join(TEXT.split())
    assert all(cell_len(line) <= width for line in lines)
    for line, after in pairwise(lines):
        assert after[0] not in "、。)」:,." and line[-1] not in "(「"
        # No line is left half empty but where a path would not fit.
        assert cell_len(line) + len("(docs/ja/training.md") + 2 > width
    for whole in ("docs/ja/training.md", "0.00 件"):
        assert any(whole in line for line in lines)


def test_styles_stay_where_they_were():
    text = Text("エラー: ", "red").append("画像を読み込めませんでした。" * 4, "bold")
    lines = flowing(text, 24)
    assert {(lines.plain[span.start : span.end][:3], span.style) for span in lines.spans} >= {
        ("エラー", "red")
    }
    assert flowing(Text(""), 10).plain == ""


def test_what_is_wider_than_a_line_stays_in_one_piece():
    path = "/srv/photos/" + "x" * 50
    assert path in flowing(Text(f"ファイル {path} がありません。"), 30).plain
