"""How every process of ours logs: one line a message, our own modules at the level that is set."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from backend.settings import Settings

OURS = ("backend", "jobs")


def configure_logging(settings: Settings) -> None:
    """Log to standard error: in colour on a terminal, with the time elsewhere."""
    terminal = sys.stderr.isatty()
    handler: logging.Handler = (
        RichHandler(console=Console(stderr=True), show_path=False)
        if terminal
        else logging.StreamHandler()
    )
    pattern = "%(message)s" if terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=pattern, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level)
