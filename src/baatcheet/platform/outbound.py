"""Calling addresses that users give us, without being led into our own network (server-side request forgery).

What a name means is only known when it is connected to, and may change from one moment to the next (DNS rebinding). So
the decision is made three times: on the URL as it is written, on every address that a name resolves to, and on the
address of each socket before it is connected, which also catches addresses that no resolver has seen.

To the public, only https on its own port or one from 1024 up. What the operator allows (`OutboundPolicy.allowing`) may
be called at any address and port, without TLS too. No proxy is ever used: it would make the connection in our place.
"""

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from baatcheet.kit.addresses import IPAddress, IPNetwork, is_numeric_host, kind_if_not_public
from baatcheet.platform.http import USER_AGENT, is_loopback

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

LOOKUPS = 256  # names that may be looked up at once
FIRST_FREE_PORT = 1024  # below it are services that must not be spoken to by surprise
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_LONGEST_NAME = 253

Lookup = Callable[[str, int], Awaitable[list[tuple[int, str]]]]
"""The addresses of a name: pairs of a family (`socket.AF_INET`, `AF_INET6`) and an address. Raises OSError."""


class AddressRefused(OSError):
    """This address may not be called. `str(error)` says which and why, in words for whoever gave it.

    An OSError, because that is what aiohttp takes a refusal to connect for.
    """


class Target(NamedTuple):
    """What a URL asks to be connected to."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class OutboundPolicy:
    """Which addresses may be called: the public's, and what an operator allows besides."""

    networks: tuple[IPNetwork, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def allowing(cls, entries: Iterable[str]) -> "OutboundPolicy":
        """The policy that also allows `entries`: addresses, networks (CIDR), host names. Raises ValueError."""
        networks: list[IPNetwork] = []
        hosts: set[str] = set()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                name = entry.lower()
                if not _NAME.fullmatch(name) or is_numeric_host(name):
                    raise ValueError("is neither an IP address, a network nor a host's name") from None
                hosts.add(name)
        return cls(tuple(networks), frozenset(hosts))

    def check_url(self, url: str | URL) -> Target:
        """What can be said of a URL without looking anything up. Raises AddressRefused."""
        try:
            parsed = URL(url) if isinstance(url, str) else url
            scheme, host, port = parsed.scheme, (parsed.raw_host or "").lower(), parsed.port
        except ValueError:
            raise AddressRefused("is not an address like https://example.com/hooks") from None
        if scheme not in {"http", "https"} or not host or port is None:
            raise AddressRefused("must begin with https://, followed by a host's name")
        if "@" in parsed.raw_authority:
            raise AddressRefused("holds a user name or password; give a header in its place")
        if port == 0:
            raise AddressRefused("has port 0, which nothing listens on")
        target = Target(scheme, host, port)
        if (address := _address(host)) is not None:
            self.check_address(target, address)
            return target
        if host not in self.hosts:
            self._check_name(host)
            # Which address it has is seen when it is connected to. Only where none is allowed is that known now.
            if not self.networks:
                _check_public(target)
        return target

    def _check_name(self, host: str) -> None:
        if host.endswith("."):
            raise AddressRefused(f"has a host that ends in a dot; write {host.rstrip('.')}")
        if is_numeric_host(host):
            raise AddressRefused("has a number for a host; write an address in full, like 192.0.2.1")
        if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
            raise AddressRefused("has a host that is not a name")
        if is_loopback(host) and not self.networks:
            raise AddressRefused(f"leads to this server itself ({host})")

    def check_address(self, target: Target, address: IPAddress) -> None:
        """Raises AddressRefused unless `target` may be connected to at `address`, which is what its name means now."""
        if target.host in self.hosts or any(
            address.version == network.version and address in network for network in self.networks
        ):
            return
        kind = kind_if_not_public(address)
        if kind is not None:  # not told: which address, since that is for insiders to know
            raise AddressRefused(f"leads to {kind} address, which may not be called")
        _check_public(target)


def _check_public(target: Target) -> None:
    if target.scheme != "https":
        raise AddressRefused("must begin with https://: on the way to it, http:// could be read and changed")
    if target.port != 443 and target.port < FIRST_FREE_PORT:
        raise AddressRefused(
            f"has port {target.port}; only 443 and those from {FIRST_FREE_PORT} up are called"
        )


def _address(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# The target of the connection that is being made, for the socket's maker: aiohttp tells it the address alone.
_target: ContextVar[Target] = ContextVar("outbound_target")


def guarded_session(policy: OutboundPolicy, *, lookup: Lookup | None = None) -> aiohttp.ClientSession:
    """A session that connects to what `policy` allows and raises aiohttp.ClientConnectorError, with AddressRefused as
    its `os_error`, for anything else; made inside a running loop, closed by whoever made it.

    Each request has a connection of its own, so an address is judged every time. TLS is verified. Nothing is kept from
    one answer to the next, and neither proxy variables nor `.netrc` are read. It has no time limits of its own.
    """
    connector = GuardedConnector(policy, lookup or system_lookup())
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
        raise_for_status=False,
        auto_decompress=False,
    )


class GuardedConnector(aiohttp.TCPConnector):
    """Makes the connections that a policy allows."""

    def __init__(self, policy: OutboundPolicy, lookup: Lookup) -> None:
        super().__init__(
            limit=0,
            force_close=True,
            use_dns_cache=False,
            resolver=_GuardedResolver(policy, lookup),
            socket_factory=functools.partial(_guarded_socket, policy),
            ssl=ssl.create_default_context(),
        )
        self._policy = policy

    async def connect(
        self,
        req: "ClientRequest",
        traces: list["Trace"],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> "Connection":
        if req.proxy is not None:
            raise aiohttp.ClientConnectorError(
                req.connection_key, AddressRefused("may not be called through a proxy")
            )
        try:
            target = self._policy.check_url(req.url)
        except AddressRefused as refused:
            raise aiohttp.ClientConnectorError(req.connection_key, refused) from refused
        token = _target.set(target)
        try:
            connection = await super().connect(req, traces, timeout)
        finally:
            _target.reset(token)
        try:
            self._check_peer(target, connection)
        except AddressRefused as refused:
            connection.close()
            raise aiohttp.ClientConnectorError(req.connection_key, refused) from refused
        return connection

    def _check_peer(self, target: Target, connection: "Connection") -> None:
        """The last look, before a byte of the request is sent: who is at the other end."""
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        if not peer:
            raise AddressRefused(f"{target.host} was gone before it could be called")
        self._policy.check_address(target, ipaddress.ip_address(peer[0]))


def _guarded_socket(policy: OutboundPolicy, info: tuple[Any, ...]) -> socket.socket:
    """A socket for `info`, as getaddrinfo gives it, if its address may be connected to. Raises AddressRefused."""
    family, kind, protocol, _, where = info
    if family not in {socket.AF_INET, socket.AF_INET6}:
        raise AddressRefused("is not at an internet address")
    policy.check_address(_target.get(), ipaddress.ip_address(where[0]))
    return socket.socket(family, kind, protocol)


class _GuardedResolver(AbstractResolver):
    """Leaves out the addresses that may not be called. Raises AddressRefused when none is left."""

    def __init__(self, policy: OutboundPolicy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        target = _target.get()
        allowed: list[ResolveResult] = []
        refusal: AddressRefused | None = None
        for kind, text in await self._lookup(host, port):
            if family not in {socket.AF_UNSPEC, kind}:
                continue
            try:
                self._policy.check_address(target, ipaddress.ip_address(text))
            except AddressRefused as refused:
                refusal = refusal or refused
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=text,
                    port=port,
                    family=kind,
                    proto=0,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not allowed:
            raise refusal or OSError(f"{host} has no address")
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


def system_lookup(limit: int = LOOKUPS) -> Lookup:
    """The system's own resolver (`getaddrinfo`), `limit` names at once.

    Each lookup has a thread of its own that keeps nobody waiting: neither other names while one's servers are silent,
    as a pool of threads would, nor the process when it wants to end.
    """
    free = asyncio.Semaphore(limit)

    async def lookup(host: str, port: int) -> list[tuple[int, str]]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[tuple[int, str]]] = loop.create_future()

        def answer(addresses: list[tuple[int, str]] | OSError) -> None:
            free.release()
            if found.done():
                return
            if isinstance(addresses, OSError):
                found.set_exception(addresses)
            else:
                found.set_result(addresses)

        def look() -> None:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses: list[tuple[int, str]] | OSError = [(info[0], str(info[4][0])) for info in infos]
            except OSError as error:
                addresses = error
            except UnicodeError as error:
                addresses = OSError(str(error))
            try:
                loop.call_soon_threadsafe(answer, addresses)
            except RuntimeError:
                return  # the loop has ended, and whoever asked with it

        await free.acquire()
        threading.Thread(target=look, name="lookup", daemon=True).start()
        return await found

    return lookup
