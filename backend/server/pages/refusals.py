"""Why a page is not shown, or does not do what was asked."""

from __future__ import annotations

from typing import ClassVar

from backend.errors import ClipError
from backend.messages.message import Message


class PageRefusedError(ClipError):
    """One that is told in the same words each time; base class.

    Attributes:
        told: what is wrong.
        remedy: what fixes it.
    """

    told: ClassVar[Message]
    remedy: ClassVar[Message]

    def __init__(self) -> None:
        super().__init__(self.told, self.remedy)


class TooManyPagesError(PageRefusedError):
    """Half of the request threads make other pages."""

    code = "busy"
    http_status = 503
    told = Message("Too many pages are being loaded at once.")
    remedy = Message("Load this page again in a few seconds.")


class InsecureConnectionError(PageRefusedError):
    """Label Studio is reached over https, and this page is not."""

    code = "insecure"
    http_status = 403
    told = Message("Pages are shown over https only, as Label Studio is.")
    remedy = Message(
        "Open the https address of the proxy before this server; it has to send "
        "X-Forwarded-Proto: https."
    )


class ForeignOriginError(PageRefusedError):
    """Another page has caused the request."""

    code = "foreign_origin"
    http_status = 403
    told = Message("This request comes from another page.")
    remedy = Message("Load this page anew, and use it itself.")


class CsrfError(PageRefusedError):
    """A write without the token that its page was given."""

    code = "csrf"
    http_status = 403
    told = Message("This page was loaded by somebody else, or before you signed in.")
    remedy = Message("Load the page again.")


class SignInError(PageRefusedError):
    """Label Studio does not know this person, or they have shown nothing."""

    code = "sign_in"
    http_status = 401
    told = Message("You are not signed in.")
    remedy = Message("Sign in to Label Studio, then load this page again.")


class NotAMemberError(ClipError):
    """They may not see this project, or there is none."""

    code = "no_project"
    http_status = 404

    def __init__(self, project: int) -> None:
        super().__init__(
            Message("There is no project {project} that you may see.", project=project),
            Message("Ask whoever runs Label Studio to let you see it."),
        )


class NotAnAdminError(PageRefusedError):
    """They may look, but not run things."""

    code = "no_admin"
    http_status = 403
    told = Message("Only admins of the project may do this.")
    remedy = Message("Ask whoever made the project, or one of LS_CLIP_ADMINS.")
