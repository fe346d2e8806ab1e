"""The rows of benchmarks/submits.py; nothing here starts a server."""

from __future__ import annotations

from collections import Counter

from benchmarks.submits import NAMES, Server, parsed, row
from tests.support.annotators import Submits


def test_a_row_counts_what_failed_and_why_beside_what_was_answered():
    early = Submits([0.1, 0.2], [1, 2], Counter({"HTTP 500": 2}))
    late = Submits([0.3], [3], Counter({"ReadTimeout": 1}))
    made = row("SQLite", "with us", Submits.all_of([early, late]), "2")
    assert made == {
        "Label Studio on": "SQLite",
        "": "with us",
        "submits": "6",
        "failed": "3 (HTTP 500: 2, ReadTimeout: 1)",
        "p50, s": "0.20",
        "p95, s": "0.29",
        "p99, s": "0.30",
        "heads trained": "2",
    }


def test_a_row_without_an_answer_is_no_error():
    assert row("SQLite", "with us", Submits(failures=Counter({"HTTP 500": 1})), "")["failed"] == (
        "1 (HTTP 500: 1)"
    )


def test_the_servers_can_be_chosen_and_all_have_names():
    assert parsed(["--servers", "uwsgi", "sqlite"]).servers == [Server.UWSGI, Server.SQLITE]
    assert set(NAMES) == set(Server)
