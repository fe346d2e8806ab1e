"""How many submits of many annotators fail, with us and without: `python -m benchmarks.submits`.

Starts what docker-compose.yml starts, without Docker, in temporary folders: Label Studio on
PostgreSQL, as its image runs it by default and on uWSGI, and on SQLite. People annotate for half of
the time before our services run, then for all of it with the project connected (webhooks, two
backends, two workers that predict and one that trains), and for the other half after they have
ended. Puts the table into docs/performance.md (not with ``--no-write``).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from backend.cli import markdown
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from benchmarks import report
from benchmarks.bulk import ignore_the_environment
from benchmarks.bulk_servers import machine
from tests.support.annotators import Submits, submit_at_once
from tests.support.compose_services import Site, settings_from
from tests.support.composed import Services, make_project, start_label_studio, start_ours
from tests.support.composed_studio import THREADS, ComposedStudio
from tests.support.postgres import ComposedDatabase

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
START = "<!-- submits: written by benchmarks/submits.py -->"
END = "<!-- end of submits -->"


class Server(StrEnum):
    """How Label Studio runs; the values are arguments of the command line."""

    POSTGRESQL = "postgresql"
    UWSGI = "uwsgi"
    SQLITE = "sqlite"


NAMES = {
    Server.POSTGRESQL: "PostgreSQL",
    Server.UWSGI: "PostgreSQL, uWSGI",
    Server.SQLITE: "SQLite",
}
Annotate = Callable[[float], Submits]


@contextmanager
def running(server: Server, site: Site) -> Iterator[ComposedStudio]:
    """Label Studio on this server."""
    if server == Server.SQLITE:
        with start_label_studio(site, DJANGO_DB="sqlite") as label_studio:
            yield label_studio
        return
    with ComposedDatabase(site) as database:
        database.wait()
        with start_label_studio(site) as label_studio:
            if server == Server.POSTGRESQL:
                yield label_studio
                return
            label_studio.stop()
            with ComposedStudio(site, {"UWSGI_NUMBER_OF_THREADS": THREADS}, uwsgi=True) as other:
                other.wait()
                yield other


def measure(server: Server, options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of one server: without us, and with us."""
    with tempfile.TemporaryDirectory(prefix="ls-clip-submits-") as name:
        site = Site(Path(name), LABEL_STUDIO_USERNAME="admin@example.com")
        os.chdir(name)
        with running(server, site) as label_studio:
            studio = LabelStudioClient(settings_from(site.environment("backend")))

            def project() -> tuple[int, Annotate]:
                number, truth = make_project(
                    studio, site.folder / "photos", options.photos, options.tasks
                )
                return number, lambda seconds: submit_at_once(
                    label_studio.url,
                    studio.headers,
                    truth,
                    options.people,
                    seconds,
                    options.pause,
                )

            without = [project()[1](options.seconds / 2)]
            with start_ours(site, label_studio) as services:
                number, annotate = project()
                done = services.exec_in_backend("connect", str(number))
                if done.returncode:
                    raise RuntimeError(done.stderr)
                beside = annotate(options.seconds)
                heads = trained_heads(services, number)
            without.append(project()[1](options.seconds / 2))
    os.chdir(ROOT)
    return [
        row(NAMES[server], "without us", Submits.all_of(without), ""),
        row(NAMES[server], "with us", beside, str(heads)),
    ]


def trained_heads(services: Services, number: int) -> int:
    """Heads that were trained while people annotated."""
    key = project_key(services.studio.projects.get(number))
    return len(HeadRegistry(open_store(services.settings)).names(key))


def row(server: str, what: str, submits: Submits, heads: str) -> dict[str, str]:
    """A row of the table."""
    asked = len(submits.seconds) + submits.failed
    reasons = ", ".join(f"{why}: {count}" for why, count in submits.failures.most_common())
    return {
        "Label Studio on": server,
        "": what,
        "submits": str(asked),
        "failed": f"{submits.failed} ({reasons})" if submits.failed else "0",
        "p50, s": f"{submits.quantile(50):.2f}",
        "p95, s": f"{submits.quantile(95):.2f}",
        "p99, s": f"{submits.quantile(99):.2f}",
        "heads trained": heads,
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of annotating, in each row")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds spent on a task")
    parser.add_argument("--photos", type=int, default=60, help="that are uploaded")
    parser.add_argument("--tasks", type=int, default=2000, help="that show them in turn")
    parser.add_argument(
        "--servers", type=Server, nargs="+", default=list(Server), help=", ".join(Server)
    )
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    options = parsed()
    ignore_the_environment()
    measured_on = machine().replace(" on SQLite", "")
    rows: list[dict[str, str]] = []
    for server in options.servers:
        rows += measure(server, options)
        text = (
            f"{markdown.table(rows)}\n\n{options.people} people, {options.pause:.0f} s on a task, "
            f"{options.seconds:.0f} s for each row.\n\n{measured_on}."
        )
        print(text, flush=True)
        if not options.no_write:
            report.put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
