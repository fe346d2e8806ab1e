"""Protection against server-side request forgery: the only way from an image URL to a socket.

A host is resolved once, each of its IP addresses is checked, and the connection goes to a checked
one, so that DNS rebinding gains nothing. TLS and the Host header keep the name. A kept-alive
connection needs no second check.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, NoReturn

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Url

from backend.errors import ImageError, ImageReason, SettingsError
from backend.messages.message import Message
from backend.settings import Settings

_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (
    # Azure's metadata and platform service, and that of Oracle Cloud Classic.
    ip_network("168.63.129.16/32"),
    ip_network("192.0.0.192/32"),
    # For documentation (RFC 9637); older Pythons call it global.
    ip_network("3fff::/20"),
)

# Scheme, host (lower case, without brackets), port.
Origin = tuple[str | None, str, int | None]
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]

# The deadline of the fetch that runs in this thread, on the clock of time.monotonic().
_deadline: ContextVar[float] = ContextVar("_deadline")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Limit the total time that this thread spends on guarded sockets and on files.

    Inside another limit, the one that ends first holds.

    Args:
        seconds: for name lookup, connections, redirects and bodies together.
    """
    until = time.monotonic() + seconds
    token = _deadline.set(min(until, _deadline.get(until)))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """What is left of `time_limit`, in seconds, above 0.

    Raises:
        TimeoutError: nothing is left.
    """
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# A socket's own timeout restarts with each byte, so a slow host could hold a thread for hours.
# These two classes give each read only what is left of the whole fetch.
class _TimedSocket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(remaining())
        return super().recv_into(*args, **kwargs)


class _TimedTLSSocket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(remaining())
        return super().recv_into(*args, **kwargs)


@cache
def tls_context() -> ssl.SSLContext:
    """Trusts the certificates of this machine (or SSL_CERT_FILE) and the bundle of requests."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    context.sslsocket_class = _TimedTLSSocket
    return context


def guarded_pools(settings: Settings, trusted: Origin) -> PoolManager:
    """Connection pools that refuse private addresses and, when offline, all unknown hosts.

    Use them inside `time_limit`. Proxies from the environment are not used.

    Args:
        settings: connect_timeout, allowed_hosts, offline and fetch_workers are read.
        trusted: the origin that may be reached at any address: Label Studio.

    Raises:
        SettingsError: allowed_hosts has an entry with a slash that is not a network.
    """
    pools = PoolManager(maxsize=settings.fetch_workers, ssl_context=tls_context())
    pools.pool_classes_by_scheme = _pool_classes(_Gate(settings, trusted).connect)
    return pools


class _Gate:
    """Resolves and checks hosts, and opens sockets to them."""

    def __init__(self, settings: Settings, trusted: Origin) -> None:
        self._settings = settings
        self._trusted = trusted
        self._names, self._networks = _allowed(settings.allowed_host_list)
        # A lookup cannot be interrupted, so it runs in a thread that can be abandoned.
        self._lookups = ThreadPoolExecutor(settings.fetch_workers, thread_name_prefix="lookup")
        # Hanging lookups of other hosts must not delay those of Label Studio.
        self._trusted_lookups = ThreadPoolExecutor(
            settings.fetch_workers, thread_name_prefix="trusted-lookup"
        )

    def connect(self, scheme: str, host: str, port: int) -> socket.socket:
        """Connect to a checked address of ``host`` within ``connect_timeout``.

        Raises:
            ImageError: its ``reason`` is ``private_address``, ``offline``, ``timeout`` or
                ``unreachable``.
        """
        host = host.strip("[]")
        until = time.monotonic() + min(self._settings.connect_timeout, remaining())
        problem: Exception = OSError("it has no address")
        try:
            for family, kind, proto, _, place in self._addresses(scheme, host, port, until):
                sock = _TimedSocket(family, kind, proto)
                try:
                    sock.settimeout(max(until - time.monotonic(), 0.001))
                    sock.connect(place)
                    sock.settimeout(remaining())
                except OSError as error:
                    sock.close()
                    problem = error
                else:
                    return sock
        except (OSError, UnicodeError) as error:
            problem = error
        if isinstance(problem, TimeoutError):
            raise ImageError(
                ImageReason.TIMEOUT,
                Message("{host}:{port} did not accept a connection in time.", host=host, port=port),
                Message(
                    "Check that the host is up and reachable from here, or raise "
                    "LS_CLIP_CONNECT_TIMEOUT."
                ),
            ) from problem
        raise ImageError(
            ImageReason.UNREACHABLE,
            Message(
                "No connection to {host}:{port} ({problem}).", host=host, port=port, problem=problem
            ),
            Message("Check the name and the port, and that the host is up."),
        ) from problem

    def _addresses(self, scheme: str, host: str, port: int, until: float) -> Sequence[_Address]:
        """Resolve ``host`` once; every address in the answer is allowed."""
        trusted = (scheme, host, port) == self._trusted
        allowed = host.rstrip(".") in self._names
        if self._settings.offline and not (trusted or allowed or self._networks):
            _refuse_offline(host)
        lookups = self._trusted_lookups if trusted else self._lookups
        lookup = lookups.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        answer: Sequence[_Address] = lookup.result(timeout=max(until - time.monotonic(), 0.001))
        for *_, place in [] if trusted or allowed else answer:
            address = _embedded_ipv4(ip_address(str(place[0]).partition("%")[0]))
            if any(address in network for network in self._networks):
                continue
            if self._settings.offline:
                _refuse_offline(host)
            if not _is_public(address):
                raise ImageError(
                    ImageReason.PRIVATE_ADDRESS,
                    Message(
                        "{host} is at {address}, which is not a public address.",
                        host=host,
                        address=address,
                    ),
                    Message(
                        "If this is Label Studio under another name (its LABEL_STUDIO_HOST), set "
                        "LS_CLIP_LABEL_STUDIO_PUBLIC_URL={scheme}://{host}:{port}. If it is "
                        "another host that may be fetched from, add {host} to "
                        "LS_CLIP_ALLOWED_HOSTS.",
                        scheme=scheme,
                        host=host,
                        port=port,
                    ),
                )
        return answer


def _pool_classes(connect: Callable[[str, str, int], socket.socket]) -> dict[str, Any]:
    """The connection pools of urllib3, with ``connect`` as the only way to a socket."""

    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect("http", self._dns_host, self.port)

    class TLSConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect("https", self._dns_host, self.port)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    return {"http": PlainPool, "https": TLSPool}


def origin(url: Url) -> Origin:
    """Scheme, host and port of a URL, with the default port filled in."""
    default = {"http": 80, "https": 443}.get(url.scheme or "")
    return url.scheme, (url.host or "").strip("[]"), url.port or default


def _allowed(entries: list[str]) -> tuple[set[str], list[IPv4Network | IPv6Network]]:
    names, networks = set(), []
    for entry in entries:
        try:
            networks.append(ip_network(entry, strict=False))
        except ValueError as error:
            if "/" in entry:
                raise SettingsError(
                    Message("LS_CLIP_ALLOWED_HOSTS: {entry} is not a network.", entry=entry),
                    Message("Write host names, addresses or networks such as 10.1.0.0/16."),
                ) from error
            names.add(entry)
    return names, networks


def _embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address embedded in an IPv6 address, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    # Python counts multicast, and some reserved ranges, as global.
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not getattr(address, "is_site_local", False)
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _refuse_offline(host: str) -> NoReturn:
    raise ImageError(
        ImageReason.OFFLINE,
        Message("{host} is not contacted: this backend is set to be offline.", host=host),
        Message(
            "Upload the image to Label Studio, or add {host} to LS_CLIP_ALLOWED_HOSTS.", host=host
        ),
    )
