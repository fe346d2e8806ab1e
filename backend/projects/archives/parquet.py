"""Parquet files: lists for training, our own export, and the metadata of image folders."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import SettingsError
from backend.projects.archives.records import Table
from backend.text_files import shortened

_MAGIC = b"PAR1"
"""How a file begins (https://parquet.apache.org/docs/file-format/)."""


def is_parquet(path: Path) -> bool:
    """Whether a file is one, by its content, or by its name where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return path.suffix.lower() == ".parquet"


def read_parquet(path: Path) -> Table:
    """The content of a Parquet file with a row for each image, or for each label of an image.

    Raises:
        SettingsError: it cannot be read, is damaged, or holds the images themselves.
    """
    try:
        with pq.ParquetFile(path) as file:
            embedded = [field.name for field in file.schema_arrow if _holds_bytes(field.type)]
            if embedded:
                raise SettingsError(
                    f"{path} has the image files in its column {shortened(embedded[0])}.",
                    "Write them into files, and give the folder with a metadata.csv, "
                    "metadata.jsonl or metadata.parquet that names them.",
                )
            records = file.read().to_pylist()
            names = file.schema_arrow.names
    except OSError as error:
        # Of damaged files, too: pyarrow says so with an OSError without a number.
        what = f"cannot be read: {error.strerror}" if error.errno else "is damaged"
        raise SettingsError(
            f"{path} {what}.", "Give a file that can be read, and whole."
        ) from error
    except (pa.ArrowException, ValueError) as error:
        raise SettingsError(
            f"{path} is no Parquet file that can be read.", "Write it again, or give a CSV file."
        ) from error
    return Table(path, names, records, range(1, len(records) + 1))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column is, or holds, binary data; Hugging Face's images are structs with some."""
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
