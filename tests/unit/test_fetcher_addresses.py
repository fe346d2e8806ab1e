"""What is refused before a byte is sent: addresses, hosts, paths, schemes."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from backend.errors import ImageError, SettingsError
from backend.images import guard
from backend.images.fetcher import ImageFetcher
from backend.settings import Settings
from tests.support.waiting import PATIENCE

STUDIO = "http://studio.example:8080"


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Records each address that is connected to, and refuses the connection."""
    opened: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        opened.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("backend.images.guard._TimedSocket.connect", refuse)
    yield opened


def resolver(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every name has these addresses; returns the list of names asked for."""
    asked: list[str] = []

    def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def refusal(value: Any, **changes: Any) -> ImageError:
    options: dict[str, Any] = {"label_studio_url": STUDIO, "fetch_timeout": 2.0} | changes
    fetcher = ImageFetcher(Settings(**options), lambda: {"Authorization": "Token secret"})
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(value)
    assert caught.value.message
    assert caught.value.fix
    return caught.value


PRIVATE = {
    "127.0.0.1": "http://127.0.0.1/x.jpg",
    "another loopback address": "http://127.9.8.7/x.jpg",
    "localhost": "http://localhost/x.jpg",
    "0.0.0.0": "http://0.0.0.0/x.jpg",
    "short zero": "http://0/x.jpg",
    "short form": "http://127.1/x.jpg",
    "decimal": "http://2130706433/x.jpg",
    "octal": "http://0177.0.0.1/x.jpg",
    "hexadecimal": "http://0x7f000001/x.jpg",
    "mixed": "http://0x7f.0.1/x.jpg",
    "IPv6 loopback": "http://[::1]/x.jpg",
    "IPv6 unspecified": "http://[::]/x.jpg",
    "IPv4-mapped": "http://[::ffff:127.0.0.1]/x.jpg",
    "IPv4-mapped, hexadecimal": "http://[::ffff:7f00:1]/x.jpg",
    "IPv4-compatible": "http://[::127.0.0.1]/x.jpg",
    "6to4": "http://[2002:7f00:1::]/x.jpg",
    "NAT64": "http://[64:ff9b::7f00:1]/x.jpg",
    "local NAT64": "http://[64:ff9b:1::7f00:1]/x.jpg",
    "Teredo": "http://[2001:0:7f00:1::]/x.jpg",
    "IPv6 link-local": "http://[fe80::1]/x.jpg",
    "IPv6 unique local": "http://[fd00:ec2::254]/x.jpg",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata, mapped": "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "metadata, decimal": "http://2852039166/latest/meta-data/",
    "Azure metadata": "http://168.63.129.16/",
    "Alibaba metadata, CGNAT": "http://100.100.100.200/",
    "10/8": "http://10.0.0.1/x.jpg",
    "172.16/12": "http://172.17.0.1/x.jpg",
    "192.168/16": "http://192.168.1.1/x.jpg",
    "multicast": "http://224.0.0.251/x.jpg",
    "IPv6 multicast": "http://[ff02::1]/x.jpg",
    "broadcast": "http://255.255.255.255/x.jpg",
}


@pytest.mark.parametrize("url", PRIVATE.values(), ids=PRIVATE)
def test_private_addresses_are_refused(url: str, sockets: list[Any]) -> None:
    error = refusal(url)
    assert error.reason == "private_address"
    assert "LS_CLIP_ALLOWED_HOSTS" in error.fix
    assert sockets == []


@pytest.mark.parametrize("address", ["64:ff9b::5db8:d822", "::ffff:93.184.216.34"])
def test_a_public_address_inside_ipv6_is_connected_to(
    address: str, sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, address)
    assert refusal("http://images.example/x.jpg").reason == "unreachable"
    assert [place[0] for place in sockets] == [address]


def test_public_addresses_are_connected_to(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolver(monkeypatch, "93.184.216.34", "2606:2800:220:1::1")
    assert refusal("http://images.example/x.jpg").reason == "unreachable"
    assert [place[0] for place in sockets] == ["93.184.216.34", "2606:2800:220:1::1"]
    assert asked == ["images.example"]


def test_one_private_address_among_public_ones_refuses_the_host(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "93.184.216.34", "10.0.0.5")
    assert refusal("http://images.example/x.jpg").reason == "private_address"
    assert sockets == []


def test_whatever_is_connected_to_is_global(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = ImageFetcher(Settings(label_studio_url=STUDIO), dict)

    @given(st.ip_addresses())
    @hypothesis_settings(max_examples=200, deadline=None)
    def check(address: Any) -> None:
        sockets.clear()
        resolver(monkeypatch, str(address))
        with pytest.raises(ImageError) as caught:
            fetcher.fetch("http://images.example/x.jpg")
        assert caught.value.reason == ("unreachable" if sockets else "private_address")
        if sockets:
            assert address.is_global
            assert not address.is_multicast

    check()


@pytest.mark.parametrize(
    "allowed",
    [
        "minio.internal",
        "10.1.2.3",
        "10.1.0.0/16",
        " x.example , MINIO.internal",
        "10.1.2.0/255.255.255.0",
    ],
)
def test_allowed_hosts_may_be_private(
    allowed: str, sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "10.1.2.3")
    error = refusal("http://MinIO.internal:9000/x.jpg", allowed_hosts=allowed)
    assert error.reason == "unreachable"
    assert sockets == [("10.1.2.3", 9000)]


def test_an_allowed_network_covers_its_addresses_inside_ipv6(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "::ffff:10.1.2.3")
    refusal("http://minio.internal/x.jpg", allowed_hosts="10.1.0.0/16")
    assert [place[0] for place in sockets] == ["::ffff:10.1.2.3"]


@pytest.mark.parametrize("allowed", ["other.internal", "10.2.0.0/16", "minio", "internal"])
def test_other_allowed_hosts_do_not_help(
    allowed: str, sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "10.1.2.3")
    error = refusal("http://minio.internal/x.jpg", allowed_hosts=allowed)
    assert error.reason == "private_address"
    assert sockets == []


def test_a_wrong_network_in_the_settings_is_reported() -> None:
    with pytest.raises(SettingsError, match=r"10\.1\.0\.0/99"):
        ImageFetcher(Settings(allowed_hosts="10.1.0.0/99"), dict)


def test_offline_refuses_public_hosts_without_asking_the_resolver(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolver(monkeypatch, "93.184.216.34")
    assert refusal("http://images.example/x.jpg", offline=True).reason == "offline"
    assert asked == []
    with_network = {"offline": True, "allowed_hosts": "10.0.0.0/8"}
    assert refusal("http://images.example/x.jpg", **with_network).reason == "offline"
    assert sockets == []


def test_offline_reaches_label_studio_and_allowed_hosts(
    sockets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "10.1.2.3")
    for value, allowed in {
        "/data/upload/1/x.jpg": "",
        "http://minio.internal/x.jpg": "minio.internal",
        "http://files.internal/x.jpg": "10.0.0.0/8",
    }.items():
        assert refusal(value, offline=True, allowed_hosts=allowed).reason == "unreachable"
    assert [port for _, port in sockets] == [8080, 80, 80]


def test_a_name_without_an_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    error = refusal("http://images.example/x.jpg")
    assert error.reason == "unreachable"
    assert "images.example" in error.message


def test_a_slow_resolver_is_cut_at_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(PATIENCE) and [])
    try:
        assert refusal("http://images.example/x.jpg", connect_timeout=0.1).reason == "timeout"
    finally:
        release.set()


SCHEMES = {
    "s3": "s3://bucket/x.jpg",
    "gs": "gs://bucket/x.jpg",
    "azure-blob": "azure-blob://container/x.jpg",
    "file": "file:///etc/passwd",
    "file without slashes": "file:/etc/passwd",
    "ftp": "ftp://host/x.jpg",
    "gopher": "gopher://host:70/_x",
    "javascript": "javascript:alert(1)",
    "capital letters": "FILE:///etc/passwd",
    "a Windows path": "C:\\images\\x.jpg",
}


@pytest.mark.parametrize("value", SCHEMES.values(), ids=SCHEMES)
def test_other_schemes_are_refused(value: str, sockets: list[Any]) -> None:
    assert refusal(value).reason == "unsupported_scheme"
    assert sockets == []


def test_cloud_addresses_are_told_to_become_a_storage() -> None:
    assert "storage" in refusal("s3://bucket/x.jpg").fix


BAD = {
    "empty": "",
    "blank": " \n",
    "not a string": 7,
    "none": None,
    "a list": ["/data/upload/1/x.jpg"],
    "a bare name": "x.jpg",
    "no scheme": "//evil.example/x.jpg",
    "no host": "http:///x.jpg",
    "a bad port": "http://host:99999999/x.jpg",
    "no closing bracket": "http://[::1/x.jpg",
    "full-width digits": "http://１２７.0.0.1/x.jpg",
    "a line break": "http://host/x\r\nX-Evil: 1",
    "a NUL": "http://host/x\0.jpg",
    "too long": "http://host/" + "x" * 9000,
    "endless encoding": "/data/upload/" + "%25" * 1_000_000,
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_bad_addresses_are_refused(value: Any, sockets: list[Any]) -> None:
    assert refusal(value).reason == "bad_url"
    assert sockets == []


@pytest.mark.parametrize(
    "value",
    [
        "http://user:password@host/x.jpg",
        "http://user@host/x.jpg",
        "http://studio.example:8080@evil.example/x.jpg",
    ],
)
def test_user_at_host_is_refused_and_not_repeated(value: str, sockets: list[Any]) -> None:
    error = refusal(value)
    assert error.reason == "credentials_in_url"
    assert "password" not in error.message.removesuffix("a user name or password.")
    assert sockets == []


TRAVERSALS = {
    "parent": "/data/local-files/?d=../etc/passwd",
    "parent inside": "/data/local-files/?d=images/../../etc/passwd",
    "parent at the end": "/data/local-files/?d=images/..",
    "encoded": "/data/local-files/?d=%2e%2e/etc/passwd",
    "encoded slash": "/data/local-files/?d=..%2Fetc%2Fpasswd",
    "encoded twice": "/data/local-files/?d=%252e%252e%252fetc",
    "encoded five times": "/data/local-files/?d=%2525252e%2525252e%2525252fetc",
    "backslash": "/data/local-files/?d=..\\etc\\passwd",
    "encoded backslash": "/data/local-files/?d=images%5C..%5Cx.jpg",
    "two slashes": "/data/local-files/?d=//host/share/x.jpg",
    "two slashes, encoded": "/data/local-files/?d=%2F%2Fetc%2Fpasswd",
    "two slashes, second parameter": "/data/local-files/?d=x.jpg&d=//etc/passwd",
    "from the root of a Windows drive": "/data/local-files/?d=%5Cx.jpg",
    "on a Windows share": "/data/local-files/?d=%5C%5Chost%5Cshare%5Cx.jpg",
    "parent between backslashes": "/data/local-files/?d=a%5C..%5C..%5Cx.jpg",
    "backslash outside ?d=": "/data/local-files%5C..%5C?d=x.jpg",
    "backslash in an upload": "/data/upload/1%5Cx.jpg",
    "drive": "/data/local-files/?d=C:/Windows/win.ini",
    "drive with a backslash": "/data/local-files/?d=C:%5CWindows%5Cwin.ini",
    "NUL": "/data/local-files/?d=x.jpg%00.png",
    "in an upload": "/data/upload/1/../2/x.jpg",
    "in an upload, encoded": "/data/upload/1/%2e%2e/2/x.jpg",
    "written with the host": f"{STUDIO}/data/local-files/?d=../x.jpg",
    "without the slash": "/data/local-files?d=../x.jpg",
}


@pytest.mark.parametrize("value", TRAVERSALS.values(), ids=TRAVERSALS)
def test_path_traversal_is_refused(value: str, sockets: list[Any]) -> None:
    assert refusal(value).reason == "path_traversal"
    assert sockets == []


DATA = b"\x89PNG not really"


def data_uri(data: bytes, change: Callable[[str], str] = str) -> str:
    return "data:image/png;base64," + change(base64.b64encode(data).decode())


def test_a_data_uri() -> None:
    fetcher = ImageFetcher(Settings(offline=True), dict)
    assert fetcher.fetch(data_uri(DATA)) == DATA
    assert fetcher.fetch("DATA:image/png;name=x.png;base64," + data_uri(DATA)[22:]) == DATA
    assert fetcher.fetch(data_uri(DATA, lambda text: text.replace("=", "%3D"))) == DATA
    assert fetcher.fetch(data_uri(DATA, "\n".join)) == DATA


@pytest.mark.parametrize(
    "value",
    [
        "data:text/html;base64,PGh0bWw+",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,a!b",
        "data:image/png;base64,é",
        "data:image/png;base64,abc",
    ],
)
def test_a_broken_data_uri(value: str) -> None:
    assert refusal(value).reason == "bad_url"


@pytest.mark.parametrize("size", [1025, 4000, 100_000])
def test_a_data_uri_over_the_byte_limit(size: int) -> None:
    assert refusal(data_uri(b"x" * size), max_image_bytes=1024).reason == "too_large"
    assert len(ImageFetcher(Settings(max_image_bytes=1024), dict).fetch(data_uri(b"x" * 1024)))


@pytest.mark.parametrize("address", ["fec0::1", "3fff::1", "192.0.0.192", "168.63.129.16"])
def test_addresses_that_python_takes_for_public_are_not(address: str) -> None:
    assert not guard._is_public(ip_address(address))
