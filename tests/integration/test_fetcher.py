"""Fetching from real servers on this machine: tokens, redirects, limits, retries, TLS."""

from __future__ import annotations

import datetime
import gzip
import itertools
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backend.errors import ImageError, StudioError
from backend.images import guard
from backend.images.fetcher import ImageFetcher
from backend.images.guard import tls_context
from backend.settings import Settings
from tests.support.builders import make_settings
from tests.support.waiting import PATIENCE

TOKEN = {"Authorization": "Token of-label-studio"}
BODY = b"the bytes of an image"

FOREVER = 10 * PATIENCE
"""A pause longer than any limit: what waits for its end fails."""

Route = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers as its routes say, BODY by default, and remembers what it was asked."""

    daemon_threads = True
    block_on_close = False
    # Many clients may knock before this process gets a core to answer them.
    request_queue_size = 128

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.host = host
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.peers: set[Any] = set()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_port}"

    def tokens(self) -> list[str | None]:
        return [headers.get("Authorization") for _, headers in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.peers.add(self.client_address)
        self.server.routes.get(self.path.partition("?")[0], answer())(self)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def answer(body: bytes = BODY, status: int = 200, **headers: str) -> Route:
    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return route


def redirect(url: str, status: int = 302) -> Route:
    return answer(b"", status, Location=url)


def raw(*parts: bytes, pause: float = 0.0, times: int = 1) -> Route:
    """Writes to the socket past all rules, the last part again and again, then hangs up.

    The pause after each part ends early when the test is over.
    """

    def route(handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler.server, Server)
        handler.close_connection = True
        for part in itertools.chain(parts, itertools.repeat(parts[-1], times - 1)):
            handler.wfile.write(part)
            if handler.server.closing.wait(pause):
                return

    return route


def in_turn(*routes: Route) -> Route:
    left = list(routes)

    def route(handler: BaseHTTPRequestHandler) -> None:
        current = left.pop(0) if len(left) > 1 else left[0]
        current(handler)

    return route


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*args: Any) -> Server:
        servers.append(Server(*args))
        return servers[-1]

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def studio(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def other(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def fetcher_of() -> Iterator[Callable[..., ImageFetcher]]:
    fetchers: list[ImageFetcher] = []

    def make(url: str, **changes: Any) -> ImageFetcher:
        options = {
            "fetch_timeout": PATIENCE,
            "connect_timeout": PATIENCE,
            "max_image_bytes": 100_000,
        }
        settings = Settings(label_studio_url=url, **(options | changes))
        fetchers.append(ImageFetcher(settings, lambda: dict(TOKEN)))
        return fetchers[-1]

    yield make
    for fetcher in fetchers:
        fetcher.close()


Fetchers = Callable[..., ImageFetcher]


def refusal(fetcher: ImageFetcher, value: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(value)
    assert caught.value.fix
    return caught.value


# Label Studio


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("/data/upload/1/ab12-x.jpg", "/data/upload/1/ab12-x.jpg"),
        ("/data/local-files/?d=images/x.jpg", "/data/local-files/?d=images/x.jpg"),
        ("/data/local-files/?d=images/a..b%20c.jpg", "/data/local-files/?d=images/a..b%20c.jpg"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9iL3g=", "/tasks/7/resolve/?fileuri=czM6Ly9iL3g="),
        ("/storage-data/uploaded/?filepath=upload/1/x.jpg", None),
        ("/data/upload/1/a b ü.jpg", "/data/upload/1/a%20b%20%C3%BC.jpg"),
        ("  /data/upload/1/x.jpg\n", "/data/upload/1/x.jpg"),
    ],
)
def test_paths_of_label_studio_come_with_its_token(
    value: str, asked: str | None, studio: Server, fetcher_of: Fetchers
) -> None:
    assert fetcher_of(studio.url).fetch(value) == BODY
    assert studio.requests[0][0] == (asked or value)
    assert studio.tokens() == [TOKEN["Authorization"]]


@pytest.mark.parametrize("value", ["/data/upload/1/x.jpg", "/label-studio/data/upload/1/x.jpg"])
def test_label_studio_under_a_sub_path(value: str, studio: Server, fetcher_of: Fetchers) -> None:
    fetcher_of(f"{studio.url}/label-studio/").fetch(value)
    assert studio.requests[0][0] == "/label-studio/data/upload/1/x.jpg"


def test_an_absolute_url_of_label_studio(studio: Server, fetcher_of: Fetchers) -> None:
    assert fetcher_of(studio.url).fetch(f"{studio.url}/data/upload/1/x.jpg") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]]


@pytest.mark.parametrize(
    ("status", "reason", "word"),
    [(401, "unauthorized", "token"), (403, "forbidden", "access"), (404, "not_found", "storage")],
)
def test_refusals_of_label_studio_say_what_to_mend_there(
    status: int, reason: str, word: str, studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/data/local-files/"] = answer(b"{}", status)
    error = refusal(fetcher_of(studio.url), "/data/local-files/?d=images/x.jpg")
    assert error.reason == reason
    assert word in error.fix
    assert "d=images/x.jpg" in error.message


def test_errors_of_the_token_reach_the_caller(studio: Server) -> None:
    def headers() -> dict[str, str]:
        raise StudioError("The token has expired.")

    with pytest.raises(StudioError, match="expired"):
        ImageFetcher(Settings(label_studio_url=studio.url), headers).fetch("/data/upload/1/x.jpg")
    assert studio.requests == []


# The token stays at home


def test_another_host_gets_no_token(studio: Server, other: Server, fetcher_of: Fetchers) -> None:
    fetcher = fetcher_of(studio.url, allowed_hosts="127.0.0.1")
    assert fetcher.fetch(f"{other.url}/x.jpg") == BODY
    assert other.tokens() == [None]


def test_another_name_of_the_same_machine_gets_no_token(
    studio: Server, fetcher_of: Fetchers
) -> None:
    fetcher = fetcher_of(studio.url, allowed_hosts="localhost")
    assert fetcher.fetch(f"http://localhost:{studio.server_port}/x.jpg") == BODY
    assert studio.tokens() == [None]


def test_a_redirect_to_a_signed_address_gets_no_token(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/tasks/7/resolve/"] = redirect(f"{other.url}/bucket/x.jpg?X-Signature=a%2Fb")
    fetcher = fetcher_of(studio.url, allowed_hosts="127.0.0.1")
    assert fetcher.fetch("/tasks/7/resolve/?fileuri=abc=") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]]
    assert other.tokens() == [None]
    assert other.requests[0][0] == "/bucket/x.jpg?X-Signature=a%2Fb"


def test_a_redirect_within_label_studio_keeps_the_token(
    studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/tasks/7/resolve/"] = redirect("/data/upload/1/x.jpg")
    assert fetcher_of(studio.url).fetch("/tasks/7/resolve/?fileuri=abc=") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]] * 2


def test_another_host_cannot_send_the_token_anywhere_in_label_studio(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    other.routes["/x.jpg"] = redirect(f"{studio.url}/api/projects/1/export")
    fetcher_of(studio.url, allowed_hosts="127.0.0.1").fetch(f"{other.url}/x.jpg")
    assert studio.tokens() == [None]


def test_signatures_and_tokens_are_not_in_messages(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    other.routes["/x.jpg"] = answer(b"", 403)
    error = refusal(
        fetcher_of(studio.url, allowed_hosts="127.0.0.1"), f"{other.url}/x.jpg?X-Signature=secret"
    )
    assert error.reason == "forbidden"
    assert "secret" not in str(error)


# Redirects


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.1:1/x.jpg", "private_address"),
        ("http://169.254.169.254/latest/meta-data/", "private_address"),
        ("http://[::ffff:10.0.0.1]/x.jpg", "private_address"),
        ("//2130706433/x.jpg", "private_address"),
        ("file:///etc/passwd", "unsupported_scheme"),
        ("data:image/png;base64,aGk=", "unsupported_scheme"),
        ("http://user:pass@host/x.jpg", "credentials_in_url"),
        ("/data/local-files/?d=../x.jpg", "path_traversal"),
        ("http://[broken/x.jpg", "bad_url"),
    ],
)
def test_redirects_are_checked_like_the_first_address(
    target: str, reason: str, studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/data/upload/1/x.jpg"] = redirect(target)
    assert refusal(fetcher_of(studio.url), "/data/upload/1/x.jpg").reason == reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_redirects_are_followed_and_no_more(
    status: int, studio: Server, fetcher_of: Fetchers
) -> None:
    for number in range(6):
        studio.routes[f"/{number}"] = redirect(f"/{number + 1}", status)
    fetcher = fetcher_of(studio.url)
    assert fetcher.fetch("/1") == BODY
    assert refusal(fetcher, "/0").reason == "too_many_redirects"


def test_a_redirect_to_nowhere_is_a_wrong_status(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"", 302)
    assert refusal(fetcher_of(studio.url), "/x").reason == "http_status"


# A name that changes its address


def test_a_rebinding_resolver_gains_nothing(
    serve: Callable[..., Server], fetcher_of: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = serve("127.0.0.1")
    outside = serve("127.0.0.2", inside.server_port)
    inside.routes["/x.jpg"] = answer(b"a secret of this network")
    addresses = iter(["127.0.0.2", "127.0.0.1", "127.0.0.1"])

    def rebind(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "rebind.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    fetcher = fetcher_of("http://studio.example", allowed_hosts="127.0.0.2")
    url = f"http://rebind.example:{inside.server_port}/x.jpg"
    assert fetcher.fetch(url) == BODY
    assert fetcher.fetch(url) == BODY
    assert outside.requests[0][1]["Host"] == f"rebind.example:{inside.server_port}"
    fetcher.close()
    assert refusal(fetcher, url).reason == "private_address"
    assert inside.requests == []


def test_proxies_of_the_environment_are_not_used(
    studio: Server, other: Server, fetcher_of: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    assert fetcher_of(studio.url).fetch("/data/upload/1/x.jpg") == BODY
    assert other.requests == []


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
