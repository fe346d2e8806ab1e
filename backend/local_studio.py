"""A real Label Studio of one's own on this machine, for the demo and the tests.

It runs in an environment of its own (``uv tool run``), as in production: it pins other versions of
the libraries that we use.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
from pydantic import SecretStr

from backend.errors import ClipError, StudioError
from backend.settings import Settings

VERSION = "1.23.2"
START_SECONDS = 420.0
BACKEND_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1
# Label Studio also reads these names without its prefix, so a stray one would steer it.
_STRAY_NAMES = ("HOST", "PORT", "USERNAME", "PASSWORD", "DEBUG", "DATABASE", "LOG_LEVEL")


class LocalProcess:
    """A child process in a group of its own; it ends when we do, even if we are killed.

    Args:
        command: program and arguments.
        env: its whole environment.
        log: the file that its output goes to.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # No other thread of ours holds a lock that the child could need.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

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


class LocalStudio(LocalProcess):
    """Label Studio on the loopback interface, with SQLite.

    Args:
        directory: its data; a new one takes about 40 s to set up, a used one a few seconds.
        port: a free port.
        email: of the administrator that is made in a new directory.
        password: of that administrator.
        token: its legacy API token.
        photos: a folder whose sub-folders may be served as local files.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        email: str,
        password: str,
        token: str,
        photos: Path,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        photos.mkdir(parents=True, exist_ok=True)
        env = {name: value for name, value in os.environ.items() if name not in _STRAY_NAMES}
        env |= {
            "LABEL_STUDIO_BASE_DATA_DIR": str(directory),
            "LABEL_STUDIO_USERNAME": email,
            "LABEL_STUDIO_PASSWORD": password,
            "LABEL_STUDIO_USER_TOKEN": token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # Both: with the first alone the backend is added and its webhook is not.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(photos),
            # It calls the backend on this machine, past any proxy.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            # Nothing is reported to anyone.
            "COLLECT_ANALYTICS": "False",
            "LATEST_VERSION_CHECK": "False",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        command = [
            *find_uv(),
            *("tool", "run", "--from", f"label-studio=={VERSION}", "label-studio", "start"),
            *("--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)),
        ]
        super().__init__(command, env, directory / "label-studio.log")

    def wait(self, waiting: Callable[[float], None] = lambda seconds: None) -> None:
        """Wait until it answers.

        Args:
            waiting: called about twice a second with the seconds gone by.

        Raises:
            StudioError: it ended, or did not answer in time; with the end of its log.
        """
        wait_for(self, f"{self.url}/health", "Label Studio", START_SECONDS, waiting)


class LocalBackend(LocalProcess):
    """``ls-clip serve`` with these settings.

    Args:
        settings: all that it needs; passed on through its environment.
        log: the file that its output goes to.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.url = settings.backend_url
        values = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in settings
        }
        names = Settings.environment_names()
        given = {names[name]: str(value) for name, value in values.items() if value is not None}
        command = [sys.executable, "-c", "from backend.cli import main; main()", "serve"]
        super().__init__(command, {**os.environ, **given}, log)

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            StudioError: it ended, or did not answer in time; with the end of its log.
        """
        wait_for(self, f"{self.url}/health", "The backend", BACKEND_SECONDS)


def wait_for(
    process: LocalProcess,
    url: str,
    name: str,
    limit: float,
    waiting: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Wait until a server that we started answers.

    Raises:
        StudioError: it ended, or did not answer in time; with the end of its log.
    """
    started = time.monotonic()
    session = requests.Session()
    session.trust_env = False
    while True:
        seconds = time.monotonic() - started
        if not process.running:
            raise StudioError(
                f"{name} ended while it was starting. Its last words:\n{process.last_lines()}",
                f"Read {process.log}.",
            )
        if seconds > limit:
            raise StudioError(
                f"{name} did not answer within {limit:.0f} s.", f"Read {process.log}."
            )
        try:
            if session.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            pass
        waiting(seconds)
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


def find_uv() -> list[str]:
    """The command that runs uv.

    Raises:
        ClipError: it is not installed.
    """
    known = os.environ.get("UV") or shutil.which("uv")
    if known:
        return [known]
    local = Path(__file__).parent.parent / ".uv" / "bin" / "uv"
    if local.exists():
        return [str(local)]
    raise ClipError("uv is not installed.", "Run ./uvw once, or: pip install uv.")


def new_secret() -> str:
    """A random secret, fit for a header or a password."""
    return secrets.token_hex(20)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
