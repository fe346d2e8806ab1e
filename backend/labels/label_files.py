"""Labels that people keep in files: a list with one per line, or a table in CSV."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from backend.errors import SettingsError
from backend.labels.label import prompts_of
from backend.text_files import read_csv, user_path

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
        is_file = user_path(text).is_file()
    except (OSError, ValueError):  # Longer than any path may be.
        is_file = False
    if is_file or (text.lower().endswith(".txt") and "," not in text):
        return read_labels(user_path(text))
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
    table = read_csv(path, None, has_option=False)
    missing = [name for name in PROMPT_COLUMNS if name not in table.names]
    if missing or len(set(table.names)) < len(table.names):
        problem = f"no column {', '.join(missing)}" if missing else "several columns of one name"
        raise SettingsError(
            f"{path} has {problem}.", f"Its columns are {' and '.join(PROMPT_COLUMNS)}."
        )
    prompts: dict[str, tuple[str, ...]] = {}
    for record in table.records:
        label = label_name(record["label"] or "")
        if label:
            prompts[label] = prompts.get(label, ()) + prompts_of(record["prompt"] or "")
    if not prompts:
        raise SettingsError(
            f"{path} holds no label.", "Write one label on each line, with its prompt."
        )
    return prompts


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for text in texts if (name := label_name(text))))
