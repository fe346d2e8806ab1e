"""Why an image has no embedding."""

from __future__ import annotations

from backend import telemetry
from backend.errors import ClipError, EncoderError, ImageError, ImageReason, StudioError
from backend.messages.message import Message

Failures = dict[str, ImageError]
"""Image address -> why there is no embedding of it."""
NOT_FINITE = ImageError(
    ImageReason.NOT_FINITE,
    Message("The model gives no finite embedding for the image."),
    Message("Set LS_CLIP_PRECISION=float32; if that does not help, the weights are damaged."),
)


def late() -> ImageError:
    """The failure of an image that was not embedded before the deadline."""
    return ImageError(
        ImageReason.TIMEOUT,
        Message("The image was not ready within LS_CLIP_PREDICT_SECONDS."),
        Message("Open the task again, or run ls-clip connect, which takes its time."),
    )


def count(failures: Failures) -> None:
    """Add failures to the metrics."""
    for failure in failures.values():
        telemetry.IMAGE_FAILURES.labels(failure.reason).inc()


def as_image_error(error: Exception) -> ImageError:
    """Any error while an image was fetched or encoded, as the failure of this image."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, ClipError):
        return ImageError(_reason(error), error.message, error.fix)
    kind = type(error).__name__
    return ImageError(
        ImageReason.INTERNAL,
        Message("Unexpected {kind}.", kind=kind),
        Message("The log has the details."),
    )


def _reason(error: ClipError) -> ImageReason:
    if isinstance(error, StudioError):
        return ImageReason.LABEL_STUDIO
    return ImageReason.ENCODER if isinstance(error, EncoderError) else ImageReason.INTERNAL
