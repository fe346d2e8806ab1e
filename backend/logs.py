"""How every process logs, and the type of functions that show progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from backend.settings import Settings

OURS = ("backend", "jobs")

Progress = Callable[[str, int, int], None]
"""Shows progress: called with the name of a step, how much of it is done, and its total."""


def configure_logging(settings: Settings, console: Console | None = None) -> None:
    """Log to standard error: in colour on a terminal, with timestamps elsewhere.

    Our own modules log at LS_CLIP_LOG_LEVEL, all others at WARNING.

    Args:
        settings: the level.
        console: of standard error, if this process prints there itself; None: one of the log's own.
    """
    # Costly, and --help needs none of it.
    from rich.console import Console
    from rich.logging import RichHandler

    own = console or Console(stderr=True)
    terminal = own.is_terminal
    handler: logging.Handler = (
        RichHandler(console=own, show_path=False) if terminal else logging.StreamHandler()
    )
    pattern = "%(message)s" if terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=pattern, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level)
