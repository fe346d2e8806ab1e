"""The service ``postgres`` of docker-compose.yml: a cluster of its own, from Debian's package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from backend.processes import LocalProcess, wait_for
from tests.support.compose import SERVICES
from tests.support.compose_services import Site
from tests.support.waiting import PATIENCE

INSTALL = "apt-get install postgresql"
_DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder with PostgreSQL's server; None where it is not installed."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return None if elsewhere is None else Path(elsewhere).resolve().parent


class ComposedDatabase(LocalProcess):
    """A database as the file's image makes it: user, password and name from the file.

    Its data are in a temporary folder outside those of the tests, which root alone may enter:
    PostgreSQL refuses to run as root.
    """

    def __init__(self, site: Site) -> None:
        found = programs()
        assert found is not None, INSTALL
        self._programs = found
        self.port = site.ports["postgres"]
        self._given = site.environment("postgres")
        self._made = tempfile.TemporaryDirectory(prefix="ls-clip-postgres-")
        folder = Path(self._made.name)
        password = folder / "password"
        password.write_text(self._given["POSTGRES_PASSWORD"])
        if os.getuid() == 0:
            for path in (folder, password):
                shutil.chown(path, "postgres")
        user = self._given["POSTGRES_USER"]
        setup = ["--pgdata", f"{folder}/data", "--username", user, "--pwfile", str(password)]
        self._run("initdb", *setup, "--auth", "scram-sha-256", "--encoding", "UTF8")
        here = ["-p", str(self.port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
        command = [*_as_postgres(), str(found / "postgres"), "-D", f"{folder}/data", *here]
        super().__init__(command, dict(os.environ), site.folder / "postgres.log")

    def wait(self) -> None:
        """Wait until it takes connections, and make the new database."""
        # The check names a database, which need not be there for its answer.
        wait_for(self, self.healthy, "PostgreSQL", PATIENCE)
        self._run("createdb", "-w", self._given["POSTGRES_DB"])

    def healthy(self) -> bool:
        """The service's health check."""
        kind, program, *arguments = SERVICES["postgres"]["healthcheck"]["test"]
        assert kind == "CMD"
        return self._run(program, *arguments, check=False).returncode == 0

    def query(self, statement: str) -> str:
        """The one value that a statement selects."""
        database = self._given["POSTGRES_DB"]
        options = ("-w", "--no-psqlrc", "--tuples-only", "--no-align", "--dbname", database)
        return self._run("psql", *options, "--command", statement).stdout.strip()

    def stop(self) -> None:
        """End it, and delete its data."""
        super().stop()
        self._made.cleanup()

    def _run(
        self, program: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One of PostgreSQL's programs, as a user who may run it."""
        environment = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self._given["POSTGRES_USER"],
            "PGPASSWORD": self._given["POSTGRES_PASSWORD"],
        }
        done = subprocess.run(
            [*_as_postgres(), str(self._programs / program), *arguments],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done


def _as_postgres() -> list[str]:
    """Before a command: run it as the package's user, where this process is root's."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # A change of user undoes what ends a child with its parent.
    return ["setpriv", *identity, "--pdeathsig", "TERM", "--"]
