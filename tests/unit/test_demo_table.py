"""The table that the demo prints: the same units everywhere, and no rate of nothing."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from backend.demo.annotator import Measured, measurement_table
from backend.vlpl.clicks import Clicks

BEFORE = Measured(
    "v1", 60, 0.0, 2.7, 0.0, 0.0, 0.8125, Clicks(60, 2.7, (2.4, 3.0), 2.7, 0.0, (0.0, 0.0))
)
AFTER = replace(BEFORE, suggested=2.1, precision=0.875, recall=0.5)


def test_rates_are_in_percent_and_nothing_ticked_has_no_precision():
    console = Console(record=True, width=100)
    console.print(measurement_table({"before": BEFORE, "after": AFTER}))
    rows = {
        cells[0]: cells[1:]
        for line in console.export_text().splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│").split("│")]) == 3
    }
    assert rows["precision"] == ["nothing ticked", "87.5 %"]
    assert rows["recall"] == ["0.0 %", "50.0 %"]
    assert rows["mAP"] == ["81.2 %", "81.2 %"]
