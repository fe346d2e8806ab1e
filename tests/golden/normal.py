"""Comparing, and the one place where what differs from call to call gets a placeholder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

TIMES = frozenset({"created", "updated", "ended", "refreshed", "not_before", "date"})
"""Fields with a unix time or an ISO date; 0 and empty stay."""
SPEEDS = frozenset({"images_per_second", "seconds_left", "working"})
SPEEDS |= {"seconds_encoding", "seconds_with_decoding"}
RUN_ID = re.compile(r"(?<![-\w])[0-9a-f]{12}(?![0-9a-f])")
WHEN = re.compile(r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(,\d+)?")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


class Normal:
    """Replaces volatile parts; the same run gets the same placeholder throughout.

    Args:
        places: text -> placeholder, e.g. the address of a server of this call.
    """

    def __init__(self, places: Mapping[str, str] | None = None) -> None:
        self._places = dict(places or {})
        self._runs: dict[str, str] = {}

    def text(self, text: str) -> str:
        """A text without addresses of this call, run ids and colours."""
        text = ANSI.sub("", text)
        for place in sorted(self._places, key=len, reverse=True):
            text = text.replace(place, self._places[place])
        text = WHEN.sub("<when>", text)
        return RUN_ID.sub(lambda found: self._run(found[0]), text)

    def __call__(self, value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {self.text(str(key)): self(one, str(key)) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self(one, name) for one in value]
        if name in TIMES and value:
            return "<time>"
        if name in SPEEDS and value is not None:
            return "<speed>"
        if name == "machine":
            return "<machine>"
        return self.text(value) if isinstance(value, str) else value

    def _run(self, run_id: str) -> str:
        return self._runs.setdefault(run_id, f"<run-{len(self._runs) + 1}>")


def dumped(value: Any) -> str:
    """As it stands in a data file."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def differences(found: Any, wanted: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two JSON values differ; numbers with a fraction, also inside texts, may by so much."""
    if isinstance(wanted, float) and isinstance(found, int | float):
        near = abs(found - wanted) <= tolerance
        return [] if near else [f"{where}: {found!r} instead of {wanted!r}"]
    if type(found) is not type(wanted):
        return [f"{where}: {found!r} instead of {wanted!r}"]
    if isinstance(wanted, dict):
        if set(found) != set(wanted):
            odd = sorted(set(found) ^ set(wanted))
            return [f"{where}: only one has {odd[:5]}"]
        return [
            one
            for key in wanted
            for one in differences(found[key], wanted[key], tolerance, f"{where}/{key}")
        ]
    if isinstance(wanted, list):
        if len(found) != len(wanted):
            return [f"{where}: {len(found)} entries instead of {len(wanted)}"]
        return [
            one
            for place, (mine, theirs) in enumerate(zip(found, wanted, strict=True))
            for one in differences(mine, theirs, tolerance, f"{where}/{place}")
        ]
    if isinstance(wanted, str) and found != wanted:
        mine, theirs = NUMBER.findall(found), NUMBER.findall(wanted)
        near = len(mine) == len(theirs) and all(
            abs(float(a) - float(b)) <= tolerance for a, b in zip(mine, theirs, strict=True)
        )
        if near and NUMBER.sub("", found) == NUMBER.sub("", wanted):
            return []
    return [] if found == wanted else [f"{where}: {found!r} instead of {wanted!r}"]
