"""Costly images are decoded in processes that can be ended, with the same pixels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image, features

from backend.errors import ImageError, ImageReason
from backend.images.decode import decode
from backend.images.decoder import Decoder
from backend.images.decoder_pool import DecoderPool
from backend.images.memory import MemoryBudget
from tests.support import costly_images as costly
from tests.support.builders import make_settings, photo
from tests.support.costly_images import encoded
from tests.support.png_files import METADATA, RGB, animation, png
from tests.support.processes import child_environment
from tests.support.waiting import until

MAX_PIXELS = 10**8
ENDLESS = costly.endless()


def processes() -> set[int]:
    """The decoder processes of this process."""
    mine = psutil.Process().children()
    return {child.pid for child in mine if "backend.images.decoder_process" in child.cmdline()}


@pytest.fixture
def pools() -> Iterator[Callable[..., DecoderPool]]:
    made: list[DecoderPool] = []

    def make(seconds: float = 100.0, memory: int = 10**9) -> DecoderPool:
        made.append(DecoderPool(seconds, MemoryBudget(memory)))
        return made[-1]

    yield make
    for pool in made:
        pool.close()
    assert processes() == set()


Pools = Callable[..., DecoderPool]


def pixels(pool: DecoderPool, data: bytes, draft_size: int | None = None) -> tuple[Any, bytes]:
    return pool.decoded(
        data, MAX_PIXELS, draft_size, lambda image: (image.size, image.convert("RGB").tobytes())
    )


def refusal(pool: DecoderPool, data: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        pool.decoded(data, max_pixels, None, lambda image: image.size)
    assert caught.value.message and caught.value.fix
    return caught.value


def test_a_decoder_process_gives_the_same_pixels(pools: Pools):
    pool = pools()
    images = [photo(1, 700, 500), photo(2, 1, 3000), photo(3, 3000, 1), photo(4, 1500, 1400)]
    files = [encoded(image, name) for image in images for name in ("JPEG", "PNG", "WEBP", "TIFF")]
    files += [encoded(images[0], "AVIF")] if features.check("avif") else []
    files += [costly.heic(200), costly.tiff_of_planes(50), animation(default_is_first=False)]
    files += [encoded(images[0], name)[:-300] for name in ("JPEG", "PNG", "GIF", "BMP")]
    files += [png(8, RGB, METADATA["68 MB of texts"]())]
    for data in files:
        expected = decode(data, MAX_PIXELS, 224)
        assert pixels(pool, data, 224) == (expected.size, expected.tobytes())
    assert len(processes()) == 1


def test_refusals_come_as_they_are_and_end_no_process(pools: Pools):
    pool = pools()
    pixels(pool, encoded(photo(1), "PNG"))
    before = processes()
    for data in (b"", b"<html>", encoded(photo(1), "PNG")[:60], costly.jpeg_of_many_scans(200)):
        with pytest.raises(ImageError) as expected:
            decode(data, MAX_PIXELS)
        assert refusal(pool, data).as_dict() == expected.value.as_dict()
    assert refusal(pool, encoded(photo(1), "PNG"), 10).reason == "too_many_pixels"
    assert processes() == before


def test_an_image_that_takes_too_long_is_too_costly_and_the_next_one_is_decoded(pools: Pools):
    pool = pools(seconds=0.5)
    error = refusal(pool, ENDLESS)
    assert error.reason == ImageReason.TOO_COSTLY and "LS_CLIP_DECODE_SECONDS" in error.fix
    assert processes() == set()
    assert pixels(pool, encoded(photo(1), "PNG"))[0] == (40, 30)


def test_an_image_that_needs_more_memory_than_allowed_is_refused_before(pools: Pools):
    pool = pools(memory=100_000_000)
    error = refusal(pool, costly.flat("PNG", 4000))
    assert error.reason == ImageReason.TOO_COSTLY and "LS_CLIP_DECODE_MEMORY" in error.fix
    assert pixels(pool, costly.flat("PNG", 3000))[0] == (3000, 3000)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_file_that_takes_more_memory_than_its_size_explains_is_stopped(pools: Pools):
    # One tile of 1 GB for one pixel.
    data = bytearray(costly.tiff_of_tiles(16))
    for tag in (322, 323):
        place = data.index(bytes([tag & 255, tag >> 8, 3, 0, 1, 0, 0, 0]))
        data[place + 2 : place + 12] = (
            (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (32_768).to_bytes(4, "little")
        )
    pool = pools()
    peak = psutil.Process(next(iter(_started(pool)))).memory_info().rss
    assert refusal(pool, bytes(data)).reason in {ImageReason.TOO_COSTLY, ImageReason.CORRUPT}
    assert psutil.Process(next(iter(processes()))).memory_info().rss < peak + 300_000_000


def _started(pool: DecoderPool) -> set[int]:
    pixels(pool, encoded(photo(1), "PNG"))
    return processes()


def test_a_process_that_has_ended_while_idle_is_replaced(pools: Pools):
    pool = pools()
    (pid,) = _started(pool)
    # As when no image comes for long: it ends by itself at the end of its input.
    pool._idle[0]._requests.close()
    psutil.Process(pid).wait(60)
    pool._idle[0]._requests = open(os.devnull, "wb")  # noqa: PTH123, SIM115
    assert pixels(pool, encoded(photo(1), "PNG"))[0] == (40, 30)
    assert processes() and pid not in processes()


def test_a_crash_is_the_images_failure(pools: Pools):
    pool = pools()
    outcome: list[ImageError] = []
    thread = threading.Thread(target=lambda: outcome.append(refusal(pool, ENDLESS)))
    thread.start()
    pid = until(lambda: next(iter(processes()), None))
    until(lambda: psutil.Process(pid).cpu_times().user > 0.5)
    os.kill(pid, signal.SIGSEGV)
    thread.join()
    assert outcome[0].reason == ImageReason.CORRUPT and "crash" in outcome[0].message


def test_closing_ends_what_is_being_decoded(pools: Pools):
    pool = pools()
    outcome: list[ImageError] = []
    thread = threading.Thread(target=lambda: outcome.append(refusal(pool, ENDLESS)))
    thread.start()
    until(processes)
    pool.close()
    thread.join()
    assert outcome[0].reason == ImageReason.TIMEOUT
    assert processes() == set()
    assert refusal(pool, encoded(photo(1), "PNG")).reason == ImageReason.TIMEOUT


def test_without_a_process_the_image_fails_and_says_why(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    error = refusal(pools(), encoded(photo(1), "PNG"))
    assert error.reason == ImageReason.INTERNAL and "No such file" in error.message


def test_a_decoder_process_gets_no_secrets_and_no_files(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a secret")
    (pid,) = _started(pools())
    process = psutil.Process(pid)
    assert "a secret" not in " ".join(process.environ().values())
    if sys.platform == "linux":
        assert process.num_fds() <= 6


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells a child")
def test_decoder_processes_die_with_a_parent_that_is_killed(tmp_path: Path):
    (tmp_path / "image").write_bytes(ENDLESS)
    program = (
        "import sys; from pathlib import Path\n"
        "from backend.images.decoder import Decoder\n"
        "from backend.settings import load_settings\n"
        "data = Path('image').read_bytes()\n"
        "Decoder(load_settings(decode_seconds=1000.0)).decoded(data, lambda image: None)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=child_environment({})
    )
    try:
        (child,) = until(lambda: psutil.Process(parent.pid).children())
        until(lambda: child.cpu_times().user > 0.5)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_images_share_the_memory_one_after_the_other(pools: Pools):
    pool = pools(memory=200_000_000)
    data = costly.flat("PNG", 4000)
    together: list[int] = []
    inside: list[int] = []

    def use(image: Image.Image) -> None:
        inside.append(1)
        together.append(len(inside))
        inside.pop()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(pool.decoded, data, MAX_PIXELS, None, use) for _ in range(6)]:
            future.result()
    assert together == [1] * 6


def test_ordinary_images_start_no_process(tmp_path: Path):
    decoder = Decoder(make_settings(tmp_path))
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(photo(1), name)
        assert decoder.is_ordinary(data)
        assert decoder.decoded(data, lambda image: image.tobytes()) == decode(data, 10**4).tobytes()
    assert processes() == set()


def test_a_small_budget_leaves_less_to_the_calling_thread(tmp_path: Path):
    data = costly.flat("PNG", 3000)
    assert Decoder(make_settings(tmp_path)).is_ordinary(data)
    assert not Decoder(make_settings(tmp_path, decode_memory=200_000_000)).is_ordinary(data)


def test_the_decoder_of_heic_images_stays_out_of_this_process(tmp_path: Path):
    (tmp_path / "image").write_bytes(costly.heic(64))
    program = (
        "import sys; from pathlib import Path\n"
        "from backend.images.decoder import Decoder\n"
        "from backend.settings import load_settings\n"
        "data = Path('image').read_bytes()\n"
        "decoder = Decoder(load_settings())\n"
        "print(decoder.decoded(data, lambda image: image.size), 'pillow_heif' in sys.modules)\n"
        "decoder.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["(64,", "64)", "False"]
