"""Help and a wrong path are answered before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import child_environment

COMMANDS = ["serve", "connect", "suggest", "evaluate", "compare-encoders", "demo", "doctor"]
HEAVY = {
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "transformers",
    "sklearn",
    "skimage",
    "numpy",
} | {"PIL", "lancedb", "pyarrow", "label_studio_sdk", "redis", "rq", "flask", "jinja2"}
SLOW = {"pydantic", "pydantic_settings", "requests", "asyncio", "rich.markdown", "rich.traceback"}
"""What a command may need once it does something."""

CODE = """
import json, sys
from backend.cli.main import app, main
from typer.main import get_command

def run(*arguments):
    sys.argv = ["ls-clip", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0

def helps(group, *above):
    for name, command in group.commands.items():
        assert run(*above, name, "--help") == 0
        helps_of = getattr(command, "commands", None)
        if helps_of:
            helps(command, *above, name)

if sys.argv[1:] == ["HELP"]:
    assert run("--help") == 0
    helps(get_command(app))
else:
    assert run(*sys.argv[1:]) == 1
print("MODULES", json.dumps(sorted(sys.modules)))
"""


def imported(tmp_path: Path, *arguments: str) -> tuple[set[str], str]:
    """Modules that are imported in the end, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=child_environment({}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, _, modules = done.stdout.rpartition("MODULES ")
    return set(json.loads(modules)), told + done.stderr


def test_the_help_of_all_commands_imports_nothing_that_it_does_not_need(tmp_path: Path):
    modules, told = imported(tmp_path, "HELP")
    assert not (HEAVY | SLOW) & modules
    assert all(command in told for command in COMMANDS)
    assert "prediction for every task" in " ".join(told.split())  # No sentence is cut off.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.jpg", "--labels", "cat"), "gone.jpg is not a file."),
        (("gone/*.jpg", ".", "--labels", "cat"), "gone/*.jpg matches no image."),
        ((__file__, "--labels", "gone.txt"), "gone.txt cannot be read"),
        ((__file__, "--prompts", "gone.csv"), "There is no file gone.csv"),
        ((__file__,), "No labels are given."),
        ((__file__, "--labels", "cat", "--html", "gone/page.html"), "Give another file with"),
    ],
)
def test_a_wrong_path_is_told_before_the_encoder_is_imported(
    arguments: tuple[str, ...], said: str, tmp_path: Path
):
    modules, told = imported(tmp_path, "suggest", *arguments)
    assert said in told and "Fix: " in told
    assert not HEAVY & modules
