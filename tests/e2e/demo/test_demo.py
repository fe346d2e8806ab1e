"""The README's first command, as a new user types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from backend.processes import free_port
from tests.support.first_demo import FirstDemo

COMMAND = [sys.executable, "-c", "from backend.cli.main import main; main()", "demo"]


def children_of(folder: Path) -> list[str]:
    """Command lines of processes that work in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in environment and b"pytest" not in command and command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def test_the_demo_checks_itself_and_prints_its_table(first_demo: FirstDemo) -> None:
    for name in ("tasks", "suggestions per task"):
        assert re.search(rf"│ {name} +│ +[0-9.]+ │ +[0-9.]+ │", first_demo.output), name
    for name in ("precision", "recall", "mAP"):
        before = "(nothing ticked|[0-9.]+ %)" if name == "precision" else "[0-9.]+ %"
        assert re.search(rf"│ {name} +│ +{before} │ +[0-9.]+ % │", first_demo.output), name
    interval = r"[0-9.]+ \([0-9.]+ to [0-9.]+\)"
    assert re.search(rf"│ clicks per task +│ +{interval} │ +{interval} │", first_demo.output)
    told = " ".join(first_demo.output.split())
    assert re.search(r"Clicks a task: [^.]+\.[^,]+ with suggestions, [0-9.]+ from nothing", told)
    assert "Collages are easier than photos" in first_demo.words
    assert "every task shows exactly one prediction" in first_demo.words
    assert f"127.0.0.1:{first_demo.port}/" not in first_demo.words
    assert children_of(first_demo.directory) == []


def test_a_second_start_reuses_the_first_and_ctrl_c_leaves_nothing_running(
    first_demo: FirstDemo,
) -> None:
    folder = first_demo.directory
    arguments = ["--directory", str(folder), "--tasks", "24", "--port", str(first_demo.port)]
    second = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert second.stderr is not None
    seen = []
    for line in second.stderr:
        seen.append(line)
        if "Ctrl-C" in line:
            break
    assert "making the project" not in "".join(seen)
    words = " ".join("".join(seen).split())
    assert "Tasks are served in random order." in words
    assert 'The tab "next 25" of the Data Manager holds' in words
    again = subprocess.run(
        [*COMMAND, "--check", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 1
    assert "running" in again.stderr
    assert "Traceback" not in again.stderr
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert second.returncode == 130
    assert children_of(folder) == []


def test_the_demo_killed_outright_takes_its_servers_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [*COMMAND, "--directory", str(folder), "--port", str(free_port(28180))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(children_of(folder)) < 2:
        assert time.monotonic() < deadline, "the servers did not start"
        time.sleep(0.5)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while children_of(folder):
        assert time.monotonic() < deadline, children_of(folder)
        time.sleep(0.5)


def test_the_demo_shows_that_approvals_help(first_demo: FirstDemo):
    done = first_demo.guard.run_cli(
        *("demo", "--check", "--simulate", "60", "--directory", str(first_demo.directory)),
        LS_CLIP_OFFLINE="1",
        LS_CLIP_BLIND_SHARE="0.05",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    # An interval or a unit may follow a number; of nothing that is ticked there is none.
    rates = {
        name.strip(): tuple(float(cell.split()[0]) for cell in (before, after))
        for _, name, before, after, _ in rows
        if name.strip() in {"mAP", "clicks per task", "clicks from nothing"}
    }
    assert rates["mAP"][1] > rates["mAP"][0]
    assert rates["clicks per task"][1] < rates["clicks per task"][0]
    assert rates["clicks from nothing"][0] == rates["clicks from nothing"][1]
