"""CSV and TSV files: of spreadsheets, of lists for training, and of Label Studio's export."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.projects.archives.places import Places
from backend.projects.archives.records import Table, rows_of_records
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Row
from backend.projects.archives.texts import MAX_LINE, csv_errors, lines_of, open_text

_FIRST = 2
"""Number of the first row below the header, as a spreadsheet counts."""


def rows_of_table(
    path: Path, request: ArchiveRequest, places: Places | None = None
) -> Iterator[Row]:
    """Read a CSV or TSV file with an image in each row.

    The labels are in one column or in several, several in a cell or one for each of an image's
    rows, or each label has a column of its own.

    Args:
        path: has a header; commas, semicolons or tabs are between the columns.
        request: may name columns.
        places: finds the images; None: as the request says.

    Raises:
        SettingsError: the file cannot be read, or lacks a column.
    """
    return rows_of_records(read_table(path, request.encoding), request, places or Places(request))


def read_table(path: Path, encoding: str | None) -> Table:
    """The content of a CSV or TSV file.

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
        with csv_errors(path, reader):
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            records: list[dict[str, Any]] = []
            for number, record in enumerate(reader, _FIRST):
                # Under None are the cells beyond the header; a spreadsheet writes empty ones.
                if any(cell.strip() for cell in record.pop(None, [])):
                    raise SettingsError(
                        f"{path}: row {number} has more cells than the header, which has "
                        f"{len(names)}.",
                        "Put quotes around cells that contain a comma. Where a cell holds several "
                        "labels, name what is between them: --separator ','.",
                    )
                records.append(record)
    return Table(path, names, records, _FIRST)


def _is_no_header(line: str) -> bool:
    """Whether a line is empty, or is the separator that Excel writes before the header."""
    return not line.strip() or line.lower().startswith("sep=")
