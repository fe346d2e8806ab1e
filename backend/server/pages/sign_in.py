"""Where people sign in who do not come from Label Studio's own host name."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from backend.labelstudio.person import Credential, CredentialKind
from backend.server.pages.access import access, visitor
from backend.server.pages.refusals import SignInError
from backend.server.pages.rendering import page

blueprint = Blueprint("sign_in", __name__)


@blueprint.get("/sign-in")
def show() -> Response:
    """Where a token can be pasted."""
    return sign_in_page(request.args.get("next", ""), 200)


@blueprint.post("/sign-in")
def sign_in() -> AnyResponse:
    """Keep the token that was pasted, if Label Studio knows it, for 12 hours."""
    credential = Credential(CredentialKind.TOKEN, request.form.get("token", "").strip())
    after = _own_path(request.form.get("next", ""))
    try:
        access().visitors.identify(credential)
    except SignInError:
        return sign_in_page(after, 401, refused=True)
    answer = redirect(after or url_for("pages.sign_in.show"), 303)
    access().tokens.write(answer, credential.value)
    return answer


@blueprint.post("/sign-out")
def sign_out() -> AnyResponse:
    """Forget a token that was pasted; Label Studio's own session is not touched."""
    access().visitors.forget(visitor().credential)
    answer = redirect(url_for("pages.sign_in.show"), 303)
    access().tokens.clear(answer)
    return answer


def sign_in_page(after: str, status: int, *, refused: bool = False) -> Response:
    """The page with the ways in.

    Args:
        after: the path of ours that was asked for.
        status: of the answer.
        refused: whether Label Studio did not know the token that was pasted.
    """
    return page(
        "sign_in.html",
        status,
        after=_own_path(after),
        refused=refused,
        studio=access().settings.studio_address,
        visitor=None,
    )


def _own_path(path: str) -> str:
    """A path of ours, or nothing: a browser is sent nowhere else."""
    parts = urlsplit(path)
    is_own = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_own and not parts.scheme and not parts.netloc else ""
