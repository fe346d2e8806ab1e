"""Label Studio with the rights of a person who looks at our pages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend.labelstudio.authorization import (
    Authorization,
    SessionAuthorization,
    TokenAuthorization,
)
from backend.labelstudio.transport import Transport


class CredentialKind(StrEnum):
    """What a person shows."""

    SESSION = "session"
    """The cookie of their session at Label Studio."""
    TOKEN = "token"
    """A token that they pasted."""


@dataclass(frozen=True)
class Credential:
    """What says who a person is.

    Attributes:
        kind: of credential.
        value: the cookie's value, or the token; never shown.
    """

    kind: CredentialKind
    value: str = field(repr=False)

    @property
    def digest(self) -> str:
        """A hash (sha256) to remember it by."""
        return hashlib.sha256(f"{self.kind}:{self.value}".encode()).hexdigest()


@dataclass(frozen=True)
class Person:
    """A user of Label Studio.

    Attributes:
        id: Label Studio's number.
        email: with which they sign in.
        name: first and last name, or the email where they gave none.
    """

    id: int
    email: str
    name: str

    @classmethod
    def from_user(cls, user: Mapping[str, Any]) -> Person:
        """From Label Studio's answer to whoami."""
        email = str(user.get("email") or "")
        names = [str(user.get(part) or "").strip() for part in ("first_name", "last_name")]
        return cls(int(user["id"]), email, " ".join(name for name in names if name) or email)


class PersonalStudio:
    """The calls that are made for one person, with their own credential.

    Args:
        url: Label Studio's address.
        credential: theirs.

    Raises:
        StudioTokenError: the token is none, or has expired.
    """

    def __init__(self, url: str, credential: Credential) -> None:
        authorization: Authorization
        if credential.kind is CredentialKind.SESSION:
            authorization = SessionAuthorization(credential.value)
        else:
            authorization = TokenAuthorization(url, credential.value)
        self._transport = Transport(url, authorization)

    def person(self) -> Person:
        """Who this is.

        Raises:
            UnansweredError: Label Studio does not answer.
            StudioError: the credential counts for nothing there.
        """
        return Person.from_user(self._transport.call("GET", "/api/current-user/whoami"))

    def project(self, number: int) -> dict[str, Any]:
        """A project that this person may see.

        Raises:
            UnansweredError: Label Studio does not answer.
            StudioNotFoundError: there is no such project, or they may not see it.
            StudioError: the credential counts for nothing there.
        """
        project: dict[str, Any] = self._transport.call("GET", f"/api/projects/{number}/")
        return project
