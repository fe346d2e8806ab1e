"""What goes through Redis, and what is said when Redis is not there."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from redis import Redis

from backend.errors import QueueError, SettingsError
from backend.settings import Settings, load_settings
from jobs import queue
from tests.support.builders import make_settings
from tests.support.processes import free_port


def test_without_an_address_the_error_names_the_setting_and_the_other_way(tmp_path: Path):
    with pytest.raises(QueueError) as caught:
        queue.connect(make_settings(tmp_path))
    assert "LS_CLIP_REDIS_URL" in caught.value.fix
    assert "ls-clip connect" in caught.value.fix


def test_a_redis_that_is_down_is_one_error_that_names_the_setting(tmp_path: Path):
    settings = make_settings(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(QueueError) as caught, queue.explained():
        queue.connect(settings, retries=0).ping()
    assert "LS_CLIP_REDIS_URL" in caught.value.fix


def test_an_address_of_another_kind_is_refused_at_once():
    with pytest.raises(SettingsError, match="LS_CLIP_REDIS_URL"):
        load_settings(redis_url="http://127.0.0.1:6379")


def test_the_password_of_the_address_is_never_shown(tmp_path: Path):
    settings = make_settings(tmp_path, redis_url="redis://me:s3cret@cache.internal:6380/2")
    assert queue.place(settings) == "cache.internal:6380"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    "address",
    [
        "redis://:Sekret1/x@cache.internal:6379/0",
        "redis://me:12345/x@cache.internal:6379/0",
        "redis://me:Sekret1#x@cache.internal:6379/0",
        "redis://cache.internal:Sekret1",
        "redis://me:Sekret1\u2100@cache.internal",
    ],
)
def test_an_address_that_cannot_be_read_shows_no_password(address: str):
    with pytest.raises(SettingsError, match="LS_CLIP_REDIS_URL") as caught:
        load_settings(redis_url=address)
    assert "Sekret" not in str(caught.value) and "12345" not in str(caught.value)


def test_an_option_that_redis_does_not_know_is_told_before_the_first_command(tmp_path: Path):
    settings = make_settings(tmp_path, redis_url="redis://127.0.0.1:1/0?foo=bar")
    with pytest.raises(QueueError, match="LS_CLIP_REDIS_URL"):
        queue.connect(settings)


def test_a_redis_address_with_a_password_is_good(tmp_path: Path):
    for address in ("redis://me:a%2Fb@cache:6380/2", "unix://me@/run/redis.sock?password=a@b"):
        assert load_settings(redis_url=address).redis_url.get_secret_value() == address


def test_two_jobs_of_one_id_are_one(connection: Redis):
    first = queue.enqueue(connection, queue.PREDICT, "jobs.x", 1, job_id="a")
    second = queue.enqueue(connection, queue.PREDICT, "jobs.x", 1, job_id="a")
    assert (first, second, queue.depth(connection, queue.PREDICT)) == (True, False, 1)


def test_a_job_is_stored_as_json(connection: Redis):
    queue.enqueue(connection, queue.PREDICT, "jobs.x", "run", 3, job_id="a")
    stored = json.loads(zlib.decompress(connection.hget("rq:job:a", "data")))
    assert stored == ["jobs.x", None, ["run", 3], {}]


def test_a_job_that_a_dying_worker_took_with_it_is_not_called_queued(connection: Redis):
    for name in ("a", "b"):
        queue.enqueue(connection, queue.PREDICT, "jobs.x", job_id=name)
    assert connection.lpop(queue.queue(connection, queue.PREDICT).key) == b"a"
    assert queue.statuses(connection, queue.PREDICT, ["a", "b", "c"]) == {"b": "queued"}


def test_a_removed_job_can_be_enqueued_again(connection: Redis):
    queue.enqueue(connection, queue.PREDICT, "jobs.x", job_id="a")
    queue.remove(connection, queue.PREDICT, "a")
    assert queue.depth(connection, queue.PREDICT) == 0
    assert queue.enqueue(connection, queue.PREDICT, "jobs.x", job_id="a")


def test_nobody_listens_on_a_new_queue(queue_settings: Settings):
    assert queue.workers(queue.connect(queue_settings), queue.PREDICT) == 0
