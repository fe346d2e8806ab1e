"""What suggest and evaluate print for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from backend.inference.suggest import Suggestion


def print_suggestions(suggestions: Sequence[Suggestion], console: Console) -> None:
    """One row per file; then the files without a suggestion, with the reason."""
    table = Table("file", "suggested", "most probable")
    for suggestion in suggestions:
        if suggestion.error is not None:
            continue
        read = [item for item in suggestion.scores.items() if item[0] not in suggestion.unreadable]
        best = sorted(read, key=lambda item: -item[1])[:5]
        shown = ", ".join(f"{name} {100 * p:.0f} %" for name, p in best)
        table.add_row(
            Path(suggestion.file).name, ", ".join(suggestion.suggested) or "nothing", shown
        )
    if table.row_count:
        console.print(table)
    for suggestion in suggestions:
        if suggestion.error is not None:
            message = suggestion.error.message
            where = "" if suggestion.file in message else f"{suggestion.file}: "
            console.print(f"Error: {where}{message}", style="red", markup=False, soft_wrap=True)
            console.print(f"Fix: {suggestion.error.fix}", markup=False, soft_wrap=True)


def print_evaluation(result: Mapping[str, Any], console: Console) -> None:
    """The measures as a table; then the first images that could not be read."""
    table = Table("measure", "value", title=f"{result['images']} images, {result['encoder']}")
    for key, value in result.items():
        if isinstance(value, float):
            table.add_row(key, f"{value:.2f}")
    console.print(table)
    for file, reason in list(result["failed"].items())[:10]:
        console.print(f"{file}: {reason}", markup=False)
