"""What is on a terminal's screen after a program has written to it."""

from __future__ import annotations

import re

_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


def screen(written: str) -> list[str]:
    """The lines of the screen, which is as long as it needs to be.

    Args:
        written: with the codes that move the cursor up and erase lines; colours are left out.
    """
    lines, row, column = [""], 0, 0
    for match in _CODE.finditer(written):
        text, count, kind = match.group(0), match.group(1), match.group(2)
        if text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif kind == "A":
            row = max(0, row - int(count or 1))
        elif kind == "K":
            lines[row] = "" if count == "2" else lines[row][:column]
        elif kind is None:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in lines]
