"""Every error that this project raises on purpose.

Each one says what is wrong and how to fix it, and carries a machine-readable code. The same three
fields reach the terminal, the log and the HTTP caller. Code tells errors apart by their class,
their ``code`` or their ``detail``, never by their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from backend.messages.catalogue import Language, localized
from backend.messages.message import Message

FIX = Message(" Fix: ")
"""Between what is wrong and how it is fixed."""


class ClipError(Exception):
    """Something that a person can fix. Base class of all errors below.

    Args:
        message: what is wrong, in one sentence; a `Message` where it can be translated.
        fix: the command, setting or change that fixes it; may be empty.
        detail: structured facts about the failure, for code and logs.

    Attributes:
        code: a stable slug for the kind of error.
        http_status: the HTTP status that our server answers with.
    """

    code: str = "error"
    http_status: int = 500

    def __init__(
        self, message: str, fix: str = "", *, detail: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.detail: dict[str, object] = dict(detail or {})

    def __str__(self) -> str:
        return as_text(self.as_dict())

    def as_dict(self, language: Language = Language.ENGLISH) -> dict[str, str]:
        """The documented error shape: code, message, fix."""
        return {
            "code": str(self.code),
            "message": localized(self.message, language),
            "fix": localized(self.fix, language),
        }

    def in_words(self, language: Language) -> str:
        """The error in one line, in a language."""
        return as_text(self.as_dict(language), language)


def as_text(error: Mapping[str, str], language: Language = Language.ENGLISH) -> str:
    """The documented error shape in one line, as the error itself would be printed."""
    fix = error.get("fix", "")
    return error.get("message", "") + (f"{localized(FIX, language)}{fix}" if fix else "")


def without_fix(text: str, language: Language) -> str:
    """What is wrong, of an error that is in one line."""
    return text.partition(localized(FIX, language))[0]


def counted(count: int, noun: str) -> Message:
    """``1 task``, ``2 tasks``."""
    return Message.of_count(count, f"{{count}} {noun}", f"{{count}} {noun}s")


def with_verb(count: int, noun: str, singular: str, plural: str) -> Message:
    """``no task has``, ``1 task has``, ``2 tasks have``."""
    told = counted(count, noun) if count else f"no {noun}"
    text = f"{told} {plural if count > 1 else singular}"
    return Message.restored(text, f"{{count}} {noun}s {plural}", {"count": count})


class SettingsError(ClipError):
    """A setting or an argument is missing, or has a value that cannot work."""

    code = "settings"


class LabelConfigError(ClipError):
    """The labeling configuration has no control that we support, or is not XML."""

    code = "label_config"
    http_status = 422


class EncoderError(ClipError):
    """The encoder cannot be loaded or cannot encode."""

    code = "encoder"
    http_status = 503


class RegionsError(EncoderError):
    """The encoder's model has no regions of the kind that was asked for."""


class StoreError(ClipError):
    """The embedding store cannot be read or written."""

    code = "store"
    http_status = 503


class StudioError(ClipError):
    """Label Studio refused a call, or did not answer.

    Args:
        message: what is wrong, in one sentence.
        fix: what fixes it; may be empty.
        status: the HTTP status that Label Studio answered with; None if it gave no answer.
        reply: Label Studio's own words, shortened; empty if it gave none.

    Attributes:
        detail: ``status`` and ``reply``.
    """

    code = "label_studio"
    http_status = 502

    def __init__(
        self, message: str, fix: str = "", *, status: int | None = None, reply: str = ""
    ) -> None:
        super().__init__(message, fix, detail={"status": status, "reply": reply})
        self.status = status
        self.reply = reply


class QueueError(ClipError):
    """The queue is not configured or cannot be reached."""

    code = "queue"
    http_status = 503


class RunInProgressError(QueueError):
    """A project's run in progress is not what was asked for."""

    code = "run_in_progress"
    http_status = 409


class RunNotFoundError(QueueError):
    """The queue knows no run with this id, or several."""

    http_status = 404


class ImageReason(StrEnum):
    """Why an image, or the task that it belongs to, gets no prediction.

    The values are the codes of `ImageError` and the labels of the failure metrics; docs/images.md
    explains those that a fetch or a decoder can give.
    """

    # The address.
    BAD_URL = "bad_url"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    CREDENTIALS_IN_URL = "credentials_in_url"
    PATH_TRAVERSAL = "path_traversal"
    PRIVATE_ADDRESS = "private_address"
    OFFLINE = "offline"
    NO_IMAGE = "no_image"
    # The transfer.
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    # The file.
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_COSTLY = "too_costly"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    # The task's labels.
    NO_CONTROLS = "no_controls"
    NO_LABELS = "no_labels"
    # This program.
    BUSY = "busy"
    NOT_FINITE = "not_finite"
    NOT_STORED = "not_stored"
    WORKER_DIED = "worker_died"
    INTERNAL = "internal"
    # What an image needed could not be used; the codes of the errors above.
    LABEL_STUDIO = StudioError.code
    ENCODER = EncoderError.code


class ImageError(ClipError):
    """One image cannot be used. Its ``code`` is the reason.

    Args:
        reason: why.
        message: what is wrong, in one sentence.
        fix: what fixes it; may be empty.
    """

    http_status = 422

    def __init__(self, reason: ImageReason, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.reason = reason
        self.code = reason


class RequestError(ClipError):
    """The caller's request is wrong.

    Args:
        message: what is wrong, in one sentence.
        fix: what fixes it; may be empty.
        http_status: the HTTP status to answer with (400, 401, 413, 415, 422 ...).
        code: a stable slug for the kind of mistake.
    """

    def __init__(self, message: str, fix: str = "", *, http_status: int, code: str) -> None:
        super().__init__(message, fix)
        self.http_status = http_status
        self.code = code
