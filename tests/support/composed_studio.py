"""The service ``label-studio`` of docker-compose.yml, with the package that its image holds."""

from __future__ import annotations

import os
from collections.abc import Mapping

import requests

from backend.demo.servers import START_SECONDS, STRAY_NAMES, VERSION, find_uv
from backend.processes import LocalProcess, answers_ok, wait_for
from tests.support.compose import SERVICES
from tests.support.compose_services import Site

IMAGE = {"DJANGO_SETTINGS_MODULE": "core.settings.label_studio"}
"""Variables that the image sets."""
UWSGI = (
    *("--master", "--cheaper", "1", "--single-interpreter", "--lazy-apps"),
    *("--enable-threads", "--thunder-lock", "--need-app", "--die-on-term", "--vacuum"),
    *("--processes", "4", "--harakiri", "120", "--http-timeout", "300"),
    *("--buffer-size", "65535", "--post-buffering", "4096", "--max-requests", "5000"),
    *("--ignore-sigpipe", "--ignore-write-errors", "--disable-write-exception"),
    "--disable-logging",
)
"""What the image's deploy/uwsgi.ini sets on two cores."""
THREADS = "16"
"""For UWSGI_NUMBER_OF_THREADS, as docs/compose.md has it."""
APPLICATION = (
    "import os, sys, label_studio; sys.path.insert(0, os.path.dirname(label_studio.__file__)); "
    "from core.wsgi import application"
)
"""The file's ``module``, which it finds by its ``chdir`` to the package."""


class ComposedStudio(LocalProcess):
    """Label Studio on the file's database, with the file's environment.

    The file gives no command, so the image's own is run: Django's server, which makes the tables
    first. With ``uwsgi`` it is what the image runs as ``label-studio-uwsgi``, on a database that
    has its tables, with as many threads as the variable UWSGI_NUMBER_OF_THREADS says.

    Args:
        site: where the others are.
        given: environment variables that differ from the file's.
        uwsgi: run the image's other server.
    """

    def __init__(self, site: Site, given: Mapping[str, str], *, uwsgi: bool = False) -> None:
        assert SERVICES["label-studio"]["image"] == f"heartexlabs/label-studio:{VERSION}"
        assert "command" not in SERVICES["label-studio"]
        port = site.ports["label-studio"]
        self.url = f"http://127.0.0.1:{port}"
        self._given = site.environment("label-studio")
        data = site.folder / "label-studio"
        data.mkdir(exist_ok=True)
        database = {
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(site.ports["postgres"]),
            "LABEL_STUDIO_BASE_DATA_DIR": str(data),
            # One in fifty of the keys that it makes begins with $, and is lost with its next start.
            "SECRET_KEY": "of-the-tests-" + "0" * 40,
        }
        inherited = {name: value for name, value in os.environ.items() if name not in STRAY_NAMES}
        env = inherited | IMAGE | self._given | database | dict(given)
        if uwsgi:
            env["APP_WEBSERVER"] = "uwsgi"
            here = ["--http", f"127.0.0.1:{port}", "--eval", APPLICATION]
            threads = ["--threads", env.get("UWSGI_NUMBER_OF_THREADS", "1")]
            command = _in_its_environment("uwsgi", *here, *threads, *UWSGI)
        else:
            address = ["--internal-host", "127.0.0.1", "--port", str(port)]
            command = _in_its_environment("label-studio", *address)
        super().__init__(command, env, site.folder / "label-studio.log")

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(self, answers_ok(f"{self.url}/health"), "Label Studio", START_SECONDS)

    def personal_token(self) -> str:
        """Log in as the administrator, and create a token, as docs/compose.md describes it."""
        login = f"{self.url}/user/login/"
        with requests.Session() as session:
            session.get(login, timeout=60)
            form = {
                "email": self._given["LABEL_STUDIO_USERNAME"],
                "password": self._given["LABEL_STUDIO_PASSWORD"],
                "csrfmiddlewaretoken": session.cookies["csrftoken"],
            }
            session.post(login, data=form, headers={"Referer": login}, timeout=60)
            made = session.post(
                f"{self.url}/api/token/",
                headers={"X-CSRFToken": session.cookies["csrftoken"], "Referer": login},
                timeout=60,
            )
        assert made.status_code == 201, made.text[:500]
        return str(made.json()["token"])


def _in_its_environment(program: str, *arguments: str) -> list[str]:
    """A command of Label Studio's own environment, which has uWSGI, too."""
    package = f"label-studio[uwsgi]=={VERSION}"
    return [*find_uv(), "tool", "run", "--quiet", "--from", package, program, *arguments]
