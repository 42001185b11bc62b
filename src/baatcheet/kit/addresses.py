"""Which internet addresses are the public's, and which belong to somebody's own network or to no one.

The tables are IANA's special-purpose registries (RFC 6890 and its successors), written out: what Python's
`ipaddress` calls private differs between its releases. An address of version 6 that carries one of version 4
inside is a second way to write that one, so these are refused too, but for those of NAT64 (RFC 6052), which is how
a host without version 4 reaches the rest of the world: they are judged by what they carry.
"""

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4 = tuple(
    (ipaddress.IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "an unspecified"),
        ("10.0.0.0/8", "a private"),
        ("100.64.0.0/10", "a carrier-grade NAT"),
        ("127.0.0.0/8", "a loopback"),
        ("168.63.129.16/32", "a cloud metadata"),  # Azure's host, at a public address
        ("169.254.0.0/16", "a link-local"),  # 169.254.169.254, the metadata of most clouds, among them
        ("172.16.0.0/12", "a private"),
        ("192.0.0.0/24", "a reserved"),
        ("192.0.2.0/24", "a documentation"),
        ("192.88.99.0/24", "a reserved"),
        ("192.168.0.0/16", "a private"),
        ("198.18.0.0/15", "a benchmarking"),
        ("198.51.100.0/24", "a documentation"),
        ("203.0.113.0/24", "a documentation"),
        ("224.0.0.0/4", "a multicast"),
        ("240.0.0.0/4", "a reserved"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Outside of 2000::/3 everything is refused; these say of what kind it is, and what is refused inside.
_V6 = tuple(
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "an unspecified"),
        ("::1/128", "a loopback"),
        ("::ffff:0:0/96", "an IPv4-mapped"),
        ("::/96", "an IPv4-compatible"),
        ("::ffff:0:0:0/96", "an IPv4-translated"),
        ("64:ff9b:1::/48", "a local NAT64"),
        ("100::/64", "a discard-only"),
        ("2001::/32", "a Teredo"),
        ("2001::/23", "a reserved"),
        ("2001:db8::/32", "a documentation"),
        ("2002::/16", "a 6to4"),
        ("3fff::/20", "a documentation"),
        ("fc00::/7", "a private"),  # fd00:ec2::254, the metadata of Amazon's cloud, among them
        ("fe80::/10", "a link-local"),
        ("fec0::/10", "a site-local"),
        ("ff00::/8", "a multicast"),
    )
)


def kind_if_not_public(address: IPAddress) -> str | None:
    """What kind of address this is ("a private", "a loopback" …) unless it is one of the public's: then None."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _V4 if address in network), None)
    if address.scope_id is not None:
        return "a scoped"
    if address in _NAT64:
        inside = kind_if_not_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        return None if inside is None else "a NAT64"
    if (special := next((kind for network, kind in _V6 if address in network), None)) is not None:
        return special
    return None if address in _GLOBAL_UNICAST else "a reserved"


def is_numeric_host(host: str) -> bool:
    """Whether a resolver may take `host`, which is not a plain address, for a number: 127.1, 0x7f000001, 017700000001.

    As browsers have it (WHATWG URL § 3.5): the last label is a number, decimal, octal or hexadecimal.
    """
    last = host.rstrip(".").rpartition(".")[2].lower()
    return last.isdigit() or (last.startswith("0x") and all(one in "0123456789abcdef" for one in last[2:]))
