"""Every error that this project raises on purpose.

Each says what is wrong and how to mend it, and carries a stable code. The same three fields reach
the terminal, the log and the HTTP caller, so that one explanation serves all of them.
"""

from __future__ import annotations

from collections.abc import Mapping


class ClipError(Exception):
    """Something that a person can mend. Base of all errors below.

    Args:
        message: what is wrong, in one sentence.
        fix: the command, setting or change that mends it; may be empty.
    """

    code = "error"
    status = 500

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return as_text(self.as_dict())

    def as_dict(self) -> dict[str, str]:
        """The documented error shape: code, message, fix."""
        return {"code": self.code, "message": self.message, "fix": self.fix}


def as_text(error: Mapping[str, str]) -> str:
    """The documented error shape in one line, as the error itself would be printed."""
    fix = error.get("fix", "")
    return error.get("message", "") + (f" Fix: {fix}" if fix else "")


def counted(count: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class SettingsError(ClipError):
    """A setting is missing or has a value that cannot work."""

    code = "settings"


class LabelConfigError(ClipError):
    """The labeling configuration has nothing for us, or is not XML."""

    code = "label_config"
    status = 422


class EncoderError(ClipError):
    """The encoder cannot be loaded or cannot encode."""

    code = "encoder"
    status = 503


class StoreError(ClipError):
    """The embedding store cannot be read or written."""

    code = "store"
    status = 503


class StudioError(ClipError):
    """Label Studio refused a call, or did not answer."""

    code = "label_studio"
    status = 502


class QueueError(ClipError):
    """The queue is not set, cannot be reached, or knows nothing of what is asked for."""

    code = "queue"
    status = 503


class ImageError(ClipError):
    """One image cannot be had. ``reason`` is a short slug, used as a metric label.

    Args:
        reason: e.g. ``not_found``, ``too_large``, ``truncated``, ``private_address``.
    """

    code = "image"
    status = 422

    def __init__(self, reason: str, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.reason = reason


class RequestError(ClipError):
    """The caller's request is wrong.

    Args:
        status: the HTTP status to answer with (400, 401, 413, 415, 422 ...).
        code: a stable slug for the kind of mistake.
    """

    def __init__(self, status: int, code: str, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.status = status
        self.code = code
