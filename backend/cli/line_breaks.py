"""Lines of Japanese text on a terminal: they may end after most characters, not only at spaces.

No line begins with a closing mark or ends with an opening one (https://www.w3.org/TR/jlreq/,
3.1.7 and 3.1.8), and no path, command or number with its counter is torn apart.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.text import Text

_OPENING = "(「『【〈《〔“"
_CLOSING = ")」』】〉》〕”、。,.・:;!?ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ々%"
_UNIT = re.compile(
    rf"[{_OPENING}]*(?:\d[\d.,]* ?[件枚回個点秒分日割つ]|[!-~]+|\S)[{_CLOSING}]*\s*|\s+"
)


def flowing(text: Text, width: int) -> Text:
    """The text with its lines filled.

    Args:
        text: may have styles.
        width: of a line, in cells; wide characters take two.
    """
    starts: list[int] = []
    used = 0
    for unit in _UNIT.finditer(text.plain):
        needed = cell_len(unit.group().rstrip())
        if used and used + needed > width:
            starts.append(unit.start())
            used = 0
        used += cell_len(unit.group())
    lines = text.divide(starts)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)
