"""What an import costs: small modules, and the tests of small modules, load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.encoders.offline import OfflineEncoder
from tests.support.builders import ROOT
from tests.support.processes import child_environment

HEAVY = ("flask", "lancedb", "open_clip", "timm", "torch", "transformers")
LIGHTER = (*HEAVY, "hypothesis", "numpy", "PIL", "pydantic", "redis", "requests")


def run(code: str, home: Path) -> str:
    """What a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=child_environment({"HOME": str(home)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("backend.settings", HEAVY),
        ("backend.errors", HEAVY),
        ("jobs.reconciler", HEAVY),
        ("backend.labels.config", LIGHTER),
        ("tests.conftest, tests.unit.test_labels_config", LIGHTER),
    ],
)
def test_small_modules_stay_light(module: str, forbidden: tuple[str, ...], tmp_path: Path):
    code = f"import sys, {module}; print(sorted(set({forbidden}) & set(sys.modules)))"
    assert run(code, tmp_path) == "[]"


def test_the_id_of_an_encoder_imports_no_model_code(tmp_path: Path):
    """The id is what /setup waits for."""
    code = (
        "import sys; from backend.encoders.offline import OfflineEncoder; "
        f"print(OfflineEncoder().id, set({HEAVY}) & set(sys.modules))"
    )
    assert run(code, tmp_path) == f"{OfflineEncoder().id} set()"
