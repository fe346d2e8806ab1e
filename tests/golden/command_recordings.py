"""What every command prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tests.golden import adapter, cases
from tests.golden.normal import Normal
from tests.golden.recordings import STORE
from tests.golden.stand_in import golden_studio
from tests.support.processes import free_port

TOKEN = "f" * 40
QUEUE = "LS_CLIP_REDIS_URL"
LABELS = "cat,coffee,rocket,犬"


class _Terminal:
    """Commands of one environment, with what they print as it is recorded."""

    def __init__(self, folder: Path, normal: Normal, **variables: str) -> None:
        self._folder = folder
        self._normal = normal
        self._variables = variables
        self.told: list[dict[str, Any]] = []

    def __call__(self, *arguments: str, **variables: str) -> Any:
        """Run a command; its standard output, parsed where it is JSON."""
        given = {**self._variables, **variables}
        code, out, err = adapter.command(self._folder, *arguments, **given)
        try:
            said: Any = json.loads(out)
        except ValueError:
            said = out
        told = {
            "command": self._normal.text(" ".join(arguments)),
            "exit code": code,
            "output": self._normal(said if not isinstance(said, str) else said.splitlines()),
            "errors": [
                line
                for line in self._normal.text(err).splitlines()
                # How long a step takes is the machine's affair.
                if " ... " not in f"{line} " and not line.endswith((" so far", " left"))
            ],
        }
        self.told.append(told)
        return said

    def also(self, **variables: str) -> _Terminal:
        """The same with more environment variables."""
        return _Terminal(self._folder, self._normal, **{**self._variables, **variables})

    def file(self, name: str) -> None:
        """Record a file that a command wrote."""
        text = (self._folder / name).read_text()
        try:
            content: Any = json.loads(text)
        except ValueError:
            content = text.splitlines()
        self.told.append({"file": name, "content": self._normal(content)})


def commands(folder: Path) -> dict[str, Any]:
    """Every command, by topic."""
    found: dict[str, Any] = {"help": helps(folder), "photos": photos(folder)}
    found |= with_studio(folder)
    return found


def helps(folder: Path) -> dict[str, list[str]]:
    """``--help`` of everything."""
    told = {}
    for name in ("", *adapter.commands()):
        code, out, err = adapter.command(folder, *name.split(), "--help")
        assert (code, err) == (0, ""), err
        told[name] = [line.rstrip() for line in Normal().text(out).splitlines()]
    return told


def photos(folder: Path) -> list[dict[str, Any]]:
    """Commands that need photos alone."""
    made = adapter.demo_photos(folder / "demo" / "images", 30)
    (folder / "bad.jpg").write_text("no image")
    bad, gone = str(folder / "bad.jpg"), str(folder / "gone.jpg")
    files = [str(path) for path, _ in made[:3]]
    base = {"LS_CLIP_ENCODER": "offline", "LS_CLIP_OFFLINE": "1"}
    base["LS_CLIP_STORE"] = str(folder / "photos-store")
    run = _Terminal(folder, Normal({str(folder): "<folder>"}), **base)
    run("suggest", "--labels", LABELS, "--json", *files)
    run("suggest", "--labels", LABELS, "--json", "--threshold", "0.05", files[0], bad, gone)
    run("suggest", "--labels", LABELS, "--json", gone)
    run("suggest", "--labels", " , ", "--json", files[0])
    # A table is as wide as the paths in it.
    run("suggest", "--labels", LABELS, str(made[0][0].relative_to(folder)), bad)
    run("suggest", "--labels", "a", files[0], LS_CLIP_ENCODER="clip")
    run("suggest", "--labels", "a", files[0], LS_CLIP_PORT="http")
    demo = str(folder / "demo")
    run("evaluate", demo, "--json")
    run("evaluate", demo, "--json", "--fit")
    run("evaluate", demo, "--json")
    run("evaluate", demo)
    run("evaluate", str(folder), "--json")
    chosen = ("--encoders", "offline,nothing", "--regions", "none,patches")
    run("compare-encoders", demo, *chosen, "--json")
    run("connect", "1")
    run("nothing")
    return run.told


def truth(folder: Path) -> dict[int, list[str]]:
    """Task -> what is on its photo."""
    made = adapter.demo_photos(folder / "truth" / "images", cases.PHOTOS)
    return {number: list(made[number - 1][1]) for number in cases.ALL}


@contextmanager
def _house(folder: Path, name: str) -> Iterator[tuple[_Terminal, Any, Redis, str]]:
    """A Label LabelStudioClient whose tasks are annotated, a queue, and a store of their own."""
    place = folder / name
    place.mkdir()
    store = adapter.copy_store(STORE, place / "store")
    port = str(free_port())
    with (
        golden_studio(truth(folder)) as studio,
        adapter.valkey(place / "valkey", free_port()) as url,
        adapter.connect(url) as connection,
    ):
        places = {studio.url: "<studio>", url: "<redis>", url.split("/")[2]: "<redis>"}
        places |= {f"127.0.0.1:{port}": "<backend>", str(place): "<folder>"}
        variables = {
            "LS_CLIP_ENCODER": "offline",
            "LS_CLIP_OFFLINE": "1",
            "LS_CLIP_STORE": str(store),
            "LS_CLIP_INSTALLATION": adapter.INSTALLATION,
            "LS_CLIP_PORT": port,
            "LS_CLIP_BLIND_SHARE": "0",
            "LS_CLIP_AUDIT_SHARE": "0",
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": TOKEN,
        }
        yield _Terminal(place, Normal(places), **variables), studio, connection, url


def with_studio(folder: Path) -> dict[str, Any]:
    """Commands that talk to Label LabelStudioClient, and most of them to the queue."""
    found: dict[str, Any] = {}
    with _house(folder, "connected") as (run, studio, _, _):
        found["connect"] = run.told
        run("connect", "1", "--json")
        run("connect", "1")
        run("connect", "1", "--known-label", "nothing", "--json")
        run("connect", "99", "--json")
        run.told.append({"calls": sorted({f"{method} {path}" for method, path in studio.calls})})
        first = [one for one in studio.predictions if one["task"] <= 3]
        run.told.append({"predictions": first, "shown": studio.shown})
        run("prune", "1")
        run("prune", "1", "--version", "nothing")
        for name in ("csv", "labelstudio", "coco"):
            run("export", "1", "--format", name, "--include", "human,pseudo", "--output", name)
            run.file(name)
        run("export", "1", "--format", "nothing")
        run("export", "1", "--include", "nothing")
        (folder / "connected" / "new.csv").write_text(
            "image,label\nhttp://photos.test/0001.jpg,cat\nhttp://new.test/1.jpg,coffee\n,cat\n"
        )
        for _ in range(2):
            run("import-archive", "1", "new.csv")
        run("import-archive", "1", "new.csv", "--field", "image")
        run("import-archive", "1", "gone.csv")
        run("import-archive", "1", "1")
        run.told.append({"tasks": {str(k): v for k, v in studio.tasks.items() if k > 36}})
        run("predict", "1", "--json")
        run("train", "1", "--json")
        run("heads", "1", "--json")
        run("forget", "1", "--task", "5", "--yes")
        run("forget", "1", "--task", "5", "--yes")
        run("forget", "1", "--yes")
        run("heads", "1", "--json")
    with _house(folder, "queued") as (plain, studio, connection, url):
        run = plain.also(**{QUEUE: url})
        runtime = adapter.make_runtime(
            folder / "queued" / "store",
            redis_url=url,
            label_studio_url=studio.url,
            label_studio_api_key=TOKEN,
            audit_share=0.0,
        )
        _runs(run, runtime, connection)
        _heads(run, runtime, connection)
        found["queue"] = run.told
    return found


def _runs(run: _Terminal, runtime: Any, connection: Redis) -> None:
    run("runs", "1", "--json")
    run("predict", "1", "--only", "nothing", "--json")
    asked = run("predict", "1", "--json")
    run("predict", "1", "--json")
    run("runs", "1", "--json")
    run("doctor", "--json")
    adapter.work(runtime, connection, "predict")
    run("runs", "1", "--show", asked["id"], "--json")
    run("runs", "1", "--show", asked["id"])
    run("runs", "1", "--show", "nothing", "--json")
    run("runs", "1", "--cancel", asked["id"], "--json")
    other = run("predict", "1", "--only", "all", "--json")
    run("runs", "1", "--cancel", other["id"], "--json")
    run("runs", "99")
    run("connect", "1", "--json")
    run("worker", "--queues", "nothing")


def _heads(run: _Terminal, runtime: Any, connection: Redis) -> None:
    run("heads", "1", "--json")
    run("train", "1", "--json")
    run("train", "99", "--json")
    run("rollback", "1")
    adapter.work(runtime, connection, "train")
    run("heads", "1", "--json")
    run("heads", "1")
    run("rollback", "1", "h7")
    run("rollback", "1", "h1")
    run("rollback", "1")
    run("rollback", "1", "h2")
    adapter.work(runtime, connection, "predict")
    run("heads", "1", "--json")
    run("doctor", "1", "--json")
