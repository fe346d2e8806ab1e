"""Text files of other programs: encodings, errors, and how little of them is shown."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any, TextIO

from backend.errors import SettingsError

MAX_LINE = 100_000_000
"""Characters of a line; a cell may hold an image as a data: URI."""
FIRST_ROW = 2
"""Number of the first row below the header of a table, as a spreadsheet counts."""
MAX_JSON_BYTES = 2_000_000_000
SHOWN = 60
"""Characters of one name or value that a message shows."""
SHOWN_TOGETHER = 160
"""Characters of a file that a message shows in all."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MAIL = re.compile(r"[^\s@,;:\"'<>()]+@[^\s@,;:\"'<>()]+")


def user_path(text: str) -> Path:
    """A path that a person gave; ``~`` stands for the home folder, where it means one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # It begins with ~ and is followed by no user's name.
        return Path(text)


def shortened(text: str) -> str:
    """A name or a value from a file, fit for a message: one short line without mail addresses."""
    # More would be masked for nothing.
    plain = _MAIL.sub("…@…", " ".join(text[: 4 * SHOWN].split()))
    plain = "".join(character if character.isprintable() else "�" for character in plain)
    return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def listed(texts: Iterable[str]) -> str:
    """Names or values from a file, fit for a message, as many as there is room for."""
    names = [shortened(text) for text in texts]
    room, shown = SHOWN_TOGETHER, 0
    for name in names:
        room -= len(name) + 2
        if room < 0:
            break
        shown += 1
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest else "")


@contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """Open a text file for reading, line ends as they are.

    Args:
        path: of the file.
        encoding: of the file; None: UTF-8, or UTF-16 with a mark.

    Raises:
        SettingsError: the file cannot be read, now or later, or is not a text of this encoding.
    """
    chosen = encoding or "utf-8"
    try:
        "".encode(chosen)
    except LookupError as error:
        raise SettingsError(
            f"--encoding {shortened(chosen)!r} is not known.",
            "Give utf-8, cp932, cp1252 or latin-1.",
        ) from error
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if encoding is None:
            marks = (name for mark, name in _MARKS.items() if start.startswith(mark))
            chosen = next(marks, chosen)
        with path.open(newline="", encoding=chosen) as text:
            yield text
    except FileNotFoundError as error:
        raise SettingsError(f"There is no file {path}.", "Give the path of a file.") from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.", "Give yourself access to it."
        ) from error
    except UnicodeError as error:
        raise SettingsError(
            f"{path} is not a text file in {chosen.upper()}.",
            "Give a text file in UTF-8 (Excel: save as CSV UTF-8; a ZIP file: unpack it), or name "
            "its encoding: --encoding cp932 for a Japanese Excel, cp1252 for a Western one.",
        ) from error


def lines_of(path: Path, text: TextIO) -> Iterator[str]:
    """The lines of a text, line ends included.

    Raises:
        SettingsError: a line is too long, or holds what no text does.
    """
    number = 0
    while line := text.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise SettingsError(
                f"{path}: line {number} has more than {MAX_LINE:,} characters.",
                "Close its quotes, and give images by their addresses.",
            )
        if "\0" in line:
            raise SettingsError(
                f"{path}: line {number} holds NUL characters, which no text does.",
                "Save the file as CSV UTF-8 or JSON. UTF-16 without a mark: --encoding utf-16-le.",
            )
        yield line


def starts_like_json(path: Path, encoding: str | None) -> bool:
    """Whether a file begins with a bracket or a brace.

    Raises:
        SettingsError: as `open_text`.
    """
    with open_text(path, encoding) as text:
        return text.read(1000).lstrip()[:1] in {"[", "{"}


def read_json(path: Path, encoding: str | None) -> Any:
    """The content of a JSON file; of a file of JSON lines, a list.

    Raises:
        SettingsError: it cannot be read, is too large, or is not JSON.
    """
    with open_text(path, encoding) as text:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SettingsError(
                f"{path} is larger than {MAX_JSON_BYTES:,} bytes.",
                "Cut it into several files, and import one after the other.",
            )
        if path.suffix.lower() in {".jsonl", ".ndjson"}:
            return [
                _parsed(path, line.rstrip(), number)
                for number, line in enumerate(lines_of(path, text), 1)
                if line.strip()
            ]
        return _parsed(path, text.read(), 1)


def _parsed(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        # Its own text names a line of the string that it was given, and none of its content.
        what = f"line {first_line + error.lineno - 1}, column {error.colno}: {error.msg}"
    except RecursionError:
        what = "it is nested too deeply"
    except ValueError:
        what = "a number in it is too long"
    raise SettingsError(f"{path} is not JSON: {what}.", "Export the file again, as a whole.")


@dataclass(frozen=True)
class CsvTable:
    """A CSV or TSV file.

    Attributes:
        names: of its columns, without blanks around them.
        records: its rows: column -> text; None for a cell that is missing.
    """

    names: tuple[str, ...]
    records: tuple[dict[str, str | None], ...]


def read_csv(path: Path, encoding: str | None, fix: str = "") -> CsvTable:
    """Read a CSV or TSV file with a header; commas, semicolons or tabs are between its columns.

    Args:
        path: of the file.
        encoding: of the file; None: UTF-8, or UTF-16 with a mark.
        fix: said beside what helps in general, if a row has more cells than the header.

    Raises:
        SettingsError: the file cannot be read, or a row has more cells than there are columns.
    """
    csv.field_size_limit(MAX_LINE)
    with open_text(path, encoding) as text:
        lines = dropwhile(_is_no_header, lines_of(path, text))
        header = next(lines, "")
        # Spreadsheets in many countries do not write commas.
        separator = max(",;\t", key=header.count)
        reader = csv.DictReader(chain([header], lines), delimiter=separator, strict=True)
        with _csv_errors(path, reader):
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            records: list[dict[str, str | None]] = []
            for number, record in enumerate(reader, FIRST_ROW):
                # Under None are the cells beyond the header; a spreadsheet writes empty ones.
                if any(cell.strip() for cell in record.pop(None, [])):
                    raise SettingsError(
                        f"{path}: row {number} has more cells than the header, which has "
                        f"{len(names)}.",
                        f"Put quotes around cells that contain a comma. {fix}".strip(),
                    )
                records.append(record)
    return CsvTable(tuple(names), tuple(records))


def _is_no_header(line: str) -> bool:
    """Whether a line is empty, or is the separator that Excel writes before the header."""
    return not line.strip() or line.lower().startswith("sep=")


@contextmanager
def _csv_errors(path: Path, reader: csv.DictReader[str]) -> Iterator[None]:
    """Say what is wrong with a CSV file.

    Raises:
        SettingsError: the reader has met a mistake.
    """
    try:
        yield
    except csv.Error as error:
        raise SettingsError(
            f"{path} cannot be read at line {reader.line_num}: {error}.",
            "Give a CSV file in UTF-8 (Excel: save as CSV UTF-8), with every quote closed.",
        ) from error
