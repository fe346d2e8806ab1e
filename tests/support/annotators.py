"""Many people who submit annotations at once, through Label Studio's API."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

SECONDS = 60.0
"""For one answer: longer than anyone would wait."""


@dataclass
class Submits:
    """What the submits of many people came to.

    Attributes:
        seconds: how long each successful submit took.
        tasks: those that it succeeded for.
        failures: why the others failed -> how many; a status, or the name of an exception.
    """

    seconds: list[float] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @classmethod
    def all_of(cls, parts: Iterable[Submits]) -> Submits:
        """Several taken together."""
        whole = cls()
        for part in parts:
            whole.seconds += part.seconds
            whole.tasks += part.tasks
            whole.failures += part.failures
        return whole

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.failures.total()

    def quantile(self, percent: int) -> float:
        """Seconds within which so many percent of the successful submits were answered."""
        if len(self.seconds) < 2:
            return max(self.seconds, default=0.0)
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


def submit_at_once(
    url: str,
    headers: Callable[[], dict[str, str]],
    truth: Mapping[int, Sequence[str]],
    people: int,
    seconds: float,
    pause: float,
) -> Submits:
    """Have people open and submit tasks for some time, each of them tasks of their own.

    A person opens a task, looks at it for a while, and submits the truth; a submit that fails is
    not repeated. Each request has a connection of its own: uWSGI without a proxy closes them.

    Args:
        url: Label Studio's address.
        headers: those that log in; asked for each request, since access tokens live five minutes.
        truth: task -> its labels; a person stops early when their share is used up.
        people: sessions.
        seconds: until nobody opens another task.
        pause: a person looks at a task for half to one and a half times so many seconds.
    """
    done, lock = Submits(), threading.Lock()
    tasks = sorted(truth)
    deadline = time.monotonic() + seconds

    def person(number: int) -> None:
        chance = random.Random(number)
        # Nobody starts in the same instant as all others.
        time.sleep(chance.uniform(0, pause))
        for task in tasks[number::people]:
            if time.monotonic() > deadline:
                return
            opened = _ask("GET", f"{url}/api/tasks/{task}/", headers())
            shown = opened.json()["predictions"] if isinstance(opened, requests.Response) else []
            time.sleep(chance.uniform(0.5 * pause, 1.5 * pause))
            item = {"from_name": "tags", "to_name": "image", "type": "choices"}
            body = {
                "result": [{**item, "value": {"choices": list(truth[task])}}],
                "lead_time": pause,
                "parent_prediction": shown[-1]["id"] if shown else None,
            }
            started = time.monotonic()
            answer = _ask("POST", f"{url}/api/tasks/{task}/annotations/", headers(), body)
            seconds = time.monotonic() - started
            with lock:
                if isinstance(answer, str):
                    done.failures[answer] += 1
                else:
                    done.seconds.append(seconds)
                    done.tasks.append(task)

    threads = [threading.Thread(target=person, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _ask(
    method: str, address: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> requests.Response | str:
    """The answer, or why there is none: a status, or the name of an exception."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, address, headers=headers, json=body, timeout=SECONDS)
    except requests.RequestException as error:
        return type(error).__name__
    return answer if answer.ok else f"HTTP {answer.status_code}"
