"""What one image costs at each stage alone, in CPU seconds; used by benchmarks/bulk.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests

from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.images.decode import decode
from backend.images.fetcher import ImageFetcher
from backend.images.validators import UNKNOWN
from backend.inference.embedder import Embedder
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.inference.versions import ModelVersions
from backend.labels.config import parse_config
from backend.labelstudio.importing import Importer
from backend.labelstudio.projects import project_key
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.vectors import content_key
from benchmarks.bulk_servers import Disk, Meter, Servers, address, ratio

SAMPLE = 128
"""Photos for a stage: enough for the means to stand still."""
TILED = 8
"""Photos for a transformer that encodes ten crops of each."""
ROUNDS = 3
"""Times that a stage is weighed. The least counts: other programs only add to it, most of all where
threads wait for each other by spinning."""
SINGLE = 24
"""Photos and predictions where one takes long alone."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one image at one stage.

    Attributes:
        ours: in our process.
        studio: in Label Studio's.
    """

    ours: float
    studio: float = 0.0

    @property
    def total(self) -> float:
        """Of both."""
        return self.ours + self.studio


@dataclass(frozen=True)
class Stage:
    """A stage taken one image at a time, and the way a worker takes it."""

    name: str
    how: str
    alone: Cost
    used: Cost


@dataclass(frozen=True)
class Stages:
    """The stages of the offline encoder, which the end-to-end run is compared with.

    Attributes:
        stages: fetch, decode, encode, import.
        disk: instead of fetch, where the files lie on a disk that a worker shares.
        more: the same for other encoders.
        others: cores that other programs took at most.
    """

    stages: list[Stage]
    disk: Stage
    more: list[Stage]
    others: float

    @property
    def core_seconds(self) -> float:
        """Of one image, all stages of a worker together, Label Studio's share included."""
        return sum(stage.used.total for stage in self.stages)

    @property
    def from_disk(self) -> list[Stage]:
        """The stages of a worker that reads the files itself."""
        return [self.disk, *self.stages[1:]]

    @property
    def core_seconds_from_disk(self) -> float:
        """Of one image, by these."""
        return sum(stage.used.total for stage in self.from_disk)


def measure(servers: Servers, with_clip: bool = True) -> Stages:
    """Measure every stage alone.

    Args:
        servers: with the photos.
        with_clip: also decode and encode with ViT-B-32 at random weights.
    """
    scale = _Scale(servers)
    settings = servers.with_store("stages")
    encoder = get_encoder(settings)
    encoder.load()
    stages = [
        _fetch(scale, servers.names[:SAMPLE]),
        *_encoder(scale, "offline", encoder, SAMPLE, SINGLE),
        _import(scale, encoder),
    ]
    disk = _disk(scale, servers.names[:SAMPLE])
    more = []
    if with_clip:
        weights = _random_weights(servers.folder / "vit-b-32.pt")
        for regions, count in (("none", SAMPLE // 2), ("tiles", TILED)):
            clip = _clip(settings, weights, regions)
            few = TILED // 4 if regions == "tiles" else SINGLE
            more += _encoder(scale, f"ViT-B-32 {regions}", clip, count, few)
    return Stages(stages, disk, more, scale.others)


class _Scale:
    """Measures code in CPU seconds per image."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.others = 0.0

    def weigh(self, images: int, work: Callable[[], object]) -> Cost:
        """The least of some rounds, in this process alone."""
        rounds = [self._weigh(images, work, Meter()) for _ in range(ROUNDS)]
        return min(rounds, key=lambda cost: cost.total)

    def weigh_both(self, images: int, work: Callable[[], object]) -> Cost:
        """In this process and in Label Studio's, once."""
        return self._weigh(images, work, Meter(studio=self.servers.label_studio))

    def least_of_both(self, images: int, work: Callable[[], object]) -> Cost:
        """The same, the least of some rounds."""
        rounds = [self.weigh_both(images, work) for _ in range(ROUNDS)]
        return min(rounds, key=lambda cost: cost.total)

    def _weigh(self, images: int, work: Callable[[], object], meter: Meter) -> Cost:
        with meter:
            work()
        self.others = max(self.others, meter.others)
        return Cost(meter.own / images, meter.cpu.get("studio", 0.0) / images)


def outcome(stages: Stages) -> tuple[list[dict[str, Any]], str]:
    """Rows for the document, in thousandths of a core-second, and a note."""
    total = _sum("sum (offline)", stages.stages)
    nearer = _sum("sum (offline, from the disk)", stages.from_disk)
    note = (
        "CPU milliseconds per image, Label Studio's included. `alone / worker` says how many "
        "times as much one image at a time costs; for import that is one POST per prediction. Of "
        f"{ROUNDS} rounds the cheapest counts (import: one round). "
        f"Other programs took {stages.others:.2f} cores meanwhile."
    )
    shown = (*stages.stages, total, stages.disk, nearer, *stages.more)
    return [_row(stage) for stage in shown], note


def _sum(name: str, stages: Sequence[Stage]) -> Stage:
    alone = _summed([stage.alone for stage in stages])
    return Stage(name, "", alone, _summed([stage.used for stage in stages]))


def _summed(costs: Sequence[Cost]) -> Cost:
    return Cost(sum(cost.ours for cost in costs), sum(cost.studio for cost in costs))


def _row(stage: Stage) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "as a worker does it": stage.how,
        "one image alone": f"{1000 * stage.alone.total:.1f}",
        "as a worker": f"{1000 * stage.used.total:.1f}",
        "of that Label Studio": f"{1000 * stage.used.studio:.1f}" if stage.used.studio else "",
        "alone / worker": ratio(stage.alone.total / stage.used.total),
    }


def _fetch(scale: _Scale, names: Sequence[str]) -> Stage:
    servers = scale.servers
    fetcher = ImageFetcher(servers.settings, servers.studio.headers)
    # Label Studio serves local files to those who have a project with that folder.
    servers.project([address(names[0])])
    values = [address(name) for name in names]
    fetcher.fetch(values[0])
    threads = servers.settings.fetch_workers
    alone = scale.least_of_both(len(values), lambda: _drop(map(fetcher.fetch, values)))
    with ThreadPoolExecutor(threads) as pool:
        used = scale.least_of_both(len(values), lambda: _drop(pool.map(fetcher.fetch, values)))
    fetcher.close()
    return Stage("fetch", f"{threads} threads", alone, used)


def _disk(scale: _Scale, names: Sequence[str]) -> Stage:
    """The same files, read as a worker reads them that shares the disk."""
    servers = scale.servers
    source = servers.local_files()
    # Label Studio is asked once for the folder.
    servers.project([address(names[0])])
    values = [address(name) for name in names]
    source.fetch_file(values[0], UNKNOWN)

    def read(value: str) -> None:
        source.fetch_file(value, UNKNOWN)

    threads = servers.settings.fetch_workers
    alone = scale.least_of_both(len(values), lambda: _drop(map(read, values)))
    with ThreadPoolExecutor(threads) as pool:
        used = scale.least_of_both(len(values), lambda: _drop(pool.map(read, values)))
    return Stage("read from the disk", f"{threads} threads", alone, used)


def _encoder(scale: _Scale, name: str, encoder: Encoder, count: int, few: int) -> list[Stage]:
    settings = scale.servers.settings
    data = [scale.servers.read(address(photo)) for photo in scale.servers.names[:count]]

    def prepare(content: bytes) -> Any:
        image = decode(content, settings.max_image_pixels, encoder.draft_size)
        content_key(content)
        return encoder.prepare(image)

    prepared = [*map(prepare, data)]
    parts = [*batches(prepared, encoder.batch_size)]
    # The first pass of a size allocates memory that later ones find.
    for warm in (parts[0], prepared[:1]):
        encoder.encode_prepared(warm)
    threads = settings.fetch_workers
    alone = scale.weigh(len(data), lambda: _drop(map(prepare, data)))
    with ThreadPoolExecutor(threads) as pool:
        used = scale.weigh(len(data), lambda: _drop(pool.map(prepare, data)))
    decoding = Stage(f"decode, prepare ({name})", f"{threads} threads", alone, used)
    singles = [[image] for image in prepared[:few]]
    alone = scale.weigh(len(singles), lambda: _drop(map(encoder.encode_prepared, singles)))
    used = scale.weigh(len(prepared), lambda: _drop(map(encoder.encode_prepared, parts)))
    encoding = Stage(f"encode ({name})", f"batches of {encoder.batch_size}", alone, used)
    return [decoding, encoding]


def _import(scale: _Scale, encoder: Encoder) -> Stage:
    """Predictions of the sample's photos, given to as many tasks as the run will have."""
    servers = scale.servers
    addresses = [address(name) for name in servers.names]
    number, tasks = servers.project(addresses)
    made = predictions(servers, number, encoder)
    few = [prediction.as_import() for prediction in spread_over(made, tasks[:SINGLE])]
    with requests.Session() as session:
        session.trust_env = False
        alone = scale.weigh_both(len(few), lambda: _post_all(session, servers, few))
    number, tasks = servers.project(addresses)
    items = [prediction.as_import() for prediction in spread_over(made, tasks)]
    importer = Importer(servers.studio, number, made[0].model_version)

    def send() -> None:
        importer.add(items)
        if not importer.is_complete(set(tasks)):
            raise RuntimeError("Label Studio lacks predictions that were sent.")

    used = scale.weigh_both(len(items), send)
    return Stage("import", f"{len(items)} at once", alone, used)


def predictions(servers: Servers, number: int, encoder: Encoder) -> list[Prediction]:
    """Real predictions of the sample's photos for a project."""
    settings = servers.with_store("stages")
    store = open_store(settings)
    embedder = Embedder(settings, encoder, store, Disk(servers))
    versions = ModelVersions(settings, encoder, store)
    project = servers.studio.projects.get(number)
    config = parse_config(project["label_config"])
    tasks = [
        {"id": index, "data": {"image": address(name)}}
        for index, name in enumerate(servers.names[:SAMPLE])
    ]
    versions.statistics.freeze(config, project_key(project), tasks, embedder.embed)
    return Predictor(versions.get(config, project_key(project)), embedder).predict(tasks)


def spread_over(made: Sequence[Prediction], tasks: Sequence[int]) -> list[Prediction]:
    """These predictions for other tasks, over and over again."""
    return [replace(made[index % len(made)], task=task) for index, task in enumerate(tasks)]


def _post_all(session: requests.Session, servers: Servers, items: Sequence[dict[str, Any]]) -> None:
    for item in items:
        post(session, servers, item)


def post(session: requests.Session, servers: Servers, item: dict[str, Any]) -> None:
    """One request for one prediction, as the examples of label-studio-ml-backend do it."""
    answer = session.post(
        f"{servers.settings.label_studio_url}/api/predictions/",
        json=item,
        headers=servers.studio.headers(),
        timeout=60,
    )
    answer.raise_for_status()


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """So many at once; the last may be fewer."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _clip(settings: Settings, weights: Path, regions: str) -> Encoder:
    changes = {"encoder": f"open_clip:ViT-B-32/{weights}", "regions": regions, "device": "cpu"}
    encoder = get_encoder(settings.model_copy(update=changes))
    encoder.load()
    return encoder


def _random_weights(path: Path) -> Path:
    """A checkpoint of ViT-B-32: what it costs does not depend on what it has learned."""
    import open_clip
    import torch

    torch.save(open_clip.create_model("ViT-B-32").state_dict(), path)
    return path


def _drop(items: Iterable[Any]) -> None:
    for _ in items:
        pass
