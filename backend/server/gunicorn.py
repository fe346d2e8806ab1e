"""Serve the HTTP application: gunicorn, one process with threads.

A second process would hold a second model; to serve more, run more of these behind a proxy.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from backend.errors import ClipError, SettingsError
from backend.messages.message import Message
from backend.server.connections import ClipWorker, close_unless_whole
from backend.server.credentials import body_limit
from backend.settings import Settings

log = logging.getLogger(__name__)

CONNECTIONS = 1000
"""Connections at once, at most; see `backend.server.connections` for what happens then."""
FILES = 4096
"""Files that this process may open, if it is allowed to: connections, images, the store."""
LOAD_FAILED = 4
"""The exit code by which a gunicorn worker tells its arbiter not to try again."""


class Server(BaseApplication):
    """What gunicorn runs.

    Args:
        settings: of this process.

    Attributes:
        settings: the same.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn: its settings."""
        host = self.settings.host
        shown = f"[{host}]" if ":" in host else host
        self.cfg.set("bind", [f"{shown}:{self.settings.port}"])
        self.cfg.set("worker_class", ClipWorker)
        self.cfg.set("workers", 1)
        self.cfg.set("threads", self.settings.threads)
        self.cfg.set("worker_connections", _connections())
        self.cfg.set("pre_request", close_unless_whole)
        # /predict may take as long as Label Studio waits (100 s).
        self.cfg.set("timeout", 120)
        self.cfg.set("graceful_timeout", 20)
        # What goes wrong at the start is logged by us, in one message.
        self.cfg.set("loglevel", "critical")
        self.cfg.set("worker_exit", _leave)
        self.cfg.set("control_socket_disable", True)

    def run(self) -> None:
        """Serve until stopped."""
        Keeper(self).run()

    def body_limit(self, headers: Mapping[str, str]) -> int:
        """See `backend.server.credentials.body_limit`."""
        return body_limit(self.settings, headers)

    def load(self) -> Any:
        """Called by gunicorn: the WSGI application."""
        # Runs in the worker, after the fork: neither CUDA nor LanceDB survives one.
        from backend.runtime import Runtime
        from backend.server.app import create_app

        try:
            runtime = Runtime(self.settings)
        except ClipError as error:
            log.error("%s", error)
            sys.exit(LOAD_FAILED)
        threading.Thread(target=_warm_up, args=(runtime,), daemon=True).start()
        _before(signal.SIGTERM, runtime.embedder.close)
        log.info("serving %s on %s:%d", runtime.encoder.id, self.settings.host, self.settings.port)
        return create_app(runtime)


class Keeper(Arbiter):
    """gunicorn's parent process, which starts the one that serves anew if that dies.

    There is always one: it holds the model, and neither memory nor the store's locks are meant for
    two. So the signals by which gunicorn replaces, adds or removes processes do nothing here.
    """

    def handle_hup(self) -> None:
        """SIGHUP: gunicorn would stop the process and start another one."""
        _log_ignored("SIGHUP")

    def handle_usr1(self) -> None:
        """SIGUSR1: gunicorn would open its log files anew; the log goes to standard error."""
        _log_ignored("SIGUSR1")

    def handle_usr2(self) -> None:
        """SIGUSR2: gunicorn would start another parent process beside this one."""
        _log_ignored("SIGUSR2")

    def handle_ttin(self) -> None:
        """SIGTTIN: gunicorn would start another process."""
        _log_ignored("SIGTTIN")

    def handle_ttou(self) -> None:
        """SIGTTOU: gunicorn would stop a process if there were several."""
        _log_ignored("SIGTTOU")

    def handle_winch(self) -> None:
        """SIGWINCH: sent whenever the size of a terminal changes; nothing to tell."""


def _log_ignored(name: str) -> None:
    log.warning(
        "%s is ignored: one process serves, with the settings of its start. To apply others, or to "
        "reload anything, stop it (SIGTERM) and start ls-clip serve again.",
        name,
    )


def _connections() -> int:
    """How many connections fit into the files that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    # Each may linger after its answer while another one takes its place.
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft // 4)


def serve(settings: Settings) -> None:
    """Serve until stopped.

    Raises:
        SettingsError: a public address without credentials.
    """
    check_bind(settings)
    check_port(settings)
    # OpenMP's threads, which torch uses, otherwise spin while they wait for work. Scoring one image
    # is so little work that they would do nothing else, on cores that other requests need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        Server(settings).run()
    except SystemExit as end:
        # gunicorn has codes of its own, e.g. 4 if the encoder cannot be loaded.
        raise SystemExit(1 if end.code else 0) from None


def check_bind(settings: Settings) -> None:
    """Refuse to be reachable from elsewhere without credentials.

    Raises:
        SettingsError: naming what to set.
    """
    credentials = {
        "BASIC_AUTH_USER": settings.basic_auth_user,
        "BASIC_AUTH_PASS": settings.basic_auth_pass.get_secret_value(),
        "LS_CLIP_WEBHOOK_SECRET": settings.webhook_secret.get_secret_value(),
    }
    missing = [name for name, value in credentials.items() if not value]
    if not missing:
        return
    if not _is_loopback(settings.host):
        raise SettingsError(
            Message(
                "{host} can be reached from other machines, and {not_set}.",
                host=settings.host,
                not_set=_not_set(missing),
            ),
            Message(
                "Set BASIC_AUTH_USER, BASIC_AUTH_PASS and LS_CLIP_WEBHOOK_SECRET, or bind to "
                "127.0.0.1."
            ),
        )
    if len(missing) < len(credentials):
        log.warning(
            "%s, although other credentials are: calls that need all of them are refused. Set "
            "all three, or none.",
            _not_set(missing),
        )
        return
    log.warning(
        "No credentials are set, so only this machine is served (%s). To serve others set "
        "BASIC_AUTH_USER, BASIC_AUTH_PASS and LS_CLIP_WEBHOOK_SECRET.",
        settings.host,
    )


def _not_set(names: Sequence[str]) -> Message:
    listed = Message("{name}", name=names[0])
    for name in names[1:]:
        listed = Message("{before} and {name}", before=listed, name=name)
    return Message.of_count(len(names), "{names} is not set", "{names} are not set", names=listed)


def check_port(settings: Settings) -> None:
    """Refuse an address that cannot be bound, before anything is loaded.

    Raises:
        SettingsError: naming the setting.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except (OSError, TypeError) as error:
            # TypeError: a name that no host can have, e.g. with a part that is too long.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(
                Message(
                    "{host}:{port} cannot be used: {reason}.",
                    host=settings.host,
                    port=settings.port,
                    reason=reason,
                ),
                Message(
                    "Stop what listens there (another ls-clip serve?), or correct LS_CLIP_HOST or "
                    "LS_CLIP_PORT; LS_CLIP_PUBLIC_URL, where it is set, must name the same port."
                ),
            ) from error


def _leave(server: Any, worker: Any) -> None:
    """End the worker at once: threads inside the model's libraries abort a normal exit."""
    from backend.storage.compaction import FINISH_SECONDS, finish_compactions

    finish_compactions(FINISH_SECONDS)
    logging.shutdown()
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else 1
    os._exit(code if isinstance(code, int) else 1)


def _before(number: signal.Signals, act: Callable[[], None]) -> None:
    """Do something first when this signal comes: requests that wait for an image end then."""
    handler = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        act()
        if callable(handler):
            handler(number, frame)

    signal.signal(number, handle)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _warm_up(runtime: Any) -> None:
    try:
        runtime.encoder.load()
        log.info("the encoder is loaded")
    except ClipError as error:
        log.error("%s", error)
