"""``ls-clip compare-encoders``, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.cli.console import JsonOption, configured, console, reserved
from backend.cli.progress import progress_bar
from backend.cli.protocol_page import protocol_page
from backend.errors import SettingsError, counted

if TYPE_CHECKING:
    from backend.evaluation.comparison import Comparison

comparison_app = typer.Typer()

COLUMNS = (
    "encoder",
    "regions",
    "mAP",
    "less than the best (95 %)",
    "clicks",
    "s/image encoding",
    "with decoding",
    "bytes/image",
    "dim",
    "device",
    "note",
)
TITLE = "### Encoders compared on labelled images"
SHOWN_FAILURES = 10


@comparison_app.command()
def compare_encoders(
    folder: Annotated[Path, typer.Argument(help="A folder with images/ and labels.json.")],
    encoders: Annotated[
        str, typer.Option(help='Comma-separated, e.g. "offline,open_clip:MODEL/TAG".')
    ],
    regions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: none, cells, patches, tiles, auto; default: for each encoder "
            "all that its model has. Tiles take ten encodes an image."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also run the whole protocol (minutes for each choice): zero-shot variants, votes "
            "of similar images, reviews, small projects. Write it as a page to this file, which "
            "must not exist."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure several encoders and regions on labelled images: quality, clicks, time and space.

    The folder is one for *ls-clip evaluate*. Prints Markdown, to be read or pasted. Nothing is
    stored. Exits with 1 if no choice could be measured.
    """
    settings = configured()
    names = _items("--encoders", encoders)
    wanted = [] if regions is None else _items("--regions", regions)
    with reserved({"--report": report}):
        from backend.evaluation.comparison import compare

        with progress_bar() as progress:
            comparison = compare(
                settings, folder, names, wanted, progress, whole_protocol=report is not None
            )
        if report is not None:
            _write(report, protocol_page(comparison, [*_summary(comparison)]))
    if as_json:
        typer.echo(json.dumps(comparison.as_dict(), ensure_ascii=False))
    else:
        typer.echo("\n".join([TITLE, "", *_summary(comparison)]))
        if report is not None:
            console.print(f"The page is {report}.", highlight=False, markup=False, soft_wrap=True)
    if not comparison.measured:
        raise typer.Exit(1)


def _write(report: Path, page: str) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        # It has taken minutes, or hours.
        typer.echo(page)
        raise SettingsError(
            f"{report} cannot be written: {error.strerror}.",
            "The page was printed instead; copy it from there.",
        ) from error


def _items(option: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise SettingsError(f"{option} names none.", f"Write {option} NAME,NAME.")
    return items


def _summary(comparison: Comparison) -> Iterator[str]:
    """Markdown that is readable as it is, without a heading."""
    if comparison.measured:
        left_out = f"; {counted(len(comparison.failed), 'image')} left out of all rows"
        yield (
            f"- {counted(comparison.images, 'image')}, {counted(comparison.labels, 'label')} "
            f"(mAP over {comparison.map_labels} of them){left_out if comparison.failed else ''}"
        )
        nothing = comparison.measured[0]["clicks_from_nothing"]
        yield f"- clicks: labels to add and to remove, an image; from nothing {nothing:.2f}"
    yield f"- {comparison.machine}; {comparison.date}"
    yield ""
    behind = {
        how.label: f"{how.difference:.1f} ({how.low:.1f} to {how.high:.1f})"
        for how in comparison.recommendation.behind
    }
    yield from _table([_cells(row, behind) for row in comparison.rows])
    yield ""
    for row in comparison.measured:
        yield f"- {row['encoder']}, {row['regions']}: `{row['embedding_id']}`"
    for file, reason in list(comparison.failed.items())[:SHOWN_FAILURES]:
        yield f"- {file} left out: {reason}"
    if len(comparison.failed) > SHOWN_FAILURES:
        yield f"- ... and {len(comparison.failed) - SHOWN_FAILURES} more; all of them: --json"
    yield ""
    yield comparison.recommendation.text


def _cells(row: Mapping[str, Any], behind: Mapping[str, str]) -> list[str]:
    """A row's texts, in the order of `COLUMNS`.

    Args:
        row: of the comparison.
        behind: label -> how far it is behind the best.
    """
    if "error" in row:
        blank = ["–"] * (len(COLUMNS) - 3)
        return [row["encoder"], row["regions"] or "–", *blank, row["error"]["message"]]
    quality = "–" if row["map"] is None else f"{row['map']:.1f}"
    return [
        row["encoder"],
        row["regions"],
        quality,
        behind.get(row["label"], "–"),
        f"{row['clicks_per_image']:.2f}",
        f"{row['seconds_encoding']:.3g}",
        f"{row['seconds_with_decoding']:.3g}",
        str(row["bytes_per_image"]),
        str(row["dim"]),
        f"{row['device']}, {row['precision']}",
        "; ".join(_notes(row)),
    ]


def _notes(row: Mapping[str, Any]) -> Iterator[str]:
    if row["table"] == "fitted":
        yield "ticks by the fitted table"
    if row["unreadable_labels"]:
        yield f"cannot read {counted(len(row['unreadable_labels']), 'label')}"


def _table(rows: list[list[str]]) -> Iterator[str]:
    """A Markdown table whose columns are aligned in plain text, too."""
    texts = [list(COLUMNS), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    # The last column is prose, and may be long.
    widths = [*(max(map(len, column)) for column in list(zip(*texts, strict=True))[:-1]), 4]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in texts
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from (lines[0], rule, *lines[1:])
