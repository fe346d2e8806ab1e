"""What the doctor says, and how its checks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from backend.doctor.context import Context
from backend.errors import ClipError

Severity = Literal["ok", "note", "warning", "error"]
EXIT_CODES: dict[Severity, int] = {"ok": 0, "note": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        check: the id of the check; docs/troubleshooting.md has a section for each.
        severity: ``ok``; ``note`` (works, but know it); ``warning`` (some suggestions are missing
            or wrong); ``error`` (something does not work until it is mended).
        what: what was found.
        why: why it matters.
        fix: the command or setting that mends it.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


Look = Callable[[Context], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    Attributes:
        id: short, stable.
        fine: what is reported if nothing is found.
        why: why it matters, where a ClipError is raised instead of a finding.
        look: yields what is wrong; may raise a ClipError, which is reported like an error.
        needs: ids of checks without whose success this one could only repeat their finding.
        project: whether it looks at a project.
    """

    id: str
    fine: str
    why: str
    look: Look
    needs: tuple[str, ...] = ()
    project: bool = False


def examine(context: Context, checks: Iterable[Check]) -> list[Finding]:
    """Run the checks in order; what depends on a failed one is named in one line at the end."""
    findings: list[Finding] = []
    failed: set[str] = set()
    skipped: list[str] = []
    for check in checks:
        if check.project and context.number is None:
            continue
        found = [] if failed & set(check.needs) else _run(check, context)
        if found and not _said_already(found, findings):
            findings += found
        else:
            skipped.append(check.id)
        if not found or any(one.severity == "error" for one in found):
            failed.add(check.id)
    if skipped:
        findings.append(
            Finding(
                "skipped",
                "note",
                f"Not looked at: {', '.join(skipped)}.",
                "They depend on what failed above.",
                "Mend the errors, then run ls-clip doctor again.",
            )
        )
    return findings


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing, or notes only; 1: warnings; 2: errors."""
    return max((EXIT_CODES[one.severity] for one in findings), default=0)


def _run(check: Check, context: Context) -> list[Finding]:
    try:
        return list(check.look(context)) or [Finding(check.id, "ok", check.fine)]
    except ClipError as error:
        return [Finding(check.id, "error", error.message, check.why, error.fix)]
    except Exception as error:
        # A doctor that falls over tells nothing about what comes after.
        detail = (str(error).splitlines() or [""])[0][:300]
        return [
            Finding(
                check.id,
                "error",
                f"This check itself failed: {type(error).__name__}: {detail}",
                "Nothing is known about what it looks at.",
                "Please report it, with the output of ls-clip doctor --json.",
            )
        ]


def _said_already(found: list[Finding], before: list[Finding]) -> bool:
    """Whether another check has failed in the same words: one cause is told once."""
    said = {one.what for one in before}
    return all(one.severity == "error" and one.what in said for one in found)
