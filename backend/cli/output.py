"""Standard output whose failures, such as a full disk, are errors that a person can fix."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from backend.errors import SettingsError
from backend.messages.message import Message


class _Output:
    """A stream that says of itself that it cannot be written; of a closed pipe nothing is said."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            self._failed = True
            raise SettingsError(
                Message("The output cannot be written: {reason}.", reason=str(error.strerror)),
                Message("Make room where it goes, or send it elsewhere."),
            ) from error

    def end(self) -> None:
        """Write what is left; what cannot be written is given up."""
        try:
            self.flush()
        finally:
            if self._failed:
                # Else the interpreter tries once more at its end, and complains in its own words.
                with suppress(OSError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._stream.fileno())
                    os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def told_output() -> Iterator[None]:
    """Raise an error of ours where standard output cannot be written, until the block ends.

    Raises:
        SettingsError: it cannot.
    """
    stream = sys.stdout
    # A process may be started without one.
    if stream is None:
        yield
        return
    output = _Output(stream)
    sys.stdout = cast("TextIO", output)
    try:
        yield
    finally:
        # Else it was replaced because a pipe is closed, and stays so.
        if cast("object", sys.stdout) is output:
            sys.stdout = stream
            output.end()
