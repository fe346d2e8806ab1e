"""``ls-clip`` in the process of the tests, where its heavy imports are paid for once."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from backend.cli import main as cli
from tests.support.processes import child_environment


class Done(NamedTuple):
    """How a command ended, with the names that `subprocess.CompletedProcess` has."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: str, cwd: Path, **variables: str) -> Done:
    """``ls-clip`` in this process.

    Args:
        arguments: of the command line.
        cwd: working directory; locks are kept there too.
        variables: environment variables; others of ours are not seen.
    """
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, child_environment(variables), clear=True))
        stack.enter_context(mock.patch.object(sys, "argv", ["ls-clip", *arguments]))
        # Nobody is there to answer a question.
        stack.enter_context(mock.patch.object(sys, "stdin", io.StringIO()))
        # Else the program's name in the usage is that of what was started.
        started = mock.patch.object(sys.modules["__main__"], "__package__", "", create=True)
        stack.enter_context(started)
        stack.enter_context(mock.patch("backend.projects.calls.LOCKS", cwd / "locks"))
        os.chdir(cwd)
        stack.callback(os.chdir, before)
        stack.enter_context(_own_logging())
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """``ls-clip`` in this process and in the environment of the test: its exit code."""
    monkeypatch.setattr(sys, "argv", ["ls-clip", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextmanager
def _own_logging() -> Iterator[None]:
    """Let the command configure logging, and put it back as it was."""
    loggers = [logging.getLogger(name) for name in (None, "backend", "jobs")]
    levels = [logger.level for logger in loggers]
    root = loggers[0]
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
