"""What keeps pages from being used by anyone but the person who looks at them.

Label Studio at another port is the same *site* to a browser, and its cookies come here, too. So a
page of another origin must be able neither to write in a person's name nor to embed or read what
they may see. See docs/security.md.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from flask import Request, Response

from backend.labelstudio.person import Credential
from backend.server.pages.refusals import (
    CsrfError,
    ForeignOriginError,
    InsecureConnectionError,
)
from backend.settings import LOOPBACK, Settings

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
"""The same token as a field of a form."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_FETCHES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site of requests that no other origin has caused."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def origin_of(request: Request) -> str:
    """The origin at which a browser reaches us, such as ``https://clip.example.com``."""
    return f"{'https' if is_https(request) else 'http'}://{request.host}"


def is_https(request: Request) -> bool:
    """Whether the browser's connection is encrypted; a proxy before us says so."""
    return request.is_secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def require_safe_connection(request: Request, settings: Settings) -> None:
    """Refuse to show pages over http where Label Studio itself is reached over https.

    Raises:
        InsecureConnectionError
    """
    if urlsplit(settings.studio_address).scheme == "https" and not is_https(request):
        raise InsecureConnectionError


def require_own_origin(request: Request) -> None:
    """Refuse what another origin has caused: any write, and reading what is no page.

    Raises:
        ForeignOriginError
    """
    is_write = request.method not in _SAFE_METHODS
    site = request.headers.get("Sec-Fetch-Site", "none")
    is_navigation = request.headers.get("Sec-Fetch-Mode") == "navigate"
    is_foreign = site not in _OWN_FETCHES and (is_write or not is_navigation)
    if is_foreign or (is_write and request.headers.get("Origin") != origin_of(request)):
        raise ForeignOriginError


def may_use_session(request: Request, settings: Settings) -> bool:
    """Whether the browser's session cookie is Label Studio's: it is, on the same host name."""
    theirs = (urlsplit(settings.studio_address).hostname or "").lower()
    ours = (urlsplit(f"//{request.host}").hostname or "").lower()
    return ours == theirs or (settings.label_studio_public_url == "" and {ours, theirs} <= LOOPBACK)


def csrf_token(secret: bytes, credential: Credential) -> str:
    """The token that a person's writes must carry, 64 hexadecimal digits."""
    return hmac.new(secret, f"csrf:{credential.digest}".encode(), hashlib.sha256).hexdigest()


def require_csrf_token(request: Request, secret: bytes, credential: Credential) -> None:
    """Refuse a write without the token of its person.

    Raises:
        CsrfError
    """
    if request.method in _SAFE_METHODS:
        return
    sent = request.headers.get(CSRF_HEADER) or request.form.get(CSRF_FIELD, "")
    if not hmac.compare_digest(sent.encode(), csrf_token(secret, credential).encode()):
        raise CsrfError


def protect(response: Response) -> Response:
    """Add the headers that bind a page to its own origin; nothing of it is kept by a browser."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response
