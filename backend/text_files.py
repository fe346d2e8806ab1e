"""Text files of other programs: encodings, errors, and how little of them is shown."""

from __future__ import annotations

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from backend.errors import SettingsError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

MAX_LINE = 100_000_000
"""Characters of a line; a cell may hold an image as a data: URI."""
MAX_JSON_BYTES = 2_000_000_000
SHOWN = 60
"""Characters of one name or value that a message shows."""
SHOWN_TOGETHER = 160
"""Characters of a file that a message shows in all."""
_MARKS = {
    # The mark of UTF-32 begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MARK = "\ufeff"
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


def one_line(text: str) -> str:
    """The whole text; a character that would end or move a line is shown as in a source text."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}
        else character
        for character in text
    )


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
def open_text(path: Path, encoding: str | None, *, has_option: bool = True) -> Iterator[TextIO]:
    """Open a text file for reading, line ends as they are, behind a mark of its encoding.

    Args:
        path: of the file.
        encoding: of a file that is not marked; None: UTF-8.
        has_option: whether the command has ``--encoding``, which an error may then name.

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
        marks = (name for mark, name in _MARKS.items() if start.startswith(mark))
        chosen = next(marks, chosen)
        with path.open(newline="", encoding=chosen) as text:
            if text.read(1) != _MARK:
                text.seek(0)
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
            "Give a text file in UTF-8 (Excel: save as CSV UTF-8; a ZIP file: unpack it)"
            + (
                ", or name its encoding: --encoding cp932 for a Japanese Excel, cp1252 for a "
                "Western one."
                if has_option
                else "."
            ),
        ) from error


def lines_of(path: Path, text: TextIO, *, has_option: bool = True) -> Iterator[str]:
    """The lines of a text, line ends included.

    Args:
        path: of the file.
        text: from `open_text`.
        has_option: as there.

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
                "Save the file as CSV UTF-8 or JSON."
                + (" UTF-16 without a mark: --encoding utf-16-le." if has_option else ""),
            )
        yield line


def starts_like_json(path: Path, encoding: str | None) -> bool:
    """Whether a file begins with a bracket or a brace.

    Raises:
        SettingsError: as `open_text`.
    """
    with open_text(path, encoding) as text:
        return text.read(1000).lstrip()[:1] in {"[", "{"}


def is_json_lines(path: Path) -> bool:
    """Whether a file is called like one with a JSON value in each line."""
    return path.suffix.lower() in {".jsonl", ".ndjson"}


def read_json(path: Path, encoding: str | None) -> Any:
    """The content of a JSON file.

    Raises:
        SettingsError: it cannot be read, is too large, or is not JSON.
    """
    with _open_json(path, encoding) as text:
        return _parsed(path, text.read(), 1)


def read_json_lines(path: Path, encoding: str | None) -> dict[int, Any]:
    """The values in a file of JSON lines by the numbers of their lines, from 1.

    Raises:
        SettingsError: as `read_json`.
    """
    with _open_json(path, encoding) as text:
        return {
            number: _parsed(path, line.rstrip(), number)
            for number, line in enumerate(lines_of(path, text), 1)
            if line.strip()
        }


@contextmanager
def _open_json(path: Path, encoding: str | None) -> Iterator[TextIO]:
    with open_text(path, encoding) as text:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SettingsError(
                f"{path} is larger than {MAX_JSON_BYTES:,} bytes.",
                "Cut it into several files, and import one after the other.",
            )
        yield text


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
        numbers: of the rows, as a spreadsheet counts, which shows empty rows, too.
    """

    names: tuple[str, ...]
    records: tuple[dict[str, str | None], ...]
    numbers: tuple[int, ...]


def read_csv(
    path: Path, encoding: str | None, fix: str = "", *, has_option: bool = True
) -> CsvTable:
    """Read a CSV or TSV file with a header; commas, semicolons or tabs are between its columns.

    Args:
        path: of the file.
        encoding: of a file that is not marked; None: UTF-8.
        fix: said beside what helps in general, if a row has more cells than the header.
        has_option: whether the command has ``--encoding``, which an error may then name.

    Raises:
        SettingsError: the file cannot be read, or a row has more cells than there are columns.
    """
    csv.field_size_limit(MAX_LINE)
    with open_text(path, encoding, has_option=has_option) as text:
        lines = lines_of(path, text, has_option=has_option)
        skipped, header_row, header = 0, 1, next(lines, "")
        while header and _is_no_header(header):
            skipped += 1
            # A spreadsheet does not show the line that names the separator.
            header_row += not header.strip()
            header = next(lines, "")
        # Spreadsheets in many countries do not write commas.
        separator = max(",;\t", key=header.count)
        reader = csv.reader(chain([header], lines), delimiter=separator, strict=True)
        with _csv_errors(path, reader, skipped):
            names = tuple(name.strip() for name in next(reader, []))
            records: dict[int, dict[str, str | None]] = {}
            for number, cells in enumerate(reader, header_row + 1):
                if not cells:
                    continue
                # A spreadsheet writes empty cells beyond the header.
                if any(cell.strip() for cell in cells[len(names) :]):
                    raise SettingsError(
                        f"{path}: row {number} has more cells than the header, which has "
                        f"{len(names)}.",
                        f"Put quotes around cells that contain a comma. {fix}".strip(),
                    )
                records[number] = dict(zip_longest(names, cells[: len(names)]))
    return CsvTable(names, tuple(records.values()), tuple(records))


def _is_no_header(line: str) -> bool:
    """Whether a line is empty, or is the separator that Excel writes before the header."""
    return not line.strip() or line.lower().startswith("sep=")


@contextmanager
def _csv_errors(path: Path, reader: CsvReader, skipped: int) -> Iterator[None]:
    """Say what is wrong with a CSV file, of which so many lines were skipped.

    Raises:
        SettingsError: the reader has met a mistake.
    """
    try:
        yield
    except csv.Error as error:
        raise SettingsError(
            f"{path} cannot be read at line {skipped + reader.line_num}: {error}.",
            "Give a CSV file in UTF-8 (Excel: save as CSV UTF-8), with every quote closed.",
        ) from error
