"""Decoder processes, seen from the process that uses them: started, reused, watched and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from PIL import Image

from backend.errors import ImageError, ImageReason
from backend.heap import give_back
from backend.images.conversions import bands
from backend.images.decode import MOST_PIXELS
from backend.images.memory import MemoryBudget
from backend.messages.message import Message, unpacked

T = TypeVar("T")

_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")
"""Environment variables that a decoder process gets: no tokens and no passwords."""
_ADDED = {
    # A heap or a stack for each of many threads would take address space, which is limited.
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # What is freed while an image is decoded goes back to the system at once (glibc).
    "MALLOC_MMAP_THRESHOLD_": "1000000",
}
_PIPE_BYTES = 1 << 20
_LONGEST_LINE = 65536
_LAST_SECONDS = 2.0
# The clock's limit is for what hangs without using the processor. It leaves room for other work.
_WALL_FACTOR, _WALL_SECONDS = 6, 20.0


class DecoderPool:
    """Decoder processes, as many as there are callers at a time. Thread-safe.

    Args:
        seconds: CPU time that one image may take.
        budget: the memory of all images that are being decoded.
    """

    def __init__(self, seconds: float, budget: MemoryBudget) -> None:
        self._seconds = seconds
        self._budget = budget
        self._idle: list[_DecoderProcess] = []
        self._all: set[_DecoderProcess] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        # To the kernel the parent of a process is a thread, so this one lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, "start-decoder")
        self._finalizer = weakref.finalize(self, _end_all, self._all, self._closed)

    def close(self) -> None:
        """End all decoder processes, the busy ones too: their images fail with ``timeout``."""
        self._finalizer()

    def decoded(
        self,
        data: bytes,
        max_pixels: int,
        draft_size: int | None,
        use: Callable[[Image.Image], T],
    ) -> T:
        """Decode a file as `backend.images.decode.decode` does, and return ``use(image)``.

        The memory that the image needs is held until ``use`` is done.

        Raises:
            ImageError: as `decode`; ``too_costly`` also where the decoder process had to be ended,
                ``corrupt`` where it crashed, ``internal`` where none can be started, ``timeout``
                after `close`.
        """
        request = {
            "bytes": len(data),
            "max_pixels": max_pixels,
            "draft_size": draft_size,
            "seconds": self._seconds,
            "memory": self._budget.size,
        }
        process, needed = self._ask(request, data)
        with self._budget.held(max(0, min(needed, self._budget.size))):
            try:
                return use(self._pixels(process, max_pixels))
            finally:
                give_back()

    def _ask(self, request: Mapping[str, Any], data: bytes) -> tuple[_DecoderProcess, int]:
        """The process that has read the file's header, and the bytes of memory that it needs."""
        while True:
            process = self._take()
            try:
                with process.watched(self._wall_seconds):
                    answer = process.ask(request, data)
            except _EndedError as error:
                self._drop(process)
                if process.ended_idle and not self._closed.is_set():
                    continue
                raise self._failure(process) from error
            if isinstance(needed := answer.get("needs"), int):
                return process, needed
            self._put_back(process)
            raise _as_error(answer)

    def _pixels(self, process: _DecoderProcess, max_pixels: int) -> Image.Image:
        try:
            with process.watched(self._wall_seconds):
                answer = process.proceed()
                if "width" in answer:
                    image = process.image(answer, min(max_pixels, MOST_PIXELS))
                    self._put_back(process)
                    return image
        except _EndedError as error:
            self._drop(process)
            raise self._failure(process) from error
        self._put_back(process)
        raise _as_error(answer)

    @property
    def _wall_seconds(self) -> float:
        return _WALL_SECONDS + _WALL_FACTOR * self._seconds

    def _take(self) -> _DecoderProcess:
        if self._closed.is_set():
            raise _stopped()
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            process = self._starter.submit(_DecoderProcess).result()
        except (OSError, RuntimeError) as error:
            raise ImageError(
                ImageReason.INTERNAL,
                Message("No process can be started to decode the image ({error}).", error=error),
                Message("Check the limits on memory and on the number of processes."),
            ) from error
        with self._lock:
            self._all.add(process)
        if self._closed.is_set():
            # It was started while `close` ended the others.
            process.kill()
            self._drop(process)
            raise _stopped()
        return process

    def _put_back(self, process: _DecoderProcess) -> None:
        with self._lock:
            self._idle.append(process)

    def _drop(self, process: _DecoderProcess) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)

    def _failure(self, process: _DecoderProcess) -> ImageError:
        """Why a process ended before it had answered."""
        code = process.exit_code
        if self._closed.is_set():
            return _stopped()
        if process.was_late or code in {-signal.SIGPROF, -signal.SIGXCPU}:
            return ImageError(
                ImageReason.TOO_COSTLY,
                Message(
                    "The image takes more than {seconds:g} s of CPU time to decode.",
                    seconds=self._seconds,
                ),
                Message(
                    "Save it again in an image editor, or raise LS_CLIP_DECODE_SECONDS if its "
                    "source is trusted."
                ),
            )
        if code == -signal.SIGKILL:
            return ImageError(
                ImageReason.TOO_COSTLY,
                Message(
                    "The process that decoded the image was killed, probably for want of memory."
                ),
                Message(
                    "Scale the image down, or lower LS_CLIP_DECODE_MEMORY to what the machine has."
                ),
            )
        if code is not None and code < 0:
            return ImageError(
                ImageReason.CORRUPT,
                Message("The image makes its decoder crash (signal {code}).", code=-code),
                Message("Open it in an image editor, save it again and replace it."),
            )
        return ImageError(
            ImageReason.INTERNAL,
            Message("The process that decodes images gave no proper answer.")
            if code is None
            else Message("The process that decodes images failed (exit code {code}).", code=code),
            Message("The log has the details."),
        )


class _EndedError(Exception):
    """A decoder process has ended, or answers what it should not."""


class _DecoderProcess:
    """One process, for one caller at a time; see `backend.images.decoder_process`.

    Attributes:
        was_late: whether it was ended because it took too long.
        exit_code: set by `end`; negative: the signal that ended it; None: it had to be killed.
    """

    def __init__(self) -> None:
        self.was_late = False
        self.exit_code: int | None = None
        self._answered = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "backend.images.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _ADDED,
            pipesize=_PIPE_BYTES,
            # Ctrl-C in a terminal is for us alone.
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    @property
    def ended_idle(self) -> bool:
        """Whether it ended by itself between two files."""
        return self._answered and self.exit_code == 0

    @contextmanager
    def watched(self, seconds: float) -> Iterator[None]:
        """End it if the block takes longer than this."""
        timer = threading.Timer(seconds, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end_late(self) -> None:
        self.was_late = True
        self.kill()

    def kill(self) -> None:
        """Kill it; `end` still has to be called."""
        self._process.kill()

    def ask(self, request: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        """Send a file; the answer says what memory it needs, or why it is refused.

        Raises:
            _EndedError: there is no answer.
        """
        return self._exchange(json.dumps(request).encode() + b"\n", data)

    def proceed(self) -> dict[str, Any]:
        """Tell it that the memory is free; the answer has the size, or says why it is refused."""
        return self._exchange(b"\n")

    def image(self, size: Mapping[str, Any], max_pixels: int) -> Image.Image:
        """Receive the pixels, a band at a time."""
        width, height = size["width"], size["height"]
        if not (isinstance(width, int) and isinstance(height, int)):
            raise _EndedError
        if width < 1 or height < 1 or width * height > max_pixels:
            raise _EndedError
        image = Image.new("RGB", (width, height))
        for box in bands(image.size):
            _, top, _, bottom = box
            count = 3 * width * (bottom - top)
            try:
                pixels = self._answers.read(count)
            except (OSError, ValueError) as error:
                raise _EndedError from error
            if len(pixels) < count:
                raise _EndedError
            image.paste(Image.frombytes("RGB", (width, bottom - top), pixels), box)
        return image

    def _exchange(self, *parts: bytes) -> dict[str, Any]:
        # ValueError: a stream that `end` has closed, or an answer that is no JSON.
        try:
            for part in parts:
                self._requests.write(part)
            self._requests.flush()
            answer = json.loads(self._answers.readline(_LONGEST_LINE))
        except (OSError, ValueError) as error:
            raise _EndedError from error
        self._answered = True
        if not isinstance(answer, dict):
            raise _EndedError
        return answer

    def end(self) -> None:
        """Kill it, unless it has ended."""
        # The end of its answers comes a moment before its exit code.
        with suppress(subprocess.TimeoutExpired):
            self.exit_code = self._process.wait(_LAST_SECONDS)
        self.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()


def _end_all(processes: set[_DecoderProcess], closed: threading.Event) -> None:
    closed.set()
    for process in list(processes):
        process.kill()
        process.end()


def _stopped() -> ImageError:
    return ImageError(
        ImageReason.TIMEOUT,
        Message("The image was not decoded before the program was stopped."),
        Message("Open the task again."),
    )


def _as_error(answer: Mapping[str, Any]) -> ImageError:
    reason = answer.get("code")
    known = ImageReason(reason) if reason in set(ImageReason) else ImageReason.INTERNAL
    message, fix = map(unpacked, answer.get("error") or ("", ""))
    return ImageError(known, message, fix)
