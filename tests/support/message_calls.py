"""The texts for people that the code holds: what a catalogue has to have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

from jinja2 import Environment
from jinja2.ext import extract_from_ast

from tests.support.builders import ROOT


def modules() -> list[Path]:
    """All modules of the product."""
    return sorted(path for room in ("backend", "jobs") for path in (ROOT / room).rglob("*.py"))


def templates() -> list[Path]:
    """The pages' templates, in which ``_`` says a text in the reader's language."""
    return sorted((ROOT / "backend" / "server" / "pages" / "templates").glob("*.html"))


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def texts(node: ast.Call) -> list[str]:
    """The literal texts among the arguments."""
    return [
        argument.value
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


@cache
def written() -> dict[str, Path]:
    """Key of each message that the code can make -> the module that makes it."""
    found: dict[str, Path] = {}
    for path in modules():
        source = path.read_text("utf-8")
        if "import Message" not in source and "class Message" not in source:
            # It counts for people to whom nothing is translated.
            continue
        for key in _keys(ast.parse(source)):
            found.setdefault(key, path)
    for path in templates():
        for _, name, said in extract_from_ast(Environment().parse(path.read_text("utf-8"))):
            text = said if isinstance(said, str) else said[0]
            if name == "_" and text is not None:
                found.setdefault(text, path)
    return found


def _keys(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        literal = texts(node)
        name = called(node)
        if name == "Message" and literal:
            yield literal[0]
        elif name == "of_count" and len(literal) == 2:
            yield literal[1]
        elif name == "counted" and literal:
            yield f"{{count}} {literal[0]}s"
        elif name == "with_verb" and len(literal) == 3:
            yield f"{{count}} {literal[0]}s {literal[2]}"
