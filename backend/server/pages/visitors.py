"""Who looks at a page: people whom Label Studio knows, and the projects that they may see.

Label Studio decides (https://labelstud.io/guide/auth_setup): its answers are kept for a minute, by
a hash of what the person showed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cachetools import TTLCache

from backend.errors import StudioError
from backend.labelstudio.failures import StudioNotFoundError
from backend.labelstudio.person import Credential, Person, PersonalStudio
from backend.labelstudio.tokens import StudioTokenError
from backend.server.pages.refusals import NotAMemberError, SignInError

KEPT_SECONDS = 60.0
"""How long an answer of Label Studio's is believed: a removed member is out after that."""
KEPT = 1000
"""Answers that are kept at most."""
T = TypeVar("T")


@dataclass(frozen=True)
class Visitor:
    """A person at our pages.

    Attributes:
        person: as Label Studio knows them.
        credential: with which their calls are made.
    """

    person: Person
    credential: Credential


class Visitors:
    """What Label Studio said about people. Thread-safe.

    Args:
        url: Label Studio's address.
        clock: seconds that only grow.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._kept: TTLCache[tuple[Hashable, ...], Any] = TTLCache(KEPT, KEPT_SECONDS, clock)

    def identify(self, credential: Credential | None) -> Visitor:
        """Who shows this credential.

        Raises:
            SignInError: nobody.
            UnansweredError: Label Studio does not answer.
        """
        if credential is None:
            raise SignInError
        person = self._ask((credential.digest,), lambda: self._person(credential))
        if person is None:
            raise SignInError
        return Visitor(person, credential)

    def project(self, visitor: Visitor, number: int) -> dict[str, Any]:
        """A project as Label Studio shows it to this person, up to a minute ago.

        Raises:
            NotAMemberError: they may not see it, or there is none.
            UnansweredError: Label Studio does not answer.
        """
        key = (visitor.credential.digest, number)
        project = self._ask(key, lambda: self._project(visitor.credential, number))
        if project is None:
            raise NotAMemberError(number)
        return project

    def project_now(self, visitor: Visitor, number: int) -> dict[str, Any]:
        """A project as Label Studio shows it to this person now.

        Raises:
            SignInError, NotAMemberError, UnansweredError: as for `project`.
        """
        with self._lock:
            self._kept.pop((visitor.credential.digest, number), None)
        return self.project(visitor, number)

    def forget(self, credential: Credential) -> None:
        """Ask Label Studio anew the next time."""
        with self._lock:
            for key in [key for key in self._kept if credential.digest in key]:
                del self._kept[key]

    def _studio(self, credential: Credential) -> PersonalStudio:
        # A token is exchanged once, and connections are used again.
        make = partial(PersonalStudio, self._url, credential)
        return self._ask((credential.digest, "studio"), make)

    def _person(self, credential: Credential) -> Person | None:
        try:
            return self._studio(credential).person()
        except StudioError as error:
            if _is_refused(error):
                return None
            raise

    def _project(self, credential: Credential, number: int) -> dict[str, Any] | None:
        try:
            return self._studio(credential).project(number)
        except StudioNotFoundError:
            return None
        except StudioError as error:
            if not _is_refused(error):
                raise
            self.forget(credential)
            raise SignInError from None

    def _ask(self, key: tuple[Hashable, ...], ask: Callable[[], T]) -> T:
        """An answer that is kept, or a new one."""
        with self._lock:
            if key in self._kept:
                kept: T = self._kept[key]
                return kept
        new = ask()
        with self._lock:
            self._kept[key] = new
        return new


def _is_refused(error: StudioError) -> bool:
    """Whether the credential counts for nothing, rather than Label Studio being away."""
    return isinstance(error, StudioTokenError) or error.status in {401, 403}
