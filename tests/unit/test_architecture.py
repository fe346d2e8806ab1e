"""Nothing imports upwards, and the text files speak to their readers only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import ROOT
from tests.support.processes import child_environment

BACKEND = ROOT / "backend"
LAYERS = [
    ["cli"],
    ["data_commands", "demo", "run_commands", "train_commands"],
    ["demo_loop"],
    ["connect", "doctor", "evaluate", "local_servers", "serve", "suggest"],
    ["app"],
    ["housekeeping", "model", "run_routes"],
    ["archive", "events", "export", "filling", "jobs.worker"],
    ["jobs.predict_job", "jobs.reconciler", "jobs.train_job"],
    ["jobs.publish"],
    ["jobs.run_files"],
    ["jobs.listing", "runtime"],
    ["trainer"],
    ["approvals", "importer", "prune"],
    ["snapshots"],
    ["predictor"],
    ["prediction", "scoring"],
    ["memory"],
    ["heads"],
    ["embedder", "evidence", "studio", "upkeep"],
    ["studio_api"],
    [
        "demo_photos",
        "encoders",
        "fetch",
        "images",
        "labels",
        "network",
        "processes",
        "slices",
        "store",
    ],
    ["vlpl"],
    ["jobs.enqueue", "jobs.polling"],
    ["jobs.schedule", "jobs.project_lock", "jobs.training_state"],
    ["jobs.queue", "jobs.run_store", "jobs.shutdown"],
    ["comparing", "logs", "settings", "telemetry", "terminal"],
    ["errors"],
]
"""From the top down: a module may import from its own layer or from those below it."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted([*BACKEND.rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Full names of what a file imports; with ``everywhere`` inside functions too."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(name: str) -> str:
    """The module or package that a full name belongs to, as LAYERS calls it."""
    top, inner = name.split(".")[:2]
    return f"jobs.{inner}" if top == "jobs" else inner


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upwards(path: Path):
    if path.stem == "__init__" and path.parent.parent == ROOT:
        return
    own = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own in LEVEL, f"say in LAYERS where {own} belongs"
    for name in imports(path):
        if name.startswith(("backend.", "jobs.")):
            other = part(name)
            assert LEVEL[other] >= LEVEL[own], f"{own} imports {other}, which is above it"


@pytest.mark.parametrize("path", sorted((BACKEND / "vlpl").glob("*.py")), ids=lambda p: p.name)
def test_the_method_knows_no_network_no_disk_and_no_label_studio(path: Path):
    allowed = {"__future__", "collections", "dataclasses", "functools", "math", "typing"}
    allowed |= {
        "numpy",
        "scipy",
        "sklearn",
        "torch",
        "safetensors",
        "hashlib",
        "json",
        "enum",
        "itertools",
    }
    for name in imports(path):
        assert name.split(".")[0] in allowed or name.startswith("backend.vlpl"), name
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


@pytest.mark.parametrize("module", ["pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"])
def test_nothing_is_pickled(module: str):
    for path in MODULES:
        assert not any(name.split(".")[0] == module for name in imports(path)), path


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


@pytest.mark.parametrize(
    "module", ["backend.settings", "backend.labels.config", "backend.errors", "jobs.reconciler"]
)
def test_small_modules_stay_light(module: str):
    code = (
        f"import sys, {module}; heavy = {{'torch', 'lancedb', 'flask', 'open_clip'}}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
