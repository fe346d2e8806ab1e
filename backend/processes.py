"""Child processes that end when we do, and waiting for the servers among them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from backend.errors import ClipError, StudioError

_PR_SET_PDEATHSIG = 1


class LocalProcess:
    """A child process in a group of its own; it ends when we do, even if we are killed.

    Args:
        command: program and arguments.
        env: its whole environment.
        log: the file that its output goes to.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        self._command = command
        self._env = env
        log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, or start it again after `stop`."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # No other thread of ours holds a lock that the child could need.
                preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is still alive."""
        return self._process.poll() is None

    def last_lines(self, count: int = 5) -> str:
        """The end of its output."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(text[-count:])

    def stop(self) -> None:
        """End the whole group: politely, then for good."""
        for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            # The leader is gone; whatever it left behind goes with the next round.
            time.sleep(0.2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def answers_ok(url: str) -> Callable[[], bool]:
    """For `wait_for`: whether a GET of this address succeeds."""
    # Costly to import, and a decoder process needs none of it.
    import requests

    session = requests.Session()
    session.trust_env = False

    def ask() -> bool:
        try:
            return session.get(url, timeout=2).ok
        except requests.RequestException:
            return False

    return ask


def wait_for(
    process: LocalProcess,
    ready: Callable[[], bool],
    name: str,
    limit: float,
) -> None:
    """Wait until a server that we started answers.

    Args:
        process: the server.
        ready: asks it; False means not yet.
        name: for the error.
        limit: seconds.

    Raises:
        StudioError: it ended, or did not answer in time; with the end of its log.
    """
    started = time.monotonic()
    while True:
        seconds = time.monotonic() - started
        if not process.running:
            raise StudioError(
                f"{name} ended while it was starting. Its last output:\n{process.last_lines()}",
                f"Read {process.log}.",
            )
        if seconds > limit:
            raise StudioError(
                f"{name} did not answer within {limit:.0f} s.", f"Read {process.log}."
            )
        if ready():
            return
        time.sleep(0.5)


def free_port(wanted: int, taken: Sequence[int] = ()) -> int:
    """This port if nobody listens on it, else the next free one.

    Raises:
        ClipError: none of the next hundred is free.
    """
    for port in range(wanted, wanted + 100):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClipError(f"No port from {wanted} to {wanted + 99} is free.", "Give another --port.")


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this signal to the calling process when its parent is gone; Linux only.

    For ``preexec_fn``, or called by the child. To the kernel the parent is the thread that started
    the child.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
