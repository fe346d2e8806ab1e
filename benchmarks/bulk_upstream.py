"""Runs against the way of label-studio-ml-backend's examples; used by benchmarks/bulk.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import requests
from PIL import Image

from backend.encoders.base import Encoder
from backend.encoders.label_texts import label_embeddings, label_texts
from backend.encoders.registry import get_encoder
from backend.labels.config import parse_config
from benchmarks.bulk_runs import OTHER_THRESHOLD, Row, run_through, wall
from benchmarks.bulk_servers import Meter, Servers, address, ratio
from benchmarks.bulk_stages import post

SUGGESTED = 3
"""Labels that the one-by-one loop ticks, about as many as our runs."""


def upstream(servers: Servers, count: int) -> tuple[list[Row], str]:
    """One task at a time, half of them before and half after our runs, against our runs."""
    settings = servers.with_store("upstream")
    encoder = get_encoder(settings)
    values = [address(name) for name in servers.names]
    number, _ = servers.project(values)
    _, tasks = servers.project(values)
    count = min(count, len(tasks))
    pairs = [*zip(tasks, values, strict=True)][:count]
    loop = _OneByOne(servers, encoder)
    loop.predict(tasks[-1], values[-1])
    loop.reset()
    seconds = loop.time(pairs[: count // 2])
    with (
        servers.worker(settings) as worker,
        Meter(worker=worker, studio=servers.label_studio, queue=servers.valkey) as meter,
    ):
        cold = run_through(settings, number)
    changed = settings.model_copy(update={"threshold": OTHER_THRESHOLD})
    with servers.worker(changed):
        again = run_through(changed, number)
    seconds += loop.time(pairs[count // 2 :])
    theirs = seconds / len(pairs)
    if again.embedded or again.model_version == cold.model_version:
        raise RuntimeError("The second run was to encode nothing, and to have a new version.")
    ours = wall(cold) / len(values), wall(again) / len(values)
    rows = [
        _per_task("one task at a time", theirs, 1.0),
        _per_task("a run, nothing embedded before", ours[0], theirs / ours[0], "10"),
        _per_task("a run under a new version, all embedded", ours[1], theirs / ours[1], "100"),
    ]
    note = (
        f"One at a time: {len(pairs)} of {len(values)} tasks, half before and half after our runs, "
        f"extrapolated by task ({loop.parts()}). Our runs: all {len(values)}, "
        f"{wall(cold):.1f} s and {wall(again):.1f} s. During the first of them other programs took "
        f"{meter.others:.2f} cores."
    )
    return rows, note


def _per_task(what: str, seconds: float, times: float, goal: str = "") -> Row:
    return {
        "what": what,
        "tasks/s": f"{1 / seconds:.1f}",
        "ms per task": f"{1000 * seconds:.1f}",
        "times as fast": ratio(times, goal),
    }


class _OneByOne:
    """Fetch, decode, encode and POST, one task after the other, as the examples do it."""

    def __init__(self, servers: Servers, encoder: Encoder) -> None:
        self._servers = servers
        self._encoder = encoder
        self._control = parse_config(servers.config).controls[0]
        texts = [label_texts(encoder, label.text) for label in self._control.labels]
        self._labels = label_embeddings(encoder, texts)
        self._session = requests.Session()
        self._session.trust_env = False
        self.reset()

    def reset(self) -> None:
        """Start counting anew: the first task, which loads what is needed, is left out."""
        self._spent = {"fetch": 0.0, "decode": 0.0, "encode": 0.0, "post": 0.0}
        self._count = 0

    def time(self, pairs: Sequence[tuple[int, str]]) -> float:
        """Seconds that these tasks take."""
        started = time.perf_counter()
        for task, value in pairs:
            self.predict(task, value)
        return time.perf_counter() - started

    def predict(self, task: int, value: str) -> None:
        """Predict one task."""
        moments = [time.perf_counter()]
        url = self._servers.settings.label_studio_url + value
        answer = self._session.get(url, headers=self._servers.studio.headers(), timeout=60)
        answer.raise_for_status()
        moments.append(time.perf_counter())
        image = Image.open(BytesIO(answer.content)).convert("RGB")
        moments.append(time.perf_counter())
        scores = self._encoder.encode_images([image]).image[0] @ self._labels.T
        moments.append(time.perf_counter())
        best = [self._control.labels[int(index)].key for index in np.argsort(-scores)[:SUGGESTED]]
        item = {
            "task": task,
            "model_version": "one-by-one",
            "score": float(np.clip(scores.max(), 0, 1)),
            "result": [
                {
                    "from_name": self._control.name,
                    "to_name": self._control.to_name,
                    "type": "choices",
                    "value": {"choices": best},
                }
            ],
        }
        post(self._session, self._servers, item)
        moments.append(time.perf_counter())
        for name, since, until in zip(self._spent, moments, moments[1:], strict=False):
            self._spent[name] += until - since
        self._count += 1

    def parts(self) -> str:
        """The mean time of each step, for a note."""
        each = self._spent.items()
        return ", ".join(f"{name} {1000 * spent / self._count:.0f} ms" for name, spent in each)
