"""The client of one Label Studio: all calls that this project makes, grouped by resource."""

from __future__ import annotations

from typing import Any

from backend.labelstudio.predictions import Predictions
from backend.labelstudio.projects import Backends, Projects, Views, Webhooks
from backend.labelstudio.tasks import Tasks
from backend.labelstudio.transport import Transport
from backend.settings import Settings


class LabelStudioClient:
    """One Label Studio, with one user's rights: by its SDK, and by HTTP where that has no call.

    Args:
        settings: URL and token.

    Attributes:
        url: of Label Studio.
        projects, tasks, predictions, backends, webhooks, views: the calls about each.

    Raises:
        StudioError: no token is set, it has expired, or it is not a token.
    """

    def __init__(self, settings: Settings) -> None:
        self._transport = Transport(settings)
        self.url = self._transport.url
        self.projects = Projects(self._transport)
        self.tasks = Tasks(self._transport)
        self.predictions = Predictions(self._transport)
        self.backends = Backends(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.views = Views(self._transport)

    def headers(self) -> dict[str, str]:
        """The Authorization header for a request to Label Studio, and to nowhere else.

        Raises:
            StudioError: the token cannot be exchanged.
        """
        return self._transport.headers()

    def version(self) -> str:
        """Label Studio's release."""
        return str(self._transport.call("GET", "/api/version")["release"])

    def user(self) -> dict[str, Any]:
        """The user that the token belongs to, with ``email`` and ``permissions``.

        Raises:
            StudioError: the token is refused, or its user may use nothing.
        """
        user: dict[str, Any] = self._transport.call("GET", "/api/current-user/whoami")
        return user


def require_project(settings: Settings, number: int) -> None:
    """Refuse a number that no project has. Without a token nobody can tell: workers have it.

    Raises:
        UnansweredError: Label Studio is away.
        StudioError: there is no such project, or the token is refused.
    """
    if settings.label_studio_api_key.get_secret_value():
        LabelStudioClient(settings).projects.get(number)
