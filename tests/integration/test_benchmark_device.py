"""benchmarks/device.py as it is called where there is a GPU, here on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys

CALL = [sys.executable, "-m", "benchmarks.device", "--models", "ViT-B-32", "--regions", "none"]
SMALL = ["--photos", "0.3", "--seconds", "0.2", "--batch-size", "2", "--workers", "2", "--no-write"]


def test_device_measures_each_stage_and_how_long_the_device_waits():
    done = subprocess.run(
        [*CALL, *SMALL, "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (row["model"], row["regions"], row["batch"]) == ("ViT-B-32", "none", 2)
    for rate in ("forward only", "decoding only", "end to end", "DataLoader"):
        assert row[rate] > 0, rate
    assert 0 <= int(row["device waits"].rstrip("%")) <= 100
    assert "| ViT-B-32 |" in done.stdout


def test_device_names_a_device_that_is_not_there():
    done = subprocess.run(
        [*CALL, *SMALL, "--device", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "nothing: " in done.stderr and "--device cpu" in done.stderr
    assert "Traceback" not in done.stderr
