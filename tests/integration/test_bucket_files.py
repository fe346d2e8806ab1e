"""Images in a bucket that this process reads itself; the bucket is moto's server."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend import telemetry
from backend.errors import ImageError, ImageReason
from backend.images import bucket_files
from backend.images.address import fetch_address
from backend.images.bucket_files import BucketFiles
from backend.images.direct import Outcome, Place
from backend.images.fetcher import ImageFetcher
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.inference.embedder import Embedder
from backend.settings import Settings
from backend.storage.installations import open_store
from tests.support.buckets import make_bucket, name_in_environment, s3_server
from tests.support.builders import photo, png_bytes
from tests.support.stub_encoder import StubEncoder

BODY = b"the bytes of an image"
KEYS = [
    "set/a.jpg",
    "set/a b.jpg",
    "set/100%.jpg",
    "set/a%20b.jpg",
    "set/%2e%2e/a.jpg",
    "set/é.jpg",
    "set/#x.jpg",
    "set/*~.jpg",
    "set/[x]{y}.jpg",
    "set/a+b&c=d.jpg",
]


class Studio:
    """Label Studio, as far as it resolves addresses; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Validators]] = []

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        self.asked.append((value, known))
        if value.startswith("s3://"):
            raise ImageError(ImageReason.UNSUPPORTED_SCHEME, "s3", "Connect the bucket.")
        return FetchedFile(b"through label studio")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    name_in_environment(server, monkeypatch)
    client = make_bucket(server, "photos")
    for key in KEYS:
        client.put_object(Bucket="photos", Key=key, Body=key.encode())
    return client


@pytest.fixture
def studio() -> Studio:
    return Studio()


Make = Callable[..., BucketFiles]


@pytest.fixture
def make(studio: Studio) -> Make:
    def make(buckets: str = "s3://photos/set", **values: Any) -> BucketFiles:
        settings = Settings(_env_file=None, read_buckets=buckets, **values)
        return BucketFiles(settings, studio)

    return make


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[Outcome]:
    """Attempts of this test."""
    seen: Counter[Outcome] = Counter()
    plain = telemetry.DIRECT_READS.labels

    def labels(place: Place, outcome: Outcome) -> Any:
        assert place is Place.BUCKETS
        seen[outcome] += 1
        return plain(place, outcome)

    monkeypatch.setattr(telemetry.DIRECT_READS, "labels", labels)
    return seen


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_read_by_its_own_name(
    client: Any, make: Make, studio: Studio, counts: Counter[Outcome], key: str
):
    uri = f"s3://photos/{key}"
    # With a task's number, an address is Label Studio's resolve route.
    for value in (uri, fetch_address(uri, 7)):
        found = make().fetch_file(value, UNKNOWN)
        assert found is not None and found.data == key.encode()
    assert studio.asked == [] and counts == {Outcome.READ: 2}


@pytest.mark.parametrize(
    ("buckets", "value"),
    [
        ("", "s3://photos/set/a.jpg"),
        ("s3://other", "s3://photos/set/a.jpg"),
        ("s3://photos/other", "s3://photos/set/a.jpg"),
        ("s3://photos/se", "s3://photos/set/a.jpg"),
        ("s3://photos/set/a.jpg", "s3://photos/set/a.jpg"),
        ("gs://photos", "s3://photos/set/a.jpg"),
        ("s3://photos/set", "s3://photos/set/../private/a.jpg"),
        ("s3://photos/set", "s3://photos/set//a.jpg"),
        ("s3://photos/set", "s3://photos/set/./a.jpg"),
        ("s3://photos/set", "s3://photos/set/"),
        ("s3://photos/set", "s3://photos/set"),
        ("s3://photos/set", "s3://photos/set/a.jpg?versionId=1"),
        ("s3://photos/set", "s3://photos/set/a\\b.jpg"),
        ("s3://photos/set", "s3://photos/set/a\x00.jpg"),
        ("s3://photos/set", "s3://photos@elsewhere/set/a.jpg"),
        ("s3://photos/set", "s3://elsewhere:80/photos/set/a.jpg"),
        ("s3://photos/set", "s3a://photos/set/a.jpg"),
        ("s3://photos/set", "https://photos.s3.amazonaws.com/set/a.jpg"),
        ("s3://photos/set", "/data/upload/1/a.jpg"),
        ("s3://photos/set", "data:image/png;base64,AAAA"),
    ],
)
def test_all_else_is_left_to_label_studio(make: Make, studio: Studio, buckets: str, value: str):
    files = make(buckets)
    assert files.place_of(value) is None
    try:
        files.fetch_file(value, UNKNOWN)
    except ImageError as error:
        assert error.reason == "unsupported_scheme"
    assert studio.asked == [(value, UNKNOWN)]


@pytest.mark.parametrize(
    ("buckets", "spoil", "outcome"),
    [
        ("s3://photos/set", {"Key": "set/gone.jpg"}, Outcome.MISSING),
        ("s3://no-such-bucket", {"Key": "set/a.jpg"}, Outcome.MISSING),
        ("s3://photos/set", {"Key": "set/large.jpg"}, Outcome.REFUSED),
    ],
)
def test_what_cannot_be_read_goes_through_label_studio_and_is_told_once(
    client: Any,
    make: Make,
    studio: Studio,
    counts: Counter[Outcome],
    caplog: pytest.LogCaptureFixture,
    buckets: str,
    spoil: dict[str, str],
    outcome: Outcome,
):
    client.put_object(Bucket="photos", Key="set/large.jpg", Body=b"x" * 2000)
    bucket = "/".join(buckets.split("/")[:3])
    files = make(buckets, max_image_bytes=1024)
    value, known = fetch_address(f"{bucket}/{spoil['Key']}", 7), Validators('"1"')
    for _ in range(3):
        found = files.fetch_file(value, known)
        assert found is not None and found.data == b"through label studio"
    assert studio.asked == [(value, known)] * 3
    assert counts == {outcome: 3}
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert f"LS_CLIP_READ_BUCKETS={bucket}" in line and spoil["Key"] not in line


def test_a_bucket_that_does_not_answer_is_left_alone_for_a_while(
    client: Any,
    make: Make,
    studio: Studio,
    counts: Counter[Outcome],
    monkeypatch: pytest.MonkeyPatch,
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, gone)
    files = make()
    value = fetch_address("s3://photos/set/a.jpg", 7)
    opened: list[str] = []
    read = bucket_files._Bucket.read

    def reading(bucket: Any, key: str, known: Validators) -> FetchedFile | None:
        opened.append(key)
        return read(bucket, key, known)

    monkeypatch.setattr(bucket_files._Bucket, "read", reading)
    for _ in range(3):
        assert files.fetch_file(value, UNKNOWN) is not None
    assert len(studio.asked) == 3 and opened == ["set/a.jpg"]
    assert counts == {Outcome.FAILED: 3}


def test_an_address_without_a_task_has_no_other_way(client: Any, make: Make):
    with pytest.raises(ImageError) as caught:
        make().fetch_file("s3://photos/set/gone.jpg", UNKNOWN)
    assert caught.value.reason == "unsupported_scheme"


def test_a_client_that_waits_in_vain_leaves_time_for_label_studio(
    client: Any, make: Make, studio: Studio, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = make(fetch_timeout=1.0).fetch_file(
            fetch_address("s3://photos/set/a.jpg", 7), UNKNOWN
        )
    assert found is not None and len(studio.asked) == 1


# Whether an object is still the same


def test_an_unchanged_object_is_not_read_again_and_a_replaced_one_is(client: Any, make: Make):
    files, value = make(), "s3://photos/set/a.jpg"
    first = files.fetch_file(value, UNKNOWN)
    assert first is not None
    assert files.fetch_file(value, first.validators) is None
    client.put_object(Bucket="photos", Key="set/a.jpg", Body=b"other")
    again = files.fetch_file(value, first.validators)
    assert again is not None and again.data == b"other"


def test_both_ways_tell_the_same_of_an_object(server: str, client: Any, make: Make):
    # The way of Label Studio ends at an address of the bucket, with a signature.
    url = client.generate_presigned_url(
        "get_object", Params={"Bucket": "photos", "Key": "set/a.jpg"}
    )
    fetcher = ImageFetcher(Settings(_env_file=None, allowed_hosts="127.0.0.1"), dict)
    sent = fetcher.fetch_file(url, UNKNOWN)
    read = make().fetch_file("s3://photos/set/a.jpg", UNKNOWN)
    assert sent is not None and read is not None
    assert read == sent and sent.validators.tell_something
    assert fetcher.fetch_file(url, read.validators) is None
    assert make().fetch_file("s3://photos/set/a.jpg", sent.validators) is None


def test_one_file_has_one_embedding_however_it_was_read(
    client: Any, make: Make, settings: Settings
):
    body = png_bytes(photo(1))
    client.put_object(Bucket="photos", Key="set/photo.png", Body=body)

    class Fetched:
        def fetch_file(self, value: str, known: Validators) -> FetchedFile:
            return FetchedFile(body)

    store, encoder = open_store(settings), StubEncoder()
    value = fetch_address("s3://photos/set/photo.png", 7)
    direct, failures = Embedder(settings, encoder, store, make()).embed([value])
    assert failures == {}
    fetched, _ = Embedder(settings, encoder, store, Fetched()).embed(["https://other/photo.png"])
    assert encoder.images == 1
    one, other = direct[value], fetched["https://other/photo.png"]
    assert one.image.tobytes() == other.image.tobytes()
