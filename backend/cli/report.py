"""What ``ls-clip connect`` and ``ls-clip doctor`` print when they have done their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.console import console, plain
from backend.cli.line_breaks import flowing
from backend.errors import FIX, ClipError, counted
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message

if TYPE_CHECKING:
    from backend.doctor.finding import Finding
    from backend.projects.connect import ConnectReport


def print_error(error: ClipError, language: Language) -> None:
    """Print what is wrong, and the fix, a line each."""
    titles = {
        f"[bold red]{localized(Message('Error:'), language)}[/]": error.message,
        f"[bold]{localized(Message('Fix:'), language)}[/]": error.fix,
    }
    for title, text in titles.items():
        if text:
            # Not wrapped: a path or an address that is broken in two cannot be copied.
            said = plain(localized(text, language))
            console.print(f"{title} {said}", highlight=False, soft_wrap=True)


def print_note(text: str, language: Language) -> None:
    """Print something that a person should know."""
    note = localized(Message("Note:"), language)
    _say(f"[yellow]{note}[/] {plain(localized(text, language))}", language)


def _say(markup: str, language: Language) -> None:
    text = Text.from_markup(markup)
    if language is Language.JAPANESE:
        text = flowing(text, console.width)
    console.print(text, highlight=False)


def print_report(report: ConnectReport, language: Language) -> None:
    """Print what was connected, and what a person should know about it."""
    from backend.projects.review import (
        blind_sentence,
        order_sentence,
        tab_sentence,
        ticks_sentence,
    )

    def say(text: str) -> None:
        _say(plain(localized(text, language)), language)

    _print_predicted(report, language)
    if report.ticks is not None:
        say(ticks_sentence(report.ticks, report.tasks, required=report.required))
    if report.blind:
        say(blind_sentence(report.blind, report.tasks))
    say(order_sentence(report.order))
    if report.tab:
        say(tab_sentence(report.tab))
    annotated = report.tasks - report.predicted - len(report.failures)
    if annotated > 0:
        say(
            Message(
                "Annotated tasks, whose predictions stay as their annotators saw them: {tasks}.",
                tasks=annotated,
            )
        )
    if report.clicks is not None:
        say(report.clicks["text"])
    for warning in report.warnings:
        print_note(warning, language)
    for task, reason in list(report.failures.items())[:10]:
        title = localized(Message("Task {task}:", task=task), language)
        _say(f"[red]{title}[/] {plain(reason)}", language)
    if len(report.failures) > 10:
        more = Message("... and {more} more; all of them: --json", more=len(report.failures) - 10)
        console.print(localized(more, language))


def _print_predicted(report: ConnectReport, language: Language) -> None:
    tasks = counted(report.tasks, "task")
    if report.model_version:
        text = Message.of_count(
            report.predicted,
            "[green]{count} of {tasks}[/] has a prediction of [bold]{version}[/], which the "
            "project shows; {new}.",
            "[green]{count} of {tasks}[/] have a prediction of [bold]{version}[/], which the "
            "project shows; {new}.",
            tasks=tasks,
            version=report.model_version,
            new=Message.of_count(report.imported, "{count} is new", "{count} are new")
            if report.imported
            else Message("none is new"),
        )
    elif report.tasks:
        text = Message("None of {tasks} has a prediction; the project shows none.", tasks=tasks)
    else:
        text = Message("The project has no tasks yet. Import images, then run this again.")
    _say(localized(text, language), language)


def print_findings(findings: list[Finding], language: Language) -> None:
    """Print one line per finding: severity, check, what was found, why it matters, and the fix."""
    from backend.doctor.finding import Severity

    words = {
        Severity.OK: (Message("ok"), "green"),
        Severity.NOTE: (Message("note"), "cyan"),
        Severity.WARNING: (Message("warning"), "yellow"),
        Severity.ERROR: (Message("error"), "bold red"),
    }
    table = Table.grid(padding=(0, 1))
    for column in ("severity", "check"):
        table.add_column(column, no_wrap=True)
    table.add_column("finding", overflow="fold")
    out = Console()
    before = 2 + sum(
        max(map(cell_len, texts), default=0)
        for texts in (
            [localized(word, language) for word, _ in words.values()],
            [finding.check for finding in findings],
        )
    )
    for finding in findings:
        text = Text(localized(finding.what, language))
        if finding.why:
            text.append(f" {localized(finding.why, language)}", "dim")
        if finding.fix:
            text.append(f"{localized(FIX, language)}{localized(finding.fix, language)}", "bold")
        if language is Language.JAPANESE:
            text = flowing(text, max(20, out.width - before))
        word, colour = words[finding.severity]
        table.add_row(Text(localized(word, language), colour), Text(finding.check), text)
    out.print(table)
