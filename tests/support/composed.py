"""Everything that docker-compose.yml starts, with two backends and two workers for predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.demo.photos import LABELS, make_photos
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from jobs import queue
from jobs.run_store import RunStore
from tests.support.balancer import Balancer
from tests.support.commands import Done, run_command
from tests.support.compose_services import ComposedQueue, ComposedService, Site, settings_from
from tests.support.composed_studio import ComposedStudio
from tests.support.processes import free_port
from tests.support.waiting import until

BACKENDS = 2
PREDICT_WORKERS = 2
CONFIG = (
    '<View><Choices name="tags" toName="image" choice="multiple">'
    + "".join(f'<Choice value="{label}"/>' for label in LABELS)
    + '</Choices><TextArea name="clip_evidence" toName="image" editable="false"/>'
    '<Image name="image" value="$image"/></View>'
)


@dataclass
class Services:
    """The running services.

    Attributes:
        site: where they are.
        label_studio: as its image runs it.
        backends, workers: several containers of one service.
        settings: of a command that is run in a backend's container.
        studio: calls Label Studio with the token of .env.
    """

    site: Site
    label_studio: ComposedStudio
    backends: list[ComposedService]
    workers: list[ComposedService]
    settings: Settings
    studio: LabelStudioClient

    @property
    def runs(self) -> RunStore:
        return RunStore(queue.connect(self.settings))

    def exec_in_backend(self, *arguments: str) -> Done:
        """What ``docker compose exec backend ls-clip ...`` does."""
        given = self.site.environment("backend")
        return run_command(*arguments, cwd=self.site.folder, **given)


@contextmanager
def start_label_studio(site: Site, **given: str) -> Iterator[ComposedStudio]:
    """Label Studio on its new database; then the token that a person makes is in .env.

    Args:
        site: where the database is.
        given: environment variables that differ from the file's.
    """
    with ComposedStudio(site, given) as label_studio:
        label_studio.wait()
        site.env_file["LABEL_STUDIO_API_KEY"] = label_studio.personal_token()
        yield label_studio


@contextmanager
def start_ours(site: Site, label_studio: ComposedStudio) -> Iterator[Services]:
    """The queue, the backends behind one address, and the workers."""
    with ExitStack() as stack:
        enter = stack.enter_context
        redis = enter(ComposedQueue(site))
        redis.wait()
        ports = [free_port() for _ in range(BACKENDS)]
        enter(Balancer(site.ports["backend"], ports))
        backends = [
            enter(ComposedService("backend", site, f"backend-{place}", LS_CLIP_PORT=str(port)))
            for place, port in enumerate(ports)
        ]
        names = [f"predict-worker-{place}" for place in range(PREDICT_WORKERS)]
        workers = [enter(ComposedService("predict-worker", site, name)) for name in names]
        workers.append(enter(ComposedService("train-worker", site, "train-worker")))
        for service in (*backends, *workers):
            service.wait()
        settings = settings_from(site.environment("backend"))
        connection = queue.connect(settings)
        until(lambda: queue.workers(connection, queue.PREDICT) == PREDICT_WORKERS)
        studio = LabelStudioClient(settings)
        yield Services(site, label_studio, backends, workers, settings, studio)


def make_project(
    studio: LabelStudioClient, folder: Path, photos: int, tasks: int
) -> tuple[int, dict[int, tuple[str, ...]]]:
    """Make a project of uploads: its number, and task -> the labels of its photo.

    Args:
        studio: Label Studio.
        folder: for the photos.
        photos: how many are uploaded.
        tasks: as many show each photo, one after the other.
    """
    made = make_photos(folder, photos)
    number = int(studio.projects.create("composed", CONFIG)["id"])
    uploads = studio.tasks.upload(number, [folder / photo.file for photo in made])
    shown = [index * photos // tasks for index in range(tasks)]
    numbers = studio.tasks.create(number, [{"data": {"image": uploads[index]}} for index in shown])
    labels = (made[index].labels for index in shown)
    return number, dict(zip(numbers, labels, strict=True))
