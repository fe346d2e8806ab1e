"""Findings of the doctor, and how its checks are run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from backend.doctor.context import Context
from backend.errors import ClipError
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Everything works, but people should know."""
    WARNING = "warning"
    """Some suggestions are missing or wrong."""
    ERROR = "error"
    """Something does not work until it is fixed."""


NAMED_TASKS = 5
"""Tasks that a finding names, at most."""


def named_tasks(tasks: Collection[int]) -> Message:
    """Ids for people to look at: ``task 7``, or ``tasks 1, 2, 3, 4, 5 and 40 more``."""
    first = sorted(tasks)[:NAMED_TASKS]
    more = len(tasks) - len(first)
    listed = ", ".join(map(str, first))
    if more:
        return Message("tasks {listed} and {more} more", listed=listed, more=more)
    if len(tasks) == 1:
        return Message("task {listed}", listed=listed)
    return Message("tasks {listed}", listed=listed)


_EXIT_CODES = {Severity.OK: 0, Severity.NOTE: 0, Severity.WARNING: 1, Severity.ERROR: 2}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: the id of the check; docs/troubleshooting.md explains each.
        severity: how bad it is.
        what: what was found.
        why: why it matters.
        fix: the command or setting that fixes it.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    fix: str = ""

    def in_language(self, language: Language) -> Finding:
        """The same finding, said in a language."""
        return replace(
            self,
            what=localized(self.what, language),
            why=localized(self.why, language),
            fix=localized(self.fix, language),
        )

    def as_dict(self) -> dict[str, str]:
        """The finding as ``ls-clip doctor --json`` prints it."""
        return asdict(self)


CheckFunction = Callable[[Context], Iterable[Finding]]
"""Yields what is wrong, nothing if all is well. A ClipError is reported as an error."""


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    Attributes:
        id: short and stable.
        all_well: reported if the function yields nothing.
        why: why it matters; reported with a ClipError that the function raises.
        function: examines the context.
        needs: ids of checks that must succeed first; without them this one could only repeat
            their findings.
        project: whether it examines a project.
    """

    id: str
    all_well: str
    why: str
    function: CheckFunction
    needs: tuple[str, ...] = ()
    project: bool = False


def examine(context: Context, checks: Iterable[Check]) -> list[Finding]:
    """Run the checks in order.

    A check that needs a failed one is skipped, and so is a failure that repeats an earlier one in
    the same words. A last finding names all that were skipped.
    """
    findings: list[Finding] = []
    failed: set[str] = set()
    skipped: list[str] = []
    for check in checks:
        if check.project and context.number is None:
            continue
        results = [] if failed & set(check.needs) else _run(check, context)
        if results and not _all_repeated(results, findings):
            findings += results
        else:
            skipped.append(check.id)
        if not results or any(result.severity is Severity.ERROR for result in results):
            failed.add(check.id)
    if skipped:
        findings.append(
            Finding(
                "skipped",
                Severity.NOTE,
                Message("Not checked: {names}.", names=", ".join(skipped)),
                Message("They depend on what failed above."),
                Message("Fix the errors, then run ls-clip doctor again."),
            )
        )
    return findings


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing, or notes only; 1: warnings; 2: errors."""
    return max((_EXIT_CODES[finding.severity] for finding in findings), default=0)


def _run(check: Check, context: Context) -> list[Finding]:
    try:
        findings = list(check.function(context))
        return findings or [Finding(check.id, Severity.OK, check.all_well)]
    except ClipError as error:
        return [Finding(check.id, Severity.ERROR, error.message, check.why, error.fix)]
    except Exception as error:
        # One broken check must not stop the others.
        detail = (str(error).splitlines() or [""])[0][:300]
        return [
            Finding(
                check.id,
                Severity.ERROR,
                Message(
                    "This check itself failed: {kind}: {detail}",
                    kind=type(error).__name__,
                    detail=detail,
                ),
                Message("What it examines is unknown."),
                Message("Please report it, with the output of ls-clip doctor --json."),
            )
        ]


def _all_repeated(results: list[Finding], earlier: list[Finding]) -> bool:
    """Whether all results are errors that an earlier check reported in the same words."""
    reported = {finding.what for finding in earlier}
    return all(result.severity is Severity.ERROR and result.what in reported for result in results)
