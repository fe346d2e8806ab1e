"""Records in Redis: which attribute has which name there and in JSON answers, and their version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from backend.errors import QueueError
from backend.messages.message import Message

SCHEMA = 1
"""Version of the layout of all records, written as ``schema``; where it is missing, it is 1."""

DAMAGED_SECONDS = 30 * 24 * 3600
"""How long Redis keeps a damaged record that was set aside."""
UPGRADE = Message("Upgrade all processes to the same release: backend, workers and command line.")


class DamagedRecordError(QueueError):
    """A record in Redis cannot be read by any release."""


class Record(BaseModel):
    """An immutable record, kept as text in a Redis hash or as a JSON object.

    The alias of a field is its name in Redis and in JSON answers, where that differs from the
    attribute's; ``exclude=True`` keeps a field out of JSON answers.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, protected_namespaces=())

    @classmethod
    def from_wire(cls, content: Mapping[str, Any], **known: Any) -> Self:
        """The record that was read.

        Args:
            content: name in Redis -> value; names that are no field are ignored.
            known: fields that are not part of what was read.

        Raises:
            DamagedRecordError: it cannot be read.
            QueueError: it was written by a newer release.
        """
        try:
            version = int(content.get("schema", 1))
        except (TypeError, ValueError) as error:
            raise _unreadable(cls.__name__, "schema") from error
        if version > SCHEMA:
            raise QueueError(
                Message(
                    "Redis holds a {record} of layout {version}; this release reads layouts up to "
                    "{schema}.",
                    record=cls.__name__.lower(),
                    version=version,
                    schema=SCHEMA,
                ),
                UPGRADE,
            )
        try:
            return cls.model_validate({**content, **known})
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, part["loc"])) for part in error.errors())
            raise _unreadable(cls.__name__, fields) from error

    @classmethod
    def from_json(cls, text: bytes, **known: Any) -> Self:
        """The record in a JSON object; arguments and errors as for `from_wire`."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise _unreadable(cls.__name__, "no JSON") from error
        if not isinstance(content, dict):
            raise _unreadable(cls.__name__, "no JSON object")
        return cls.from_wire(content, **known)

    @classmethod
    def to_wire(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Attribute -> value as name in Redis -> text or number.

        Raises:
            KeyError: an attribute that the record does not have.
        """
        written = {}
        for name, value in fields.items():
            is_json = value is None or isinstance(value, list | tuple | dict | bool)
            written[cls.model_fields[name].alias or name] = json.dumps(value) if is_json else value
        return written

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the names of JSON answers."""
        return self.model_dump(mode="json", by_alias=True)


def is_about_one_key(error: RedisError) -> bool:
    """Whether Redis refused a command because of the value of a key, e.g. of another type.

    The subclasses are refusals of all commands: no memory, read-only, no permission.
    """
    return type(error) is ResponseError


@contextmanager
def readable(kind: str) -> Iterator[None]:
    """Name what damaged values cause: of another type, or no numbers, JSON or text.

    Args:
        kind: what is read.

    Raises:
        DamagedRecordError: a value is damaged.
    """
    try:
        yield
    except ValueError as error:
        raise _unreadable(kind, str(error)[:200]) from error
    except ResponseError as error:
        if not is_about_one_key(error):
            raise
        raise _unreadable(kind, str(error)) from error


def set_aside(connection: Redis, name: str) -> None:
    """Rename a damaged record, so that nothing stumbles over it again and a person can look at it.

    Args:
        connection: to Redis.
        name: its key; ``:damaged`` is added.
    """
    with suppress(ResponseError):  # There is no such key.
        connection.rename(name, f"{name}:damaged")
        connection.expire(f"{name}:damaged", DAMAGED_SECONDS)


def _unreadable(kind: str, what: str) -> DamagedRecordError:
    return DamagedRecordError(
        Message(
            "Redis holds a {record} that cannot be read ({what}).", record=kind.lower(), what=what
        ),
        UPGRADE,
    )
