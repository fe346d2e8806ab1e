"""Helpers around the store."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pyarrow as pa

from backend.storage.compaction import finish_compactions
from backend.storage.store import Store


def wait_for_compaction() -> None:
    """Wait until no table is being compacted by this process."""
    finish_compactions(60)
    assert not [thread for thread in threading.enumerate() if "compaction" in thread.name]


def assert_created_once(uri: str) -> None:
    """Two writers that create a table in the same moment create it one after the other."""
    first, second = Store(uri), Store(uri)
    rows = [pa.table({"number": [number]}) for number in range(2)]
    creating, going_on = threading.Event(), threading.Event()
    create = first.tables.database.create_table

    def slowly(*args: Any, **kwargs: Any) -> Any:
        creating.set()
        assert going_on.wait(30)
        return create(*args, **kwargs)

    with mock.patch.object(first.tables.database, "create_table", slowly):
        threads = [threading.Thread(target=first.tables.append, args=("numbers", rows[0]))]
        threads[0].start()
        assert creating.wait(30)
        threads.append(threading.Thread(target=second.tables.append, args=("numbers", rows[1])))
        threads[1].start()
        threads[1].join(1.0)
        assert threads[1].is_alive()
        going_on.set()
        for thread in threads:
            thread.join(30)
    found = Store(uri).tables.rows("numbers", rows[0].schema, "true")
    assert sorted(found["number"].to_pylist()) == [0, 1]
