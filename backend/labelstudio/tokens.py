"""Label Studio's tokens, and those that cannot work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt

from backend.errors import StudioError
from backend.messages.message import Message

TOKEN_FIX = Message(
    "Create a token in Label Studio (Account & Settings > Personal Access Token) and set "
    "LABEL_STUDIO_API_KEY to it."
)


RENEWED_BEFORE = timedelta(seconds=60)
"""An access token lives five minutes, and is exchanged for another one so long before its end."""


class StudioTokenError(StudioError):
    """The token is missing, malformed, expired or refused."""


def ends_soon(expires: datetime | None) -> bool:
    """Whether an access token is to be renewed; None: there is none yet."""
    return expires is not None and expires - datetime.now(UTC) < RENEWED_BEFORE


def refuse_access_token(key: str) -> None:
    """Refuse an access token, and what is left of a token that was cut.

    Args:
        key: as it is set.

    Raises:
        StudioTokenError: it is an access token, or only a part of a token.
    """
    if not key.startswith("eyJ"):
        return
    try:
        kind = jwt.decode(key, options={"verify_signature": False}).get("token_type")
    except jwt.ExpiredSignatureError:
        return
    except jwt.InvalidTokenError as error:
        raise StudioTokenError(
            Message("The Label Studio token is incomplete: characters are missing."),
            TOKEN_FIX,
        ) from error
    if kind == "access":
        raise StudioTokenError(
            Message("The Label Studio token is an access token, which lives five minutes."),
            TOKEN_FIX,
        )
