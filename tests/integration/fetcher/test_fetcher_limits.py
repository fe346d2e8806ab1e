"""Fetching from real servers on this machine: limits, retries, connections, TLS, name lookups."""

from __future__ import annotations

import datetime
import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backend.images import guard
from backend.images.guard import tls_context
from tests.support.builders import make_settings
from tests.support.http_server import (
    BODY,
    FOREVER,
    Fetchers,
    Server,
    answer,
    in_turn,
    raw,
    redirect,
    refusal,
)
from tests.support.waiting import PATIENCE

# Limits


def test_a_body_without_end(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000, times=10_000)
    assert refusal(fetcher_of(studio.url), "/x").reason == "too_large"


def test_a_chunked_body_without_end(studio: Server, fetcher_of: Fetchers) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    studio.routes["/x"] = raw(head, b"3e8\r\n" + b"x" * 1000 + b"\r\n", times=100_000)
    assert refusal(fetcher_of(studio.url), "/x").reason == "too_large"


def test_a_declared_length_over_the_limit_is_refused_at_once(
    studio: Server, fetcher_of: Fetchers
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"
    studio.routes["/x"] = raw(head, b"", pause=FOREVER)
    assert refusal(fetcher_of(studio.url), "/x").reason == "too_large"


def test_the_byte_limit_is_inclusive(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"x" * 100_000)
    assert len(fetcher_of(studio.url).fetch("/x")) == 100_000
    assert refusal(fetcher_of(studio.url, max_image_bytes=99_999), "/x").reason == "too_large"


def test_a_declared_length_that_is_too_small_cuts_the_body(
    studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/x"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", BODY)
    fetcher = fetcher_of(studio.url)
    assert fetcher.fetch("/x") == BODY[:5]
    assert fetcher.fetch("/y") == BODY


def test_a_declared_length_that_is_too_large_is_a_broken_connection(
    studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/x"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", BODY)
    assert refusal(fetcher_of(studio.url), "/x").reason == "unreachable"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_holds_for_the_decoded_size(
    encoding: str, studio: Server, fetcher_of: Fetchers
) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    pack = packers[encoding]
    studio.routes["/bomb"] = answer(pack(b"\0" * 50_000_000), Content_Encoding=encoding)
    studio.routes["/x"] = answer(pack(BODY), Content_Encoding=encoding)
    studio.routes["/junk"] = answer(b"this is not packed", Content_Encoding=encoding)
    fetcher = fetcher_of(studio.url)
    assert refusal(fetcher, "/bomb").reason == "too_large"
    assert fetcher.fetch("/x") == BODY
    assert refusal(fetcher, "/junk").reason == "unreachable"
    assert studio.requests[0][1]["Accept-Encoding"] == "identity"


SLOW = {
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "informational answers": (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize("parts", SLOW.values(), ids=SLOW)
def test_a_slow_loris_host_is_cut_at_the_total_time(
    parts: tuple[bytes, ...], studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/x"] = raw(*parts, pause=0.05, times=100_000)
    start = time.monotonic()
    error = refusal(fetcher_of(studio.url, fetch_timeout=0.4), "/x")
    assert error.reason == "timeout"
    assert 0.3 < time.monotonic() - start < PATIENCE


def test_a_silent_host_is_cut_at_the_total_time(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = raw(b"", pause=FOREVER)
    assert refusal(fetcher_of(studio.url, fetch_timeout=0.3), "/x").reason == "timeout"


def test_the_total_time_covers_all_redirects(studio: Server, fetcher_of: Fetchers) -> None:
    def slow_redirect(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        redirect("/x")(handler)

    studio.routes["/x"] = slow_redirect
    assert refusal(fetcher_of(studio.url, fetch_timeout=0.5), "/x").reason == "timeout"
    assert len(studio.requests) <= 3


def test_a_host_that_does_not_accept_connections(fetcher_of: Fetchers) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(place)
        start = time.monotonic()
        fetcher = fetcher_of(f"http://127.0.0.1:{place[1]}", connect_timeout=0.2)
        assert refusal(fetcher, "/x").reason == "timeout"
        assert time.monotonic() - start < PATIENCE / 2
        for client in waiting:
            client.close()


def test_nothing_listens(fetcher_of: Fetchers) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert refusal(fetcher_of(url), "/x").reason == "unreachable"


# Retries


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_host_is_asked_again(status: int, studio: Server, fetcher_of: Fetchers) -> None:
    busy = answer(b"", status, Retry_After="0")
    studio.routes["/x"] = in_turn(busy, busy, answer())
    assert fetcher_of(studio.url).fetch("/x") == BODY
    studio.routes["/x"] = busy
    studio.requests.clear()
    assert refusal(fetcher_of(studio.url), "/x").reason == "http_status"
    assert len(studio.requests) == 3


def test_a_broken_connection_is_tried_again(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = in_turn(raw(b""), answer())
    assert fetcher_of(studio.url).fetch("/x") == BODY


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_other_answers_are_final(status: int, studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"", status)
    refusal(fetcher_of(studio.url), "/x")
    assert len(studio.requests) == 1


def test_a_short_retry_after_is_waited_for(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = in_turn(answer(b"", 429, Retry_After="1"), answer())
    start = time.monotonic()
    assert fetcher_of(studio.url).fetch("/x") == BODY
    assert time.monotonic() - start >= 1


def test_a_long_retry_after_is_an_error_at_once(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"", 503, Retry_After="3600")
    assert refusal(fetcher_of(studio.url), "/x").reason == "http_status"
    assert len(studio.requests) == 1


def test_a_retry_after_that_means_nothing_is_ignored(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = in_turn(answer(b"", 503, Retry_After="soon"), answer())
    assert fetcher_of(studio.url).fetch("/x") == BODY


# Many at once


def test_connections_are_kept_open(studio: Server, fetcher_of: Fetchers) -> None:
    fetcher = fetcher_of(studio.url)
    for _ in range(5):
        assert fetcher.fetch("/x") == BODY
    assert len(studio.peers) == 1


def test_many_threads_share_one_fetcher(studio: Server, fetcher_of: Fetchers) -> None:
    fetcher = fetcher_of(studio.url, fetch_workers=4)
    for number in range(40):
        studio.routes[f"/{number}"] = answer(b"%d" % number)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(fetcher.fetch, [f"/{number}" for number in range(40)]))
    assert got == [b"%d" % number for number in range(40)]


# TLS


@pytest.fixture
def tls_server(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, list[str]]]:
    """A server whose certificate names images.example, trusted; and the names it was asked by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("images.example")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    (tmp_path / "server.pem").write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    names: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.sni_callback = lambda _, asked, __: names.append(asked or "")
    server = serve()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **more: resolve("127.0.0.1", *args, **more)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()
    yield server, names
    tls_context.cache_clear()


def test_tls_checks_the_name_although_the_address_is_pinned(
    tls_server: tuple[Server, list[str]], fetcher_of: Fetchers
) -> None:
    server, names = tls_server
    fetcher = fetcher_of("http://studio.example", allowed_hosts="127.0.0.1")
    assert fetcher.fetch(f"https://images.example:{server.server_port}/x.jpg") == BODY
    assert names == ["images.example"]
    assert server.requests[0][1]["Host"] == f"images.example:{server.server_port}"
    error = refusal(fetcher, f"https://other.example:{server.server_port}/x.jpg")
    assert error.reason == "unreachable"
    assert "other.example" in error.message


def test_a_slow_loris_host_over_tls(
    tls_server: tuple[Server, list[str]], fetcher_of: Fetchers
) -> None:
    server, _ = tls_server
    server.routes["/x"] = raw(*SLOW["body"], pause=0.05, times=100_000)
    fetcher = fetcher_of(f"https://images.example:{server.server_port}", fetch_timeout=0.5)
    start = time.monotonic()
    assert refusal(fetcher, "/x").reason == "timeout"
    assert time.monotonic() - start < PATIENCE


def test_a_host_that_never_shakes_hands(fetcher_of: Fetchers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        assert refusal(fetcher_of(url, fetch_timeout=0.3), "/x").reason == "timeout"
        assert time.monotonic() - start < PATIENCE / 2


# Name lookups


def test_lookups_that_hang_do_not_keep_label_studio_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = threading.Event()
    resolve = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **named: Any) -> Any:
        if host.endswith(".example"):
            release.wait(FOREVER)
            raise socket.gaierror("no such host")
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = make_settings(tmp_path, fetch_workers=2, connect_timeout=PATIENCE)
        gate = guard._Gate(settings, ("http", "127.0.0.1", port))
        try:
            for number in range(4):
                with guard.time_limit(1.0), pytest.raises(Exception):  # noqa: B017
                    gate.connect("http", f"dead{number}.example", 80)
            with guard.time_limit(PATIENCE):
                gate.connect("http", "127.0.0.1", port).close()
        finally:
            release.set()
