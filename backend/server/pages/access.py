"""What happens before and after each page: who looks, and whether they may."""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, current_app, g, request

from backend.labelstudio.authorization import SESSION_COOKIE
from backend.labelstudio.person import Credential, CredentialKind
from backend.server.pages import protection
from backend.server.pages.refusals import NotAnAdminError, TooManyPagesError
from backend.server.pages.token_cookie import TokenCookie
from backend.server.pages.visitors import Visitor, Visitors
from backend.settings import Settings

_SESSION = re.compile(r"[\w.:=-]{1,4096}", re.ASCII)
"""Django's signed sessions: base64 with colons between their parts."""
_EXTENSION = "label-studio-clip-pages"


@dataclass
class Access:
    """What the pages of one application share.

    Attributes:
        settings: of this process.
        visitors: who they are, as Label Studio says.
        tokens: that people have pasted.
        secret: of CSRF tokens.
        places: for requests of pages: half of the threads, so that predictions and health checks
            always have the other half.
    """

    settings: Settings
    visitors: Visitors
    tokens: TokenCookie
    secret: bytes
    places: threading.BoundedSemaphore

    @classmethod
    def from_settings(cls, settings: Settings) -> Access:
        """Of a new application."""
        secret = settings.page_secret.get_secret_value().encode() or secrets.token_bytes(32)
        places = threading.BoundedSemaphore(max(1, settings.threads // 2))
        return cls(
            settings, Visitors(settings.label_studio_url), TokenCookie(secret), secret, places
        )


def attach(app: Flask, settings: Settings) -> None:
    """Give an application what its pages share."""
    app.extensions[_EXTENSION] = Access.from_settings(settings)


def access() -> Access:
    """What the pages of the application that handles the current request share."""
    shared: Access = current_app.extensions[_EXTENSION]
    return shared


def take_place() -> None:
    """Refuse a page while half of the threads make others.

    Raises:
        TooManyPagesError
    """
    if not access().places.acquire(blocking=False):
        raise TooManyPagesError
    g.has_place = True


def leave_place(error: BaseException | None) -> None:
    """The page is made, or has failed."""
    if g.pop("has_place", False):
        access().places.release()


def require_own_request() -> None:
    """Refuse what is not safe, or is caused by another origin.

    Raises:
        InsecureConnectionError, ForeignOriginError
    """
    protection.require_safe_connection(request, access().settings)
    protection.require_own_origin(request)


def visitor() -> Visitor:
    """Who looks at this page, and that what they write comes from it.

    Raises:
        SignInError: nobody that Label Studio knows.
        CsrfError: a write without the page's token.
        UnansweredError: Label Studio does not answer.
    """
    if "visitor" not in g:
        g.visitor = access().visitors.identify(_credential())
        protection.require_csrf_token(request, access().secret, g.visitor.credential)
    known: Visitor = g.visitor
    return known


def member_of(project: int) -> dict[str, Any]:
    """The project of this page, if its visitor may see it.

    Raises:
        SignInError, CsrfError: as for `visitor`.
        NotAMemberError: they may not.
        UnansweredError: Label Studio does not answer.
    """
    return access().visitors.project(visitor(), project)


def project_now(project: int) -> dict[str, Any]:
    """The same with its present counts, which Label Studio is asked for.

    Raises:
        SignInError, CsrfError, NotAMemberError: as for `member_of`.
        UnansweredError: Label Studio does not answer.
    """
    return access().visitors.project_now(visitor(), project)


def is_admin(project: dict[str, Any]) -> bool:
    """Whether the visitor may run things: predict, train, cancel, roll back."""
    person = visitor().person
    admins = access().settings.admin_list
    if admins:
        return person.email.lower() in admins
    creator = project.get("created_by") or {}
    return isinstance(creator, dict) and creator.get("id") == person.id


def require_admin(project: int) -> dict[str, Any]:
    """The project, if the visitor may run things there.

    Raises:
        SignInError, CsrfError, NotAMemberError: as for `member_of`.
        NotAnAdminError: they may not.
    """
    known = member_of(project)
    if not is_admin(known):
        raise NotAnAdminError
    return known


def csrf_token() -> str:
    """The token for what the visitor writes from this page."""
    return protection.csrf_token(access().secret, visitor().credential)


def protect(response: Response) -> Response:
    """See `protection.protect`."""
    return protection.protect(response)


def _credential() -> Credential | None:
    """What the browser shows: a pasted token, else Label Studio's session."""
    token = access().tokens.read(request.cookies)
    if token is not None:
        return Credential(CredentialKind.TOKEN, token)
    session = request.cookies.get(SESSION_COOKIE, "")
    if _SESSION.fullmatch(session) and protection.may_use_session(request, access().settings):
        return Credential(CredentialKind.SESSION, session)
    return None
