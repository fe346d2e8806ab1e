"""The bulk benchmark's meters, on processes of this machine."""

from __future__ import annotations

import subprocess
import sys

import psutil

from benchmarks import bulk_servers
from tests.support.waiting import until


def test_the_meters_see_children_that_have_ended():
    code = "sum(i * i for i in range(3_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}]); input()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        spent = until(lambda: process.cpu_times().children_user)
        assert bulk_servers.cpu_of(process) >= spent > 0
        child.communicate(b"\n")
