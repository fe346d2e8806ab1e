"""Tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def cell(value: Any) -> str:
    """The text of a table cell: mean ± standard deviation, or a number with three digits."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        if math.isnan(value["mean"]):
            return "–"
        return f"{value['mean']:.1f} ± {value['sd']:.1f}"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; ``mean``, ``sd`` and ``values`` of a row become one column, mAP."""
    flat = []
    for row in rows:
        kept = {name: item for name, item in row.items() if name not in {"mean", "sd", "values"}}
        if "mean" in row:
            kept["mAP"] = {"mean": row["mean"], "sd": row["sd"]}
        flat.append(kept)
    names = list(dict.fromkeys(name for row in flat for name in row))
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|" + "---|" * len(names))
    lines += ["| " + " | ".join(cell(row.get(name, "")) for name in names) + " |" for row in flat]
    return "\n".join(lines)
