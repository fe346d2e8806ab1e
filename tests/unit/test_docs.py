"""The documentation is complete, and what it names exists.

tests/unit/test_settings.py compares docs/settings.md with the settings,
tests/integration/test_docs_routes.py docs/http.md with the routes,
tests/integration/test_doctor.py docs/troubleshooting.md with the checks,
and tests/unit/test_docs_japanese.py the Japanese pages with the English ones.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from click import Command
from typer.main import get_command

from backend.cli.main import app
from backend.settings import Settings
from tests.support.builders import ROOT
from tests.support.pages import DOCS, PAGES, anchors, links, relative


def commands_of(group: Command, prefix: str = "") -> dict[str, Command]:
    """Name -> command; of a group those below it: ``store check``."""
    below: dict[str, Command] | None = getattr(group, "commands", None)
    if below is None:
        return {prefix.strip(): group}
    found: dict[str, Command] = {}
    for name, command in below.items():
        found |= commands_of(command, f"{prefix}{name} ")
    return found


COMMANDS = commands_of(get_command(app))  # type: ignore[arg-type]


# Links


def test_the_index_links_every_page():
    linked = {(DOCS / link).resolve() for link in links(DOCS / "index.md")}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} <= linked


@pytest.mark.parametrize(
    ("name", "index"), [("README.md", "docs/index.md"), ("README.ja.md", "docs/ja/index.md")]
)
def test_both_readmes_link_the_index_in_their_language(name: str, index: str):
    assert index in links(ROOT / name)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_relative_link_leads_somewhere(page: Path):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


# Code that the pages name


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_the_pages_name_exist(page: Path):
    for name in re.findall(
        r"`((?:backend|jobs|tests|benchmarks|plugin_config|docs)/[\w./-]*)", page.read_text()
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_modules_that_the_pages_name_exist(page: Path):
    for name in re.findall(r"`((?:backend|jobs)\.[a-z_]+)", page.read_text()):
        module = ROOT / name.replace(".", "/")
        wire = name in {"jobs.bulk_predict", "jobs.train"}
        assert wire or module.is_dir() or module.with_suffix(".py").is_file(), name


def test_the_architecture_page_names_every_package_and_top_level_module():
    text = (DOCS / "architecture.md").read_text()
    packages = [path.parent for path in (ROOT / "backend").glob("*/__init__.py")]
    modules = [path for path in (ROOT / "backend").glob("*.py") if path.stem != "__init__"]
    for package in [*packages, ROOT / "jobs"]:
        assert f"| `{relative(package)}/` |" in text, package
    for module in modules:
        assert f"`{relative(module)}`" in text, module


def test_the_architecture_page_repeats_what_the_packages_say():
    text = (DOCS / "architecture.md").read_text()
    for package in [*(ROOT / "backend").glob("*/__init__.py"), ROOT / "jobs" / "__init__.py"]:
        docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
        line = docstring.splitlines()[0].replace("``", "`")
        assert f"| `{relative(package.parent)}/` | {line} |" in text


def test_the_picture_shows_the_layers_that_the_linter_enforces():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [
        contract["layers"]
        for contract in contracts["contracts"]
        if contract.get("containers") == ["backend"] and contract["type"] == "layers"
    ]
    enforced = [set(layer.split(" | ")) for layer in layers]
    # A contract of its own places the jobs between projects and runtime.
    enforced.insert(enforced.index({"projects"}) + 1, {"jobs"})
    text = (DOCS / "architecture.md").read_text()
    arrows = [
        (set(above.split(" & ")), set(below.split(" & ")))
        for above, below in re.findall(r"^    ([\w &]+) --> ([\w &]+)$", text, re.M)
    ]
    assert [above for above, _ in arrows] == enforced[:-1]
    assert [below for _, below in arrows] == enforced[1:]


# Commands, settings and metrics


def test_every_command_has_a_section_and_every_section_a_command():
    text = (DOCS / "commands.md").read_text()
    assert set(re.findall(r"^### `ls-clip ([\w -]+)`$", text, re.M)) == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_and_options_that_the_pages_show_exist(page: Path):
    # To the end of the code span or the line, but no further than a pipe or a comment.
    for name, rest in re.findall(r"\bls-clip ([a-z][\w-]*)([^`\n|#]*)", page.read_text()):
        command = name if name in COMMANDS else " ".join([name, *rest.split()[:1]])
        assert command in COMMANDS, command
        options = {"--help"} | {
            option for parameter in COMMANDS[command].params for option in parameter.opts
        }
        shown = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest.split(" ls-clip ")[0]))
        assert shown <= options, f"ls-clip {command} has no {shown - options}"


def test_every_setting_that_a_text_names_exists():
    known = set(Settings.environment_names().values())
    files = [*PAGES, ROOT / "docker-compose.yml", ROOT / "plugin_config" / "settings.env"]
    for path in files:
        named = set(re.findall(r"\bLS_CLIP_[A-Z_]*[A-Z]\b", path.read_text()))
        assert named <= known, f"{relative(path)}: {named - known}"


def test_every_metric_is_documented_and_every_documented_metric_exists():
    source = "".join(path.read_text() for path in (ROOT / "backend").rglob("*.py"))
    metrics = set(re.findall(r'"(ls_clip_\w+)"', source))
    page = (DOCS / "operate.md").read_text()
    assert set(re.findall(r"^\| `(ls_clip_\w+)` \|", page, re.M)) == metrics
    for path in PAGES:
        assert set(re.findall(r"`(ls_clip_\w+)`", path.read_text())) <= metrics, path
