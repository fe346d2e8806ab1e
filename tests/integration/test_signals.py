"""`ls-clip serve` and the signals by which gunicorn would reload, add or fork servers."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import requests

from tests.support.processes import server_process
from tests.support.waiting import PATIENCE, until

TOLD = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_signal_but_those_to_stop_interrupts_the_service(tmp_path: Path):
    with server_process(tmp_path) as (url, log, process):
        answers: list[int] = []
        ended = threading.Event()
        refused: list[Exception] = []

        def ask() -> None:
            while not ended.is_set():
                try:
                    # A connection of its own each time: one that was kept would hide a pause.
                    answers.append(requests.get(f"{url}/health", timeout=PATIENCE).status_code)
                except requests.RequestException as error:
                    refused.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        before = children(process.pid)
        try:
            for name in (*TOLD, "SIGWINCH"):
                for pid in (process.pid, *before):
                    os.kill(pid, getattr(signal, name))
            until(lambda: log.read_text().count(" is ignored: ") >= len(TOLD))
            answered = len(answers)
            until(lambda: len(answers) >= answered + 20 or bool(refused))
        finally:
            ended.set()
            asking.join()
        after = children(process.pid)
    assert not refused
    assert set(answers) == {200}
    # The same process still serves, alone.
    assert len(before) == 1 and after == before
    assert all(f"{name} is ignored" in log.read_text() for name in TOLD)
    assert "SIGWINCH" not in log.read_text()
    assert process.returncode == 0
