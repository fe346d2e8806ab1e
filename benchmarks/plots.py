"""Plots for the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

BLUE, GREY, ORANGE = "#2a6f97", "#8d99ae", "#d9822b"


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_curve(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Learning curves with a band of one standard deviation."""
    figure, axes = plt.subplots(figsize=(6.4, 4))
    for name, colour, label in (
        ("anchored", BLUE, "anchored at zero-shot"),
        ("scratch", GREY, "from scratch"),
    ):
        points = [row for row in rows if row[name] is not None]
        x = [max(row["reviewed"], 10) for row in points]
        mean = [row[name]["mean"] for row in points]
        low = [row[name]["mean"] - row[name]["sd"] for row in points]
        high = [row[name]["mean"] + row[name]["sd"] for row in points]
        axes.plot(x, mean, "o-", color=colour, label=label)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    ticks = [max(row["reviewed"], 10) for row in rows]
    axes.set_xticks(ticks, [str(row["reviewed"]) for row in rows], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("reviewed photos")
    axes.set_ylabel("mAP on the other half, %")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_bars(
    rows: Sequence[Mapping[str, Any]], name: str, column: str, path: Path, floor: float
) -> None:
    """Horizontal bars of mAP with error bars; ``floor`` draws zero-shot as a line."""
    figure, axes = plt.subplots(figsize=(6.4, 0.32 * len(rows) + 1.2))
    labels = [str(row[name]) for row in rows][::-1]
    mean = [row[column]["mean"] for row in rows][::-1]
    sd = [row[column]["sd"] for row in rows][::-1]
    colours = [ORANGE if label == "auto" else BLUE for label in labels]
    axes.barh(labels, mean, xerr=sd, color=colours, height=0.7)
    axes.axvline(floor, color="black", linewidth=1, linestyle="--")
    axes.text(floor, len(rows) - 0.4, " zero-shot", fontsize=8, va="bottom")
    axes.set_xlim(min([*mean, floor]) - 4, max(mean) + 3)
    axes.set_xlabel("mAP on the other half, %")
    _save(figure, path)


def plot_presets(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Precision against recall of the pseudo-positives of each preset."""
    figure, axes = plt.subplots(figsize=(5, 3.6))
    for row in rows:
        axes.plot(row["positive_recall"], row["positive_precision"], "o", color=BLUE)
        axes.annotate(
            row["preset"],
            (row["positive_recall"], row["positive_precision"]),
            textcoords="offset points",
            xytext=(6, 4 if row["preset"] != "released" else -12),
        )
    axes.axhline(0.95, color="black", linewidth=1, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(0.8, 1.01)
    axes.set_xlabel("share of true labels found")
    axes.set_ylabel("precision")
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_label_sets(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Clicks on small projects over clicks from nothing: mean as a line, the worst as a mark."""
    photos = list(dict.fromkeys(row["photos"] for row in rows))
    figure, panels = plt.subplots(1, len(photos), figsize=(4.2 * len(photos), 4), sharey=True)
    for axes, kind in zip(panels, photos, strict=True):
        of_kind = [row for row in rows if row["photos"] == kind]
        places = range(len(of_kind))
        for reviewed, colour in ((0, GREY), (15, ORANGE), (100, BLUE)):
            mean = [row.get(f"{reviewed} reviewed: mean") for row in of_kind]
            worst = [row.get(f"{reviewed} reviewed: worst") for row in of_kind]
            axes.plot(places, mean, "o-", color=colour, label=f"{reviewed} reviewed")
            axes.plot(places, worst, "v", color=colour, alpha=0.6, markersize=5)
        commonest = [row["commonest label only"] for row in of_kind]
        axes.plot(places, commonest, ":", color="black", label="commonest label only")
        axes.axhline(1.0, color="black", linewidth=1, linestyle="--")
        axes.set_xticks(places, [str(row["labels"]) for row in of_kind])
        axes.set_xlabel(f"labels ({kind} photos)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("clicks over clicks from nothing")
    panels[-1].plot([], [], "v", color=GREY, alpha=0.6, label="worst set")
    panels[-1].legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_own_photos(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """mAP and clicks by number of reviewed photos, with a bank of the whole project and without."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4))
    x = [max(row["reviewed"], 10) for row in rows]
    for bank, colour in (("whole project", BLUE), ("no bank", GREY)):
        left.plot(x, [row[f"mAP, {bank}"]["mean"] for row in rows], "o-", color=colour, label=bank)
        clicks = [row[f"clicks, {bank}"] for row in rows]
        right.plot(x, clicks, "o-", color=colour, label=f"suggestions, {bank}")
    for column, style in (("clicks, commonest label only", ":"), ("clicks from nothing", "--")):
        clicks = [row[column] for row in rows]
        label = column.removeprefix("clicks, ")
        right.plot(x, clicks, style, color="black", linewidth=1, label=label)
    left.set_ylabel("mAP on the other half, %")
    right.set_ylabel("clicks an image")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(x, [str(row["reviewed"]) for row in rows], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("reviewed photos")
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
    _save(figure, path)
