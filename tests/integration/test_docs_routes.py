"""docs/http.md lists the routes that the application has."""

from __future__ import annotations

import re

from backend.server.app import create_app
from tests.support.builders import ROOT
from tests.support.fixtures import MakeRuntime

PLACES = {"<int:project>": "ID", "<run_id>": "RUN", "<path:filename>": "FILE"}


def documented_routes() -> set[tuple[str, str]]:
    """(method, path) of each route in the table of docs/http.md."""
    page = (ROOT / "docs" / "http.md").read_text()
    return set(re.findall(r"`(GET|POST|DELETE|PUT|PATCH) (/\S*)`", page))


def test_every_route_is_documented_and_every_documented_route_exists(make_runtime: MakeRuntime):
    routes = set()
    for rule in create_app(make_runtime(offline=True)).url_map.iter_rules():
        path = rule.rule
        for place, name in PLACES.items():
            path = path.replace(place, name)
        if rule.endpoint != "static":
            routes |= {(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert documented_routes() == routes
