"""What a second start of the demo needs to find the data of the first one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from backend.demo.servers import new_secret
from backend.errors import ClipError

FILE = "state.json"


@dataclass
class DemoState:
    """Secrets and ids of one demo directory.

    Attributes:
        password: of the user that logs in to Label Studio.
        token: that user's legacy API token.
        webhook_secret: LS_CLIP_WEBHOOK_SECRET of the demo's backend.
        backend_password: BASIC_AUTH_PASS of the demo's backend.
        project: the project's number; None before it is made.
        tasks: how many tasks the project was made with.
        url: where Label Studio answers; empty while it is starting.
    """

    password: str = field(default_factory=lambda: new_secret()[:12])
    token: str = field(default_factory=new_secret)
    webhook_secret: str = field(default_factory=new_secret)
    backend_password: str = field(default_factory=new_secret)
    project: int | None = None
    tasks: int = 0
    url: str = ""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The state of a demo directory; a new one with fresh secrets if there is none.

        Raises:
            ClipError: the file cannot be read.
        """
        path = directory / FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise ClipError(
                f"{path} cannot be read: {error}.",
                f"Delete {directory}; the demo makes it again.",
            ) from error

    def save(self, directory: Path) -> None:
        """Write the state where only this user can read it."""
        path = directory / FILE
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))
