"""Which addresses are the public's."""

import ipaddress
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.addresses import is_numeric_host, kind_if_not_public

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
# Chance alone would seldom meet these.
NETWORKS_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
]
NETWORKS_V6 = [
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


def within(network: str) -> st.SearchStrategy[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    parsed = ipaddress.ip_network(network)
    first, last = int(parsed[0]), int(parsed[-1])
    numbers = st.one_of(st.sampled_from([first, last]), st.integers(first, last))
    kind = ipaddress.IPv4Address if parsed.version == 4 else ipaddress.IPv6Address
    return numbers.map(kind)


@pytest.mark.parametrize("network", NETWORKS_V4 + NETWORKS_V6)
def test_no_address_of_a_special_network_is_public(network: str) -> None:
    @given(within(network))
    def holds(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        assert kind_if_not_public(address) is not None

    holds()


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001:80b::200e",
        "2001:200::1",
        "64:ff9b::8.8.8.8",
    ],
)
def test_the_publics_addresses_are_public(address: str) -> None:
    assert kind_if_not_public(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("100.100.100.200", "carrier-grade"),
        ("168.63.129.16", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("255.255.255.255", "reserved"),
        ("224.0.0.1", "multicast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "scoped"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::ffff:10.0.0.1", "IPv4-mapped"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("2002:7f00:1::", "6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("64:ff9b::10.0.0.1", "NAT64"),
        ("64:ff9b::169.254.169.254", "NAT64"),
        ("64:ff9b:1::8.8.8.8", "NAT64"),
        ("ff02::1", "multicast"),
    ],
)
def test_a_refused_address_is_called_by_its_kind(address: str, kind: str) -> None:
    assert kind in str(kind_if_not_public(ipaddress.ip_address(address)))


@given(V4)
def test_what_is_public_is_so_to_python_too(address: ipaddress.IPv4Address) -> None:
    if kind_if_not_public(address) is None:
        assert not any((address.is_private, address.is_multicast, address.is_reserved, address.is_loopback))
        assert not any((address.is_link_local, address.is_unspecified))


@given(V6)
def test_what_is_public_in_version_6_is_so_to_python_too(address: ipaddress.IPv6Address) -> None:
    if kind_if_not_public(address) is None and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not any((address.is_multicast, address.is_link_local, address.is_site_local))
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@given(V4)
def test_no_way_of_carrying_an_address_inside_another_lets_it_pass(inside: ipaddress.IPv4Address) -> None:
    number = int(inside)
    carried = [
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
        ipaddress.IPv6Address(f"64:ff9b:1::{inside}"),
    ]
    assert all(kind_if_not_public(one) is not None for one in carried)
    nat64 = ipaddress.IPv6Address(f"64:ff9b::{inside}")
    assert (kind_if_not_public(nat64) is None) == (kind_if_not_public(inside) is None)


@given(V4, st.data())
def test_every_spelling_that_the_system_takes_for_a_number_is_known_as_one(
    address: ipaddress.IPv4Address, data: st.DataObject
) -> None:
    whole = int(address)
    parts = data.draw(st.integers(1, 4))
    numbers = [(whole >> (24 - 8 * n)) & 0xFF for n in range(parts - 1)]
    numbers.append(whole & ((1 << (8 * (5 - parts))) - 1))
    spellings: list[Callable[[int], str]] = [str, hex, lambda n: f"0{n:o}", lambda n: f"0X{n:X}"]
    spelling = ".".join(data.draw(st.sampled_from(spellings))(number) for number in numbers)
    assert socket.inet_aton(spelling) == address.packed  # what a resolver would make of it
    assert is_numeric_host(spelling)
    assert is_numeric_host(spelling + ".")


@pytest.mark.parametrize(
    "host", ["example.com", "0x.example", "a.0xg", "1e100.net", "xn--p1ai", "v1", "3com"]
)
def test_a_name_is_no_number(host: str) -> None:
    assert not is_numeric_host(host)
