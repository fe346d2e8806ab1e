"""CSV and TSV files: of spreadsheets, of lists for training, and of Label Studio's export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.projects.archives.places import Places
from backend.projects.archives.records import Table, rows_of_records
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Row
from backend.text_files import read_csv


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
    fix = "Where a cell holds several labels, name what is between them: --separator ','."
    content = read_csv(path, encoding, fix)
    return Table(path, content.names, content.records, content.numbers)
