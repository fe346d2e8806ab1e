"""The page that ``ls-clip compare-encoders --report`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.cli import markdown
from backend.errors import counted

if TYPE_CHECKING:
    from backend.evaluation.comparison import Comparison
    from backend.evaluation.whole_protocol import Protocol, Section

LOCAL = "local-dir"
"""Of encoders that are named by a folder."""
CURVE = (0, 25, 100, 400)
"""Numbers of reviewed images that the block to paste tells of."""
SIZES = (5, 10, 20)
"""The same of labels in a small project."""


def protocol_page(comparison: Comparison, summary: Sequence[str]) -> str:
    """The page as Markdown.

    Args:
        comparison: with the whole protocol.
        summary: the lines that the command prints.
    """
    return "\n".join([*_page(comparison, summary), ""])


def _page(comparison: Comparison, summary: Sequence[str]) -> Iterator[str]:
    yield "# Encoders measured on labelled images"
    yield ""
    yield from summary
    yield ""
    yield "## To paste into an issue"
    yield ""
    yield (
        "It holds figures, the encoders' ids and the machine; no label, no file name, no image. "
        "Figures with real CLIP weights are welcome: the project could publish none of its own."
    )
    yield ""
    yield "````text"
    yield from _block(comparison)
    yield "````"
    for protocol in comparison.protocols:
        yield ""
        yield f"## {protocol.label}"
        yield ""
        left_out = comparison.labels - protocol.labels
        unread = f"; {counted(left_out, 'label')} that it cannot read left out" if left_out else ""
        yield (
            f"`{protocol.encoder}`, {counted(protocol.images, 'image')}, "
            f"{counted(protocol.labels, 'label')}{unread}, {protocol.table} probabilities."
        )
        for section in protocol.sections:
            yield ""
            yield f"### {section.title}"
            yield ""
            yield section.note
            yield ""
            if section.error:
                yield f"It failed: {section.error}"
            else:
                yield markdown.table(section.rows) if section.rows else "Too few images or labels."


def _block(comparison: Comparison) -> Iterator[str]:
    yield (
        f"ls-clip compare-encoders, {comparison.date}: {counted(comparison.images, 'image')}, "
        f"{counted(comparison.labels, 'label')}"
    )
    if comparison.measured:
        nothing = comparison.measured[0]["clicks_from_nothing"]
        yield f"clicks from nothing, an image: {nothing:.2f}"
    yield comparison.machine
    for protocol in comparison.protocols:
        yield ""
        yield f"{_public_id(protocol)} ({protocol.table} probabilities)"
        yield from _figures(protocol)


def _public_id(protocol: Protocol) -> str:
    """The encoder's id without the name of a folder of one's own."""
    kind, _, place = protocol.name.partition(":")
    return (
        protocol.encoder.replace(Path(place).name, "local") if kind == LOCAL else protocol.encoder
    )


def _figures(protocol: Protocol) -> Iterator[str]:
    by_title: Mapping[str, Section] = {section.title: section for section in protocol.sections}
    for row in by_title["Zero-shot"].rows:
        yield f"  zero-shot, {row['variant']}: mAP {markdown.cell(row)}"
    curve = by_title["What a project gains from its own images"].rows
    for row in curve:
        if row["reviewed"] in CURVE:
            yield (
                f"  {row['reviewed']} reviewed: mAP {markdown.cell(row['mAP, no bank'])}, with "
                f"votes {markdown.cell(row['mAP, whole project'])}; clicks "
                f"{_share(row, 'no bank')}, with votes {_share(row, 'whole project')} of nothing "
                f"({_share(row, 'commonest label only')} by the commonest label alone)"
            )
    for row in by_title["Small projects"].rows:
        if row["labels"] in SIZES and row["sets"]:
            told = [name for name in row if name.endswith(": mean")]
            shares = ", ".join(
                f"{row[name]:.2f} (worst {row[name.replace('mean', 'worst')]:.2f}) at "
                f"{name.split()[0]}"
                for name in told
            )
            yield (
                f"  {row['labels']} labels, {row['photos']} images, {counted(row['sets'], 'set')}: "
                "clicks "
                f"{shares} reviewed ({row['commonest label only']:.2f} by the commonest label "
                "alone)"
            )


def _share(row: Mapping[str, Any], bank: str) -> str:
    return f"{row[f'clicks, {bank}'] / max(row['clicks from nothing'], 1e-9):.2f}"
