"""The pointer to the serving head, changed by several processes; its imports are light for them."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

from backend.storage.head_pointer import Pointer, PointerFile
from backend.storage.store import Store

KEY = "1.1795416973"
CHANGES = 8


def _append(folder: str, process: int) -> None:
    pointer = PointerFile(Store(folder), KEY)
    for number in range(CHANGES):

        def append(now: Pointer, name: str = f"{process}-{number}") -> Pointer:
            return replace(now, history=(*now.history, name))

        pointer.change(append)


def test_no_change_is_lost_among_processes(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_append, args=(str(tmp_path), n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    history = PointerFile(Store(str(tmp_path)), KEY).read().history
    assert len(history) == len(set(history)) == 3 * CHANGES
