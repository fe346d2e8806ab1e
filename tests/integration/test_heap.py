"""All threads of the plugin's processes share one heap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import ROOT
from tests.support.processes import child_environment

PROGRAM = """
import ctypes, re, sys, threading
from concurrent.futures import ThreadPoolExecutor
import {module} as program

def report(*_):
    barrier = threading.Barrier(8)

    def work(_):
        blocks = [bytearray(200_000) for _ in range(20)]
        barrier.wait()
        return len(blocks)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(b"heaps.xml", b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)

program.{called} = report
program.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.parametrize(
    ("module", "called"), [("backend.cli.main", "app"), ("jobs.worker", "work")]
)
def test_threads_have_no_heap_of_their_own(module: str, called: str, tmp_path: Path):
    program = PROGRAM.format(module=module, called=called)
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        check=True,
    )
    assert (tmp_path / "heaps.xml").read_text().count("<heap nr=") == 1
