"""Errors carry what code needs to tell them apart, and show people the documented three fields."""

from __future__ import annotations

import json

import pytest

from backend.errors import (
    ClipError,
    ImageError,
    ImageReason,
    QueueError,
    RequestError,
    RunNotFoundError,
    StudioError,
)
from backend.labelstudio.refusals import Refusal, read_refusal


def test_an_error_shows_its_code_message_and_fix():
    error = ClipError("It is cut.", "Upload it again.", detail={"bytes": 3})
    assert error.as_dict() == {"code": "error", "message": "It is cut.", "fix": "Upload it again."}
    assert str(error) == "It is cut. Fix: Upload it again."
    assert error.detail == {"bytes": 3}
    assert error.http_status == 500


def test_our_http_status_and_that_of_label_studio_are_two_things():
    error = StudioError("It refuses.", status=403, reply="No.")
    assert (error.http_status, error.status, error.reply) == (502, 403, "No.")
    assert error.detail == {"status": 403, "reply": "No."}
    assert StudioError("It does not answer.").status is None


def test_an_image_error_has_its_reason_as_its_code():
    error = ImageError(ImageReason.TRUNCATED, "It is cut.")
    assert json.loads(json.dumps(error.as_dict()))["code"] == "truncated"
    assert error.http_status == 422


def test_a_request_error_carries_its_own_status_and_code():
    error = RequestError("No.", http_status=415, code="unsupported_media_type")
    assert (error.http_status, error.code) == (415, "unsupported_media_type")


def test_a_missing_run_is_a_404_and_the_queue_itself_is_a_503():
    assert (RunNotFoundError.http_status, RunNotFoundError.code) == (404, "queue")
    assert QueueError.http_status == 503


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        (
            "Authentication token no longer valid: legacy token authentication has been disabled "
            "for this organization",
            Refusal.LEGACY_TOKENS_OFF,
        ),
        ("Authentication credentials were not provided.", Refusal.PERSONAL_TOKENS_OFF),
        (
            "URL resolves to a reserved network address (block: 127.0.0.0/8)",
            Refusal.PRIVATE_ADDRESS,
        ),
        ("Can't resolve hostname clip.example", Refusal.UNKNOWN_HOST),
        ("{'url': ['Enter a valid URL.']}", Refusal.INVALID_URL),
        (
            "Reason: 401 Client Error: UNAUTHORIZED for url: http://127.0.0.1:9090/setup.",
            Refusal.BACKEND_UNAUTHORIZED,
        ),
        ("{'project': ['This field is required.']}", None),
        ("Can't connect to ML backend http://127.0.0.1:4010", None),
        ("", None),
    ],
)
def test_label_studios_sentences_are_read_in_one_place(reply: str, refusal: Refusal | None):
    assert read_refusal(reply) is refusal
