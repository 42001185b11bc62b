"""Calling addresses that users give, without being led into one's own network."""

import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.addresses import kind_if_not_public
from baatcheet.platform.outbound import (
    AddressRefused,
    GuardedConnector,
    Lookup,
    OutboundPolicy,
    Target,
    guarded_session,
    system_lookup,
)
from tests.webhooks.receiver import Receiver

PUBLIC_ONLY = OutboundPolicy()


def saying(*rounds: list[str]) -> Lookup:
    """A resolver that says something else each time, and the last of it from then on."""
    left = list(rounds)

    async def lookup(host: str, port: int) -> list[tuple[int, str]]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in addresses]

    return lookup


def may_call(policy: OutboundPolicy, url: str, address: str) -> bool:
    """Whether `url` may be called when its name means `address`."""
    try:
        policy.check_address(policy.check_url(url), ipaddress.ip_address(address))
    except AddressRefused:
        return False
    return True


async def refusal(session: aiohttp.ClientSession, url: str, **arguments: Any) -> str:
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        async with session.get(url, **arguments):
            pass
    assert isinstance(caught.value.os_error, AddressRefused), caught.value.os_error
    return str(caught.value.os_error)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks",
        "https://example.com:8443/hooks?key=1",
        "https://EXAMPLE.com",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://پاکستان.example/",
    ],
)
def test_a_public_address_with_tls_is_taken(url: str) -> None:
    assert PUBLIC_ONLY.check_url(url).scheme == "https"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("https:///nowhere", "host"),
        ("", "https"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "not an address"),
        ("https://me:secret@example.com/", "user name"),
        ("https://me@example.com/", "user name"),
        ("https://example.com./", "ends in a dot"),
        ("https://localhost/", "this server"),
        ("https://LOCALHOST/", "this server"),
        ("https://hooks.localhost/", "this server"),
        ("https://127.0.0.1/", "loopback"),
        ("https://\uff11\uff12\uff17.\uff10.0.1/", "loopback"),
        ("https://127\u30020\u30020\u30021/", "loopback"),
        ("https://2130706433/", "number"),
        ("https://0x7f000001/", "number"),
        ("https://017700000001/", "number"),
        ("https://127.1/", "number"),
        ("https://0177.0.0.1/", "number"),
        ("https://0x7f.0.0.1/", "number"),
        ("https://1.2.3.4.5/", "number"),
        ("https://ex%61mple.com/", "not a name"),
        ("https://exa mple.com/", "not a name"),
        ("https://a..b/", "not a name"),
        ("https://example.com\\@10.0.0.1/", "not an address"),
        ("https://169.254.169.254/latest/meta-data/", "link-local"),
        ("https://[fd00:ec2::254]/", "private"),
        ("https://10.0.0.1/", "private"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:127.0.0.1]/", "IPv4-mapped"),
        ("https://[::ffff:8.8.8.8]/", "IPv4-mapped"),
        ("https://[64:ff9b::7f00:1]/", "NAT64"),
        ("https://[2002:7f00:1::]/", "6to4"),
        ("https://[fe80::1%25eth0]/", "scoped"),
        ("https://0.0.0.0/", "unspecified"),
        ("https://224.0.0.1/", "multicast"),
    ],
)
def test_anything_else_is_refused_with_its_reason(url: str, words: str) -> None:
    with pytest.raises(AddressRefused, match=words):
        PUBLIC_ONLY.check_url(url)


def test_what_the_operator_allows_may_be_called_without_tls_and_at_any_port() -> None:
    policy = OutboundPolicy.allowing(["10.1.0.0/16", "127.0.0.1", "fd00::/8", "Hooks.internal"])
    for url in (
        "http://10.1.2.3:80/",
        "http://127.0.0.1:22/",
        "http://[fd00::7]/",
        "http://hooks.internal:81/",
        "http://HOOKS.INTERNAL/",
    ):
        policy.check_url(url)
    for url in ("http://10.2.0.1/", "http://127.0.0.2/", "https://other.internal:22/x", "http://8.8.8.8/"):
        assert not may_call(policy, url, "8.8.8.8")
    # Allowing an address is not allowing another way to write it.
    with pytest.raises(AddressRefused):
        OutboundPolicy.allowing(["10.0.0.0/8"]).check_url("http://[::ffff:10.0.0.1]/")


@pytest.mark.parametrize("entry", ["", "a b", "http://x", "10.0.0.0/99", "127.1", "0x7f000001", "-x", "x:1"])
def test_what_is_neither_an_address_a_network_nor_a_name_is_not_allowed(entry: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        OutboundPolicy.allowing([entry])


@given(st.text(max_size=60))
def test_any_text_is_judged_without_another_error(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/", f"https://example.com{text}"):
        try:
            target = PUBLIC_ONLY.check_url(url)
        except AddressRefused:
            continue
        assert target.scheme == "https"
        assert target.port == 443 or target.port >= 1024
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            assert target.host.isascii()
            continue
        assert kind_if_not_public(address) is None


ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address),
    st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
    st.sampled_from(["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254", "8.8.8.8"]).map(ipaddress.ip_address),
)


@given(ADDRESSES)
def test_an_address_that_a_name_leads_to_is_judged_as_if_it_were_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    def passes(look: Callable[[], object]) -> bool:
        try:
            look()
        except AddressRefused:
            return False
        return True

    shown = f"[{address}]" if address.version == 6 else str(address)
    written = passes(lambda: PUBLIC_ONLY.check_url(f"https://{shown}/"))
    named = passes(lambda: PUBLIC_ONLY.check_address(Target("https", "example.com", 443), address))
    assert written == named == (kind_if_not_public(address) is None)


async def test_a_name_that_changes_its_address_is_refused_when_it_is_connected_to() -> None:
    policy = OutboundPolicy.allowing(["127.0.0.2"])
    async with Receiver("127.0.0.2") as allowed:
        inner = Receiver("127.0.0.1")
        async with inner, guarded_session(policy, lookup=saying(["127.0.0.2"], ["127.0.0.1"])) as session:
            async with session.get(f"http://rebinding.example:{allowed.port}/ok") as response:
                assert response.status == 200
            said = await refusal(session, f"http://rebinding.example:{inner.port}/ok")
        assert said == "leads to a loopback address, which may not be called"
        assert "127.0.0.1" not in said  # inner addresses are for insiders
        assert inner.connections == 0


async def test_of_several_addresses_only_those_that_are_allowed_are_tried() -> None:
    policy = OutboundPolicy.allowing(["127.0.0.2"])
    async with Receiver("127.0.0.1") as inner:
        # Nothing listens at the allowed one: the other must not be fallen back to.
        async with guarded_session(policy, lookup=saying(["127.0.0.2", "127.0.0.1"])) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://two.example:{inner.port}/ok")
        assert inner.connections == 0


async def test_the_socket_itself_is_guarded_where_a_resolver_lets_an_address_through() -> None:
    class Careless(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
                )
            ]

        async def close(self) -> None:
            """Nothing is held."""

    async with Receiver() as inner:
        connector = GuardedConnector(OutboundPolicy.allowing(["10.0.0.0/8"]), system_lookup())
        connector._resolver = Careless()
        async with aiohttp.ClientSession(connector=connector) as session:
            assert "loopback" in await refusal(session, f"http://careless.example:{inner.port}/ok")
        assert inner.connections == 0


async def test_an_address_that_no_resolver_sees_is_guarded_too() -> None:
    async with Receiver() as inner, guarded_session(OutboundPolicy.allowing(["10.0.0.0/8"])) as session:
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"):
            await refusal(session, f"http://{host}:{inner.port}/ok")
        await refusal(session, f"http://localhost:{inner.port}/ok")
        await refusal(session, f"http://2130706433:{inner.port}/ok")
        assert inner.connections == 0


async def test_a_redirect_does_not_lead_where_the_policy_does_not() -> None:
    policy = OutboundPolicy.allowing(["127.0.0.2"])
    async with Receiver("127.0.0.2") as outer, Receiver("127.0.0.1") as inner:
        outer.port, real = inner.port, outer.port  # its redirect names `inner`'s port, and then its host
        outer.host = "127.0.0.1"
        async with guarded_session(policy) as session:
            await refusal(session, f"http://127.0.0.2:{real}/redirect", allow_redirects=True)
        assert inner.connections == 0


async def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        session = guarded_session(OutboundPolicy.allowing(["127.0.0.0/8"]))
        async with Receiver("127.0.0.2") as receiver, session:
            async with session.get(receiver.url()) as response:
                assert response.status == 200
            assert "proxy" in await refusal(session, receiver.url(), proxy=proxy.url(""))
        assert proxy.connections == 0


async def test_a_host_that_is_allowed_by_name_may_be_anywhere() -> None:
    policy = OutboundPolicy.allowing(["hooks.internal"])
    async with Receiver() as receiver, guarded_session(policy, lookup=saying(["127.0.0.1"])) as session:
        async with session.get(f"http://hooks.internal:{receiver.port}/ok") as response:
            assert response.status == 200
        await refusal(session, f"https://other.internal:{receiver.port}/ok")


async def test_without_tls_nothing_public_is_called_even_where_some_network_is_allowed() -> None:
    policy = OutboundPolicy.allowing(["10.0.0.0/8"])
    async with guarded_session(policy, lookup=saying(["8.8.8.8"])) as session:
        assert "https" in await refusal(session, "http://plain.example/")
        assert "port 25" in await refusal(session, "https://plain.example:25/")


async def test_the_systems_resolver_answers_and_says_when_there_is_no_such_name() -> None:
    lookup = system_lookup()
    assert (socket.AF_INET, "127.0.0.1") in await lookup("localhost", 80)
    with pytest.raises(OSError):
        await lookup("no-such-host.invalid", 80)
    with pytest.raises(OSError):
        await lookup("x" * 300, 80)


async def test_tls_is_verified() -> None:
    async with guarded_session(PUBLIC_ONLY) as session:
        assert isinstance(session.connector, GuardedConnector)
        context = session.connector._ssl
        assert isinstance(context, ssl.SSLContext)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert not session.trust_env
