"""What came with each image when it was fetched, and tells later whether it is still the same.

A table of its own: LanceDB refuses the table of addresses another column. A row belongs to one
content of its address, so rows of several processes may come in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import pyarrow as pa

from backend.storage.durability import VALIDATOR_TABLE
from backend.storage.tables import Tables, in_conditions

VALIDATORS = pa.schema(
    [
        pa.field("address", pa.string()),
        pa.field("key", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("last_modified", pa.string()),
        pa.field("size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class StoredValidators:
    """The validators of one content of one address.

    Attributes:
        address: of the image.
        key: content key of the file that they came with.
        etag, last_modified, size: see `backend.images.validators.Validators`.
    """

    address: str
    key: str
    etag: str
    last_modified: str
    size: int | None


class ValidatorRows:
    """Validators by address. Thread-safe.

    Args:
        tables: where they are kept.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def of(self, keys: Mapping[str, str]) -> dict[str, StoredValidators]:
        """Address -> the validators of the content that it leads to, as far as they are stored.

        Args:
            keys: address -> content key.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[str, StoredValidators] = {}
        for where in in_conditions("address", keys):
            for row in self._tables.rows(VALIDATOR_TABLE, VALIDATORS, where).to_pylist():
                stored = StoredValidators(**row)
                if stored.key == keys[stored.address]:
                    found[stored.address] = stored
        return found

    def add(self, rows: Sequence[StoredValidators]) -> None:
        """Append validators; the last ones of an address count.

        Raises:
            StoreError: the store cannot be written.
        """
        if rows:
            columns = [list(column) for column in zip(*map(astuple, rows), strict=True)]
            self._tables.append(VALIDATOR_TABLE, pa.table(columns, schema=VALIDATORS))
