"""A decoder process: decodes one file after the other under limits, until its input ends.

Run as ``python -m backend.images.decoder_process`` by `backend.images.decoder_pool`. Its input is
not trusted, so it gets neither the parent's environment nor its files, and the parent checks what
it answers. Both directions carry lines of JSON; a file follows its request, and pixels follow their
size:

    parent: {"bytes", "max_pixels", "draft_size", "seconds", "memory"}, then the file
    child:  {"needs"}: bytes of memory; or an error as below
    parent: an empty line: they are free now
    child:  {"width", "height"}, then RGB pixels, 3 bytes each; or {"code", "message", "fix"}
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from backend.errors import ImageError, ImageReason
from backend.heap import give_back
from backend.images.conversions import bands
from backend.images.decode import MOST_PIXELS, decode
from backend.images.headers import webp_size
from backend.messages.message import Message, packed
from backend.processes import die_with_parent

IDLE_SECONDS = 60.0
"""A decoder process that gets no file for so long ends; the next one starts another."""

_HEADER_MEMORY = 256_000_000
"""Bytes of memory for reading a header, besides the file."""
_SLACK = 160_000_000
"""More bytes than an image needs, of which the import of numpy takes most."""
_CANVAS_BYTES = 8
"""Per pixel, which WebP's decoder allocates before the size is known."""


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one line of JSON."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _limit_memory(more: int | None) -> None:
    """Let this process map so many bytes more than it has now; None: as many as it likes.

    Only Linux tells how much it has, and keeps to such a limit.
    """
    if sys.platform != "linux":
        return
    limit = resource.RLIM_INFINITY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more + _SLACK
    if hard != resource.RLIM_INFINITY:
        limit = hard if limit == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _answer(request: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> None:
    data = requests.read(request["bytes"])

    def reserve(needed: int) -> None:
        if needed > request["memory"]:
            raise ImageError(
                ImageReason.TOO_COSTLY,
                Message(
                    "The image needs up to {needed} MB of memory to decode; the limit is {memory} "
                    "MB.",
                    needed=needed // 10**6,
                    memory=request["memory"] // 10**6,
                ),
                Message("Scale the image down, or raise LS_CLIP_DECODE_MEMORY."),
            )
        send(answers, {"needs": needed})
        requests.readline()
        _limit_memory(needed)

    width, height = webp_size(data)
    canvas = min(width * height, MOST_PIXELS)
    try:
        _limit_memory(_HEADER_MEMORY + 3 * len(data) + _CANVAS_BYTES * canvas)
        # The processor's time, of all threads: at its end the signal ends the process.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        image = decode(data, request["max_pixels"], request["draft_size"], reserve)
    except ImageError as error:
        _limit_memory(None)
        send(answers, {"code": error.code, "error": [packed(error.message), packed(error.fix)]})
        return
    finally:
        _limit_memory(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
    _send_pixels(image, answers)


def _send_pixels(image: Image.Image, answers: BinaryIO) -> None:
    send(answers, {"width": image.width, "height": image.height})
    for box in bands(image.size):
        answers.write(image.crop(box).tobytes())
    answers.flush()


def main() -> None:
    """Answer requests until the input ends, or none comes for a minute."""
    if sys.platform == "linux":
        die_with_parent(signal.SIGKILL)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "AVIF" in Image.OPEN:
        from PIL import AvifImagePlugin

        # Threads would take address space for their heaps and stacks.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # A library that prints would otherwise write into the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        line = requests.readline()
        if not line:
            return
        _answer(json.loads(line), requests, answers)
        give_back()


if __name__ == "__main__":
    main()
