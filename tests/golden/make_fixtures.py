"""Made `data/store-v1` and `data/redis-v1.json`: ``python -m tests.golden.make_fixtures``.

They prove that later code opens what that day's code wrote, so they are not made again: a new
format gets files of its own. It refuses to write over them.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis

from tests.conftest import free_port
from tests.golden import adapter, adapter_making, cases
from tests.golden.normal import dumped
from tests.golden.stand_in import golden_studio

DATA = Path(__file__).parent / "data"
FAILURE = {"code": "image", "message": "It is cut.", "fix": "Mend it."}


def make_store(folder: Path) -> None:
    """Write the store."""
    runtime = adapter.make_runtime(folder)
    with tempfile.TemporaryDirectory() as place:
        photos = adapter.demo_photos(Path(place) / "images", cases.PHOTOS)
        files = {cases.address(n): photos[n - 1][0].read_bytes() for n in cases.ALL}
        truth = {n: {**cases.task(n)["data"], "labels": photos[n - 1][1]} for n in cases.ALL}
    adapter_making.fill_store(runtime, files)
    again = {cases.UPLOAD: files[cases.address(1)], cases.CLOUD: files[cases.address(2)]}
    adapter_making.fill_store(runtime, again)
    adapter_making.save_table(runtime)
    everything = cases.tasks(*cases.ALL)
    for key, xml in ((cases.TRAINED, cases.EVIDENT), (cases.MEASURED, cases.PLAIN)):
        adapter_making.finish_store(runtime, xml, key, everything)
    adapter_making.set_known_field(runtime, cases.KNOWN, cases.KNOWN_FIELD)
    careful = adapter.make_runtime(folder, audit_share=0.0)
    first = adapter.train(careful, cases.EVIDENT, cases.TRAINED, truth, "unaided")
    assert first["made"] is not None and first["made"]["accepted"], first
    adapter_making.serve_head(runtime, cases.TRAINED, "h1")
    second = adapter.train(careful, cases.EVIDENT, cases.TRAINED, truth, "imported")
    assert second["made"] is not None and not second["made"]["accepted"], second
    adapter_making.remember(runtime, cases.EVIDENT, cases.TRAINED, everything[:4])
    blind = adapter.make_runtime(folder, blind_share=0.5)
    adapter_making.remember(blind, cases.PLAIN, cases.MEASURED, everything[:8])
    some = [{**one, "images": [one["data"]["image"]]} for one in everything[:5]]
    adapter_making.write_run_files(runtime, cases.RUN, cases.EVIDENT, cases.TRAINED, some)


def make_redis(connection: Redis, store: Path, url: str) -> None:
    """Bring a Redis into the states that are kept."""
    with golden_studio() as studio:
        runtime = adapter.make_runtime(
            store, redis_url=url, label_studio_url=studio.url, label_studio_api_key="f" * 40
        )
        adapter_making.start_run(connection, 1, "missing", "cli")
        adapter.work(runtime, connection, "predict")
    cancelled = adapter_making.start_run(connection, 1, "all", "http")
    adapter_making.cancel_run(connection, cancelled)
    embedding = adapter_making.start_run(connection, 7, "unlabelled", "connect", "h3")
    adapter_making.begin_embedding(connection, embedding, {70: FAILURE, 8: FAILURE})
    adapter_making.fill_trainings(connection)


def dump(connection: Redis) -> dict[str, Any]:
    """All keys: type, value, whether they expire. What is no UTF-8 is told in base64."""
    read: dict[str, Any] = {
        "string": connection.get,
        "hash": connection.hgetall,
        "set": lambda key: sorted(connection.smembers(key)),
        "zset": lambda key: connection.zrange(key, 0, -1, withscores=True),
        "list": lambda key: connection.lrange(key, 0, -1),
    }
    found = {}
    for key in sorted(connection.keys("*")):
        kind = connection.type(key).decode()
        if kind in read:
            expires = connection.ttl(key) > 0
            found[key.decode()] = {
                "type": kind,
                "value": _plain(read[kind](key)),
                "expires": expires,
            }
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key.decode(): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def main() -> None:
    """Make both."""
    store, redis = DATA / "store-v1", DATA / "redis-v1.json"
    if redis.exists():
        sys.exit("They are there, and are not made again.")
    if not store.exists():
        make_store(store)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with adapter.valkey(folder / "valkey", free_port()) as url, Redis.from_url(url) as client:
            make_redis(client, adapter.copy_store(store, folder / "store"), url)
            redis.write_text(dumped(dump(client)))


if __name__ == "__main__":
    main()
