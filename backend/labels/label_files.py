"""Labels that people keep in files: a list with one per line, or a table in CSV."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, dropwhile
from pathlib import Path

from backend.errors import SettingsError
from backend.labels.label import prompts_of

MAX_CELL = 100_000_000
PROMPT_COLUMNS = ("label", "prompt")


def label_name(text: str) -> str:
    """A label as people type it: macOS decomposes the accents in file names."""
    return unicodedata.normalize("NFC", text.strip())


def given_labels(text: str) -> list[str]:
    """The labels that an option names.

    Args:
        text: the path of a file with one label per line, or labels with commas between them.

    Raises:
        SettingsError: the file is not there, cannot be read, or holds no label; or no label is
            given.
    """
    try:
        is_file = Path(text).expanduser().is_file()
    except (OSError, ValueError):  # Longer than any path may be.
        is_file = False
    if is_file or (text.lower().endswith(".txt") and "," not in text):
        return read_labels(Path(text).expanduser())
    labels = _once(text.split(","))
    if not labels:
        raise SettingsError("No labels are given.", 'Add --labels "dog,cat,bicycle".')
    return labels


def read_labels(path: Path) -> list[str]:
    """The lines of a UTF-8 file, each label once; empty lines are left out.

    A line that begins with ``#`` is a label like any other: hashtags are labels, too.

    Raises:
        SettingsError: the file cannot be read, or holds no label.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.",
            'Name a file with one label per line, or write --labels "dog,cat,bicycle".',
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} is no text in UTF-8.", "Save it as UTF-8, with one label per line."
        ) from error
    # Not splitlines(): a label may hold a line separator of Unicode, and no editor shows it as one.
    labels = _once(text.replace("\r", "\n").split("\n"))
    if not labels:
        raise SettingsError(f"{path} holds no label.", "Write one label on each line.")
    return labels


def read_prompts(path: Path) -> dict[str, tuple[str, ...]]:
    """The prompts of labels, from a CSV file with the columns ``label`` and ``prompt``.

    Args:
        path: of the file. A prompt is what ``model_prompt`` holds in a labeling config: a text, or
            several with ``|`` between them. Rows of one label are joined; a label without a prompt
            is encoded as usual.

    Raises:
        SettingsError: the file cannot be read, lacks a column, or holds no label.
    """
    prompts: dict[str, tuple[str, ...]] = {}
    for row in csv_rows(path, PROMPT_COLUMNS, f"Its columns are {' and '.join(PROMPT_COLUMNS)}."):
        label = label_name(row["label"])
        if label:
            prompts[label] = prompts.get(label, ()) + prompts_of(row["prompt"])
    if not prompts:
        raise SettingsError(
            f"{path} holds no label.", "Write one label on each line, with its prompt."
        )
    return prompts


def csv_rows(path: Path, columns: Sequence[str], fix: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header; commas, semicolons or tabs separate its columns.

    Args:
        path: UTF-8, with or without a byte order mark.
        columns: those that it must have, each once.
        fix: said to whoever named columns that it does not have.

    Yields:
        The texts by column; that of a missing cell is empty.

    Raises:
        SettingsError: the file cannot be read, or lacks a column.
    """
    # A cell may hold an image as a data: URI.
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = dropwhile(_is_no_header, file)
            header = next(lines, "")
            # Spreadsheets in many countries do not write commas.
            separator = max(",;\t", key=header.count)
            rows = csv.DictReader(chain([header], lines), delimiter=separator, strict=True)
            names = [name.strip() for name in rows.fieldnames or []]
            twice = {name for name in columns if names.count(name) > 1}
            if twice:
                raise SettingsError(
                    f"{path} has several columns {', '.join(sorted(twice))}.",
                    "Rename all but the one that is meant.",
                )
            missing = set(columns) - set(names)
            if missing:
                raise SettingsError(
                    f"{path} has no column {', '.join(sorted(missing))}.",
                    f"It has: {', '.join(names) or 'nothing'}. {fix}",
                )
            rows.fieldnames = names
            for row in rows:
                yield {name: row[name] or "" for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"{path} cannot be read: {reason}.",
            "Give a CSV file in UTF-8 (Excel: save as CSV UTF-8), with every quote closed.",
        ) from error


def _is_no_header(line: str) -> bool:
    """Whether a line is empty, or is the separator that Excel writes before the header."""
    return not line.strip() or line.lower().startswith("sep=")


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for text in texts if (name := label_name(text))))
