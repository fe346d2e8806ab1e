"""The client of one Label Studio: all API calls that this project makes, grouped by resource."""

from __future__ import annotations

from typing import Any

from backend.labelstudio.authorization import TokenAuthorization
from backend.labelstudio.predictions import Predictions
from backend.labelstudio.projects import Backends, Projects, Views, Webhooks
from backend.labelstudio.tasks import Tasks
from backend.labelstudio.transport import Transport
from backend.settings import Settings


class LabelStudioClient:
    """One Label Studio, with the rights of the token's user.

    Calls go through Label Studio's SDK, or through plain HTTP where the SDK has no such call. Each
    may raise `StudioError` (see `backend.labelstudio.failures`):

    - `StudioTokenError`: the token is missing or refused.
    - `StudioNotFoundError`: Label Studio answered 404.
    - `UnansweredError`: no answer came, so the call may have been carried out.

    Args:
        settings: label_studio_url and label_studio_api_key are read.

    Attributes:
        url: Label Studio's address, without a slash at its end.
        projects, tasks, predictions, backends, webhooks, views: the calls about each resource.

    Raises:
        StudioTokenError: no token is set, it has expired, or it is not a token.
    """

    def __init__(self, settings: Settings) -> None:
        key = settings.label_studio_api_key.get_secret_value()
        authorization = TokenAuthorization(settings.label_studio_url, key)
        self._transport = Transport(settings.label_studio_url, authorization)
        self.url = self._transport.url
        self.projects = Projects(self._transport)
        self.tasks = Tasks(self._transport, authorization.sdk)
        self.predictions = Predictions(self._transport)
        self.backends = Backends(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.views = Views(self._transport)

    def headers(self) -> dict[str, str]:
        """The Authorization header. It must be sent to Label Studio only.

        Raises:
            StudioError: the token cannot be exchanged for an access token.
        """
        return self._transport.headers()

    def version(self) -> str:
        """Label Studio's release, such as ``1.23.2``."""
        return str(self._transport.call("GET", "/api/version")["release"])

    def user(self) -> dict[str, Any]:
        """The token's user, with ``email`` and ``permissions``.

        Raises:
            StudioError: the token is refused, or its user has no rights.
        """
        user: dict[str, Any] = self._transport.call("GET", "/api/current-user/whoami")
        return user


def require_project(settings: Settings, number: int) -> None:
    """Check that a project exists. Without a token nothing is checked: only workers need one.

    Raises:
        UnansweredError: Label Studio does not answer.
        StudioNotFoundError: there is no such project.
        StudioError: Label Studio refuses the call.
    """
    if settings.label_studio_api_key.get_secret_value():
        LabelStudioClient(settings).projects.get(number)
