"""The routes of the pages."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from backend.errors import ClipError
from backend.labelstudio.person import Credential, CredentialKind
from backend.projects.overview import overview
from backend.projects.state_words import OUTCOMES, RUN_STATES, TRAINING_STATES
from backend.server.pages import access as pages
from backend.server.pages.access import access
from backend.server.pages.refusals import SignInError
from backend.server.pages.rendering import FOLDER, error_page, page
from backend.server.state import state
from jobs.run import ENDED

log = logging.getLogger(__name__)

blueprint = Blueprint(
    "pages", __name__, static_folder=FOLDER / "static", static_url_path="/pages/static"
)
blueprint.before_request(pages.take_place)
blueprint.before_request(pages.require_own_request)
blueprint.after_request(pages.protect)
blueprint.teardown_request(pages.leave_place)


@blueprint.errorhandler(ClipError)
def show_error(error: ClipError) -> AnyResponse:
    """An error as a page, or as JSON for a script of ours."""
    log.log(logging.WARNING if error.http_status < 500 else logging.ERROR, "%s", error)
    if request.accept_mimetypes.best == "application/json":
        answer: AnyResponse = jsonify({"error": error.as_dict(access().settings.language)})
        answer.status_code = error.http_status
        return answer
    if isinstance(error, SignInError):
        return _sign_in_page(request.full_path.rstrip("?"), 401)
    return error_page(error)


@blueprint.get("/projects/<int:project>/")
def show_overview(project: int) -> AnyResponse:
    """How a project stands."""
    known = pages.member_of(project)
    return page(
        "overview.html",
        project=project,
        now=overview(state().runtime, known),
        visitor=pages.visitor(),
        is_admin=pages.is_admin(known),
        csrf=pages.csrf_token(),
        run_states=RUN_STATES,
        training_states=TRAINING_STATES,
        outcomes=OUTCOMES,
        ended=ENDED,
        studio=_studio_address(),
    )


@blueprint.get("/sign-in")
def show_sign_in() -> AnyResponse:
    """Where a token can be pasted."""
    return _sign_in_page(request.args.get("next", ""), 200)


@blueprint.post("/sign-in")
def sign_in() -> AnyResponse:
    """Keep the token that was pasted, if Label Studio knows it, for 12 hours."""
    credential = Credential(CredentialKind.TOKEN, request.form.get("token", "").strip())
    after = _own_path(request.form.get("next", ""))
    try:
        access().visitors.identify(credential)
    except SignInError:
        return _sign_in_page(after, 401, refused=True)
    answer = redirect(after or url_for("pages.show_sign_in"), 303)
    access().tokens.write(answer, credential.value)
    return answer


@blueprint.post("/sign-out")
def sign_out() -> AnyResponse:
    """Forget a token that was pasted; Label Studio's own session is not touched."""
    access().visitors.forget(pages.visitor().credential)
    answer = redirect(url_for("pages.show_sign_in"), 303)
    access().tokens.clear(answer)
    return answer


def _sign_in_page(after: str, status: int, **shown: Any) -> Response:
    return page(
        "sign_in.html",
        status,
        after=_own_path(after),
        refused=shown.get("refused", False),
        studio=_studio_address(),
        visitor=None,
    )


def _studio_address() -> str:
    settings = access().settings
    return settings.label_studio_public_url or settings.label_studio_url


def _own_path(path: str) -> str:
    """A path of ours, or nothing: a browser is sent nowhere else."""
    parts = urlsplit(path)
    is_own = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_own and not parts.scheme and not parts.netloc else ""
