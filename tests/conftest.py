"""What holds for every test. Imports nothing heavy: a test of a small module starts at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backend.encoders.weights import fingerprint
from tests.support.processes import OUR_VARIABLES

if TYPE_CHECKING:
    from backend.encoders.offline import OfflineEncoder

FOLDER = Path(__file__).parent
KINDS = ("unit", "integration", "golden", "e2e")

# Before torch is imported, here or in a process that a test starts: OpenMP's threads otherwise spin
# while they wait, and two test processes with their servers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Where compiled modules are not kept, each of the processes that tests start compiles thousands.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A console takes its width from these when it is made, i.e. when the command line is imported.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test carries its folder's name as a marker."""
    for item in items:
        kind = item.path.relative_to(FOLDER).parts[0]
        assert kind in KINDS, f"{item.path}: move it into one of {', '.join(KINDS)}"
        item.add_marker(kind)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hypothesis' summary imports all of it, even where no test has used it."""
    if "hypothesis" not in sys.modules:
        session.config.pluginmanager.unregister(name="hypothesispytest")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share a Label Studio stay in one process; two folders have one of their own."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            for folder in ("tests/e2e/demo/", "tests/e2e/compose/", "tests/e2e/"):
                if file.startswith(folder):
                    return folder
            return file

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor a .env file of whoever runs the tests decides anything."""
    for name in os.environ:
        if name.startswith(OUR_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _fingerprints_of_the_tests_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Checkpoints made by tests stay out of the user's cache."""
    fingerprint.__defaults__ = (tmp_path_factory.mktemp("fingerprints"),)


@pytest.fixture(scope="session")
def offline_encoder() -> OfflineEncoder:
    """The real encoder that needs no download; its weights are read once."""
    from backend.encoders.offline import OfflineEncoder

    return OfflineEncoder()
