"""What import-linter cannot check: sizes, docstrings, unsafe file formats, and what texts name.

Which module may import which is checked by ``lint-imports``: see pyproject.toml.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.builders import ROOT

MODULES = sorted(path for room in ("backend", "jobs") for path in (ROOT / room).rglob("*.py"))
PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
LONGEST, SHORTEST = 400, 25
SHORT_FOR_A_REASON = {
    "jobs/shutdown.py": "one flag that the worker sets and its jobs read",
}


def imported_names(path: Path) -> set[str]:
    """Full names of what a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def called_names(path: Path) -> set[str]:
    """What a file calls, as it is written."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {ast.unparse(call.func) for call in calls}


def test_every_module_is_long_enough_to_be_one_and_short_enough_to_read():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in MODULES
        if path not in PACKAGES
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
    short = {name for name, lines in lengths.items() if lines < SHORTEST}
    assert short == set(SHORT_FOR_A_REASON)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_every_package_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_method_opens_no_file():
    for path in (ROOT / "backend" / "vlpl").glob("*.py"):
        assert "open" not in called_names(path), path


@pytest.mark.parametrize("module", ["pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"])
def test_nothing_is_pickled(module: str):
    for path in MODULES:
        assert module not in {name.split(".")[0] for name in imported_names(path)}, path


def test_the_torch_files_that_are_read_are_read_as_weights_only():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def text_files() -> list[Path]:
    found = [ROOT / name for name in ("README.md", "README.ja.md", "pyproject.toml")]
    for folder in ("backend", "benchmarks", "docs", "jobs", "plugin_config", "tests"):
        for ending in ("py", "md", "xml", "toml", "sh"):
            found += sorted((ROOT / folder).rglob(f"*.{ending}"))
    return [path for path in found if path.is_file()]


WORKSHOP = ["/work" + "/", "shared" + "/reference", "shared" + "/data", "design" + ".md"]
WORKSHOP += ["iss" + "ue #", "iss" + "ue 1", "iss" + "ue 2", "iss" + "ue 3", "anchors" + ".md"]


def test_no_text_points_at_what_a_reader_does_not_have():
    for path in text_files():
        text = path.read_text().lower()
        assert not [word for word in WORKSHOP if word in text], path


def test_docs_that_the_code_names_exist():
    for path in MODULES:
        for word in path.read_text().replace("`", " ").split():
            name = word.strip("\"'.,:;()")
            if name.startswith("docs/") and name.endswith(".md"):
                assert (ROOT / name).is_file(), f"{path} names {name}"
