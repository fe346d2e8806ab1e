"""Whether what a caller sends is the login, or the webhook secret, of the settings.

Label Studio sends basic authentication with the calls to an ML backend, and only headers of our
choice with webhooks. All comparisons take the same time whatever is sent.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress

from backend.labelstudio.events import SECRET_HEADER
from backend.settings import Settings

PAGE_BODY_BYTES = 65_536
"""What a page of ours may send, at most; who uses it is known only when Label Studio was asked."""


def body_limit(settings: Settings, headers: Mapping[str, str]) -> int:
    """How long a request's body may be, in bytes: what strangers send is not collected.

    Args:
        settings: of this process.
        headers: of the request, names in upper case.
    """
    # "|" looks at both, always, so that the time tells nothing.
    is_known = login_matches(settings, headers.get("AUTHORIZATION", "")) | webhook_secret_matches(
        settings, headers.get(SECRET_HEADER.upper(), "")
    )
    if is_known:
        return settings.max_body_bytes
    # Browsers name the page from which they send something.
    return min(PAGE_BODY_BYTES, settings.max_body_bytes) if "ORIGIN" in headers else 0


def login_matches(settings: Settings, authorization: str) -> bool:
    """Whether a header has the right basic authentication, or none is asked for.

    Args:
        settings: of this process.
        authorization: the header, its bytes read as Latin-1; empty if there is none.
    """
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if not user and not password:
        return True
    scheme, _, token = authorization.strip().partition(" ")
    sent = b""
    if scheme.lower() == "basic":
        with suppress(ValueError):  # Not base64.
            sent = b64decode(_bytes(token.strip()), validate=True)
    sent_user, colon, sent_password = sent.partition(b":")
    return bool(colon) & _equal(sent_user, user) & _equal(sent_password, password)


def webhook_secret_matches(settings: Settings, sent: str) -> bool:
    """Whether a header holds the webhook secret, or none is asked for.

    Without a secret but with a login configured no header does; without either, every one.

    Args:
        settings: of this process.
        sent: the header, its bytes read as Latin-1; empty if there is none.
    """
    secret = settings.webhook_secret.get_secret_value()
    if not secret:
        return not settings.basic_auth_user
    return _equal(_bytes(sent), secret)


def _equal(sent: bytes, expected: str) -> bool:
    """Compare with a setting in UTF-8 and in Latin-1, which clients send, too."""
    utf_8 = expected.encode(errors="surrogateescape")
    latin_1 = expected.encode("latin-1", errors="replace")
    is_latin_1 = latin_1.decode("latin-1") == expected
    return hmac.compare_digest(sent, utf_8) | (hmac.compare_digest(sent, latin_1) & is_latin_1)


def _bytes(header: str) -> bytes:
    """The bytes of a header as they were sent; no other characters are possible in one."""
    return header.encode("latin-1", errors="replace")
