"""How much a live prediction costs the server: `python benchmarks/predict.py`.

Starts ``ls-clip serve`` with the offline encoder, in a temporary folder and on the loopback
interface only, and calls /predict for a task whose image is embedded already, beside /health and
/webhook. Puts the table into docs/performance.md (not with ``--no-write`` or ``--json``).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from backend.cli import markdown
from backend.demo.photos import make_photos
from backend.demo.servers import LocalBackend
from backend.encoders.registry import get_encoder
from backend.images.decode import decode
from backend.inference.bank_drawing import draw_banks
from backend.labels.config import parse_config
from backend.processes import free_port
from backend.runtime import Runtime
from backend.settings import Settings, load_settings
from backend.storage.installations import open_store
from backend.storage.tables import chunks
from backend.storage.vectors import Embedding, NewEmbedding
from backend.vlpl.neighbours import MAX_BANK
from benchmarks import report
from benchmarks.bulk import ignore_the_environment
from benchmarks.bulk_servers import Meter, machine

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
START = "<!-- predict: written by benchmarks/predict.py -->"
END = "<!-- end of predict -->"
PROJECT = "1.1795416973"
VOTED = "2.1795416973"
"""A project on whose images a bank of other images votes."""
SETTLE_SECONDS = 0.5
"""Waited before the CPU time is read, for the work that the server does after an answer."""
LOAD_SECONDS = 60.0
"""The server loads its encoder within this; its CPU time would be taken for that of requests."""
CHEAP = 5
"""Times as many requests of the routes that predict nothing: a request costs them little."""
ROWS = 5000
"""Embeddings that are stored at once."""
NOISE = 0.02
"""On the embeddings of the other tasks, so that no two are equal."""
# The 80 categories of COCO (https://cocodataset.org).
CATEGORIES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CHOICES = "".join(f'<Choice value="{label}"/>' for label in CATEGORIES.split(","))
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    f'<Choices name="tags" toName="image" choice="multiple">{CHOICES}</Choices></View>'
)


@dataclass(frozen=True)
class Call:
    """One kind of request; ``bodies`` gives the body of each, without end (None: a GET)."""

    name: str
    path: str
    bodies: Iterator[bytes] | None


@dataclass(frozen=True)
class Measured:
    """What a number of requests took.

    Attributes:
        route: the call's name.
        clients: threads that sent one request after the other, each over one connection.
        requests: that were answered.
        per_second: requests per second, of all clients together.
        p50_ms: median time to an answer.
        p99_ms: 99th percentile of it.
        cpu_ms: CPU milliseconds of the server per request, its work after the answer included.
        left_open: answers in which a task has no result.
    """

    route: str
    clients: int
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    left_open: int


def address(number: int) -> str:
    """The image address of a task."""
    return f"/data/upload/1/{number}.jpg"


def predict_body(number: int, project: str = PROJECT) -> bytes:
    """A /predict request as Label Studio sends it when a person opens a task."""
    body = {
        "tasks": [{"id": number, "data": {"image": address(number)}}],
        "project": project,
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }
    return json.dumps(body).encode()


def webhook_body() -> bytes:
    """A webhook call without payload, as `ls-clip connect` registers them."""
    return json.dumps({"action": "ANNOTATION_CREATED"}).encode()


def fill_store(settings: Settings, folder: Path, tasks: int, bank: int) -> None:
    """Store one photo's embedding for task 0, and variations of it for the tasks after it.

    Args:
        settings: of the server.
        folder: for photos.
        tasks: how many.
        bank: so many of the images are those of `VOTED`, whose bank is drawn.
    """
    encoder = get_encoder(settings)
    (photo,) = make_photos(folder, 1)
    image = decode((folder / photo.file).read_bytes(), settings.max_image_pixels)
    encoded = encoder.encode_prepared([encoder.prepare(image)])
    regions = None if encoded.regions is None else encoded.regions[0]
    chance = np.random.default_rng(0)
    vectors = open_store(settings).vectors
    for part in chunks(range(max(tasks, bank)), ROWS):
        rows = [
            NewEmbedding(
                settings.label_studio_url + address(number),
                f"{number:064x}",
                Embedding.of(
                    _near(encoded.image[0], chance, number),
                    None if regions is None else _near(regions, chance, number),
                ),
            )
            for number in part
        ]
        vectors.add(encoder.id, encoder.dim, rows)
    _draw_bank(Runtime(settings), bank)


def _draw_bank(runtime: Runtime, bank: int) -> None:
    embedder, versions, config = runtime.embedder, runtime.versions, parse_config(CONFIG)
    tasks = [{"id": number, "data": {"image": address(number)}} for number in range(bank)]
    runtime.prediction_log.link_images(
        VOTED, ((number, embedder.address(address(number))) for number in range(bank))
    )
    versions.statistics.freeze(config, VOTED, tasks, embedder.stored)
    draw_banks(versions, versions.get(config, VOTED), runtime.prediction_log)
    assert versions.get(config, VOTED).banks


def _near(
    rows: NDArray[np.float32], chance: np.random.Generator, number: int
) -> NDArray[np.float16]:
    noise = NOISE * chance.standard_normal(rows.shape) / np.sqrt(rows.shape[-1])
    noisy = rows + noise if number else rows
    unit: NDArray[np.float16] = noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)
    return unit.astype(np.float16)


def measure(server: LocalBackend, call: Call, clients: int, limit: int, seconds: float) -> Measured:
    """Send requests until ``limit`` are answered or the time is over.

    Raises:
        RuntimeError: an answer's status is not 200.
    """
    host = urlsplit(server.url).netloc
    bodies = call.bodies
    times: list[float] = []
    left_open: list[bool] = []
    broken: list[BaseException] = []
    lock = threading.Lock()
    left = limit
    _wait_until_idle(server)
    deadline = time.monotonic() + seconds

    def next_body() -> bytes | None:
        nonlocal left
        with lock:
            if left <= 0 or broken or time.monotonic() > deadline:
                return None
            left -= 1
            return b"" if bodies is None else next(bodies)

    def client() -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        headers = {} if bodies is None else {"Content-Type": "application/json"}
        method = "GET" if bodies is None else "POST"
        try:
            while (body := next_body()) is not None:
                started = time.perf_counter()
                connection.request(method, call.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                times.append(time.perf_counter() - started)
                if answer.status != 200:
                    raise RuntimeError(f"{call.path} answered {answer.status}: {content[:200]!r}")
                left_open.append(b'"error"' in content)
        except BaseException as error:
            broken.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    with Meter(server=server) as meter:
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - started
        time.sleep(SETTLE_SECONDS)
    if broken:
        raise RuntimeError(f"{call.name}: {broken[0]}") from broken[0]
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    cpu = meter.cpu["server"] * 1000 / len(times)
    return Measured(
        *(call.name, clients, len(times), len(times) / wall, float(p50), float(p99), cpu),
        sum(left_open),
    )


def measure_all(server: LocalBackend, options: argparse.Namespace) -> list[Measured]:
    """All calls with all numbers of clients, one after the other."""
    fresh = count(1)

    def same(body: bytes) -> Iterator[bytes]:
        while True:
            yield body

    def others() -> Iterator[bytes]:
        while True:
            yield predict_body(next(fresh))

    # The first request of each kind pays for what is set up once.
    for path, body in (
        ("/webhook?project=1", webhook_body()),
        ("/predict", predict_body(0)),
        ("/predict", predict_body(0, VOTED)),
    ):
        measure(server, Call(path, path, same(body)), 1, 10, options.seconds)
    measured = []
    for clients in options.clients:
        calls = [
            Call("/health", "/health", None),
            Call("/webhook", "/webhook?project=1", same(webhook_body())),
            Call("/predict", "/predict", same(predict_body(0))),
            Call("/predict, with votes", "/predict", same(predict_body(0, VOTED))),
            Call("/predict, each task once", "/predict", others()),
        ]
        for call in calls:
            limit = options.requests * (1 if call.path == "/predict" else CHEAP)
            measured.append(measure(server, call, clients, limit, options.seconds))
    return measured


def _wait_until_idle(server: LocalBackend) -> None:
    """Wait until the server uses next to no CPU, for example because its encoder is loaded."""
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        with Meter(server=server) as meter:
            time.sleep(SETTLE_SECONDS)
        if meter.cpu["server"] < 0.05 * SETTLE_SECONDS:
            return


def rows_of(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """The table, with each CPU time as a multiple of that of /health with as many clients."""
    health = {row.clients: row.cpu_ms for row in measured if row.route == "/health"}
    return [
        {
            "route": row.route,
            "clients": str(row.clients),
            "requests/s": f"{row.per_second:.0f}",
            "p50, ms": f"{row.p50_ms:.1f}",
            "p99, ms": f"{row.p99_ms:.1f}",
            "CPU of a request, ms": f"{row.cpu_ms:.2f}",
            "CPU / that of /health": f"{row.cpu_ms / health[row.clients]:.1f}",
        }
        for row in measured
    ]


@contextmanager
def served(tasks: int, bank: int) -> Iterator[LocalBackend]:
    """A server whose store holds so many embedded tasks; all is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ls-clip-predict-") as name:
        folder = Path(name)
        os.chdir(folder)
        settings = load_settings(
            encoder="offline",
            precision="float32",
            store=str(folder / "store"),
            host="127.0.0.1",
            port=free_port(19500),
            blind_share=0.0,
        )
        try:
            fill_store(settings, folder / "photos", tasks, bank)
            with LocalBackend(settings, folder / "serve.log") as server:
                server.wait()
                yield server
        finally:
            os.chdir(ROOT)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--requests", type=int, default=300, help="of each measurement, at most")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement, at most")
    parser.add_argument("--bank", type=int, default=MAX_BANK, help="images that vote")
    parser.add_argument("--json", action="store_true", help="print JSON, and write nothing")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    options = parsed()
    ignore_the_environment()
    tasks = 1 + options.requests * len(options.clients)
    with served(tasks, options.bank) as server:
        measured = measure_all(server, options)
    if options.json:
        print(json.dumps({"machine": machine(), "measured": [asdict(row) for row in measured]}))
        return
    text = f"{markdown.table(rows_of(measured))}\n\n{machine()}."
    print(text)
    left_open = sum(row.left_open for row in measured)
    if left_open:
        print(f"{left_open} answers without a prediction (too many at once?): not written.")
    elif not options.no_write:
        report.put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
