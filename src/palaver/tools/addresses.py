"""Classifies addresses as public or not, and parses the operator's exceptions. Pure.

The tables are IANA's registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry) and the metadata services
from which cloud machines get their credentials. The standard library's ``is_global`` changes with Python's patch
versions, and does not know the metadata services.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Kind = Literal[
    "loopback", "private", "shared", "link-local", "metadata", "multicast", "documentation", "transition", "reserved"
]
"""Why an address is not public."""

_METADATA = tuple(
    map(
        ip_network,
        (
            "169.254.169.254",  # AWS, Azure, Google, OpenStack, and most others
            "169.254.170.2",  # AWS, for containers
            "169.254.0.23",  # Tencent
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure's WireServer; a public address according to the registry
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google
        ),
    )
)
_FOUR: tuple[tuple[IPv4Network, Kind], ...] = (
    (IPv4Network("0.0.0.0/8"), "loopback"),  # Linux connects 0.0.0.0 to this machine
    (IPv4Network("10.0.0.0/8"), "private"),
    (IPv4Network("100.64.0.0/10"), "shared"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local"),
    (IPv4Network("172.16.0.0/12"), "private"),
    (IPv4Network("192.0.0.0/24"), "reserved"),
    (IPv4Network("192.0.2.0/24"), "documentation"),
    (IPv4Network("192.88.99.0/24"), "transition"),
    (IPv4Network("192.168.0.0/16"), "private"),
    (IPv4Network("198.18.0.0/15"), "reserved"),
    (IPv4Network("198.51.100.0/24"), "documentation"),
    (IPv4Network("203.0.113.0/24"), "documentation"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
)
_SIX: tuple[tuple[IPv6Network, Kind], ...] = (
    (IPv6Network("::/127"), "loopback"),
    (IPv6Network("fc00::/7"), "private"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "private"),
    (IPv6Network("ff00::/8"), "multicast"),
    # 6to4 and Teredo wrap an IPv4 address for a relay that may be inside the network. Their RFCs deprecate both.
    (IPv6Network("2001::/32"), "transition"),
    (IPv6Network("2002::/16"), "transition"),
    (IPv6Network("2001::/23"), "reserved"),
    (IPv6Network("2001:db8::/32"), "documentation"),
    (IPv6Network("3fff::/20"), "documentation"),
)
_UNICAST = IPv6Network("2000::/3")
"""The part of IPv6 assigned to global unicast; the rest is reserved."""
_NAT64 = IPv6Network("64:ff9b::/96")


def unwrap_ipv4(address: Address) -> Address:
    """The IPv4 address wrapped in an IPv6 one (IPv4-mapped, or NAT64, to which IPv6-only networks resolve IPv4 hosts);
    otherwise the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def non_public_kind(address: Address) -> Kind | None:
    """Why ``address`` is not public; ``None`` if it is."""
    address = unwrap_ipv4(address)
    if any(address in network for network in _METADATA):
        return "metadata"
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _FOUR if address in network), None)
    special: Kind | None = next((kind for network, kind in _SIX if address in network), None)
    return special if special is not None or address in _UNICAST else "reserved"


# What an operator allows --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedEntry:
    """A host name, or a network (a single address is one, too), with one port or all ports."""

    name: str | None = None
    network: Network | None = None
    port: int | None = None


Allowed = tuple[AllowedEntry, ...]

_ENTRY = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


def parse_allowed(text: str) -> Allowed:
    """Parse the setting ``fetch_allow``: names, addresses and networks, separated by commas, each with or without
    ``:port``. Raises ``ValueError`` with the correct form."""
    return tuple(_entry(item.strip()) for item in text.split(",") if item.strip())


def _entry(item: str) -> AllowedEntry:
    if item.count(":") > 1 and "[" not in item:  # an IPv6 address or network without a port
        return AllowedEntry(network=_network(item, item))
    match = _ENTRY.fullmatch(item)
    if match is None:
        raise _wrong(item)
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{item!r}: ports are 1 to 65535")
    if match["six"]:
        return AllowedEntry(network=_network(match["six"], item), port=port)
    host: str = match["host"].lower().removesuffix(".")
    if re.fullmatch(r"[0-9./]+", host):
        return AllowedEntry(network=_network(host, item), port=port)
    if not _NAME.fullmatch(host):
        raise _wrong(item)
    return AllowedEntry(name=host, port=port)


def _network(text: str, item: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise _wrong(item) from error
    if "%" in text:  # a zone, which the library would ignore
        raise _wrong(item)
    if "/" in text and network.network_address != ip_address(text.partition("/")[0]):
        raise ValueError(f"{item!r} is an address within a network; did you mean {str(network)!r}?")
    return network


def _wrong(item: str) -> ValueError:
    return ValueError(
        f"{item!r} is neither a name like 'wiki.intranet' nor an address like '10.1.2.3' nor a network like"
        " '10.1.0.0/16', each with or without a port like ':8443'; separate entries by commas"
    )


def is_allowed(entries: Allowed, host: str, address: Address, port: int) -> bool:
    """Whether an entry allows ``port`` of ``address``, to which ``host`` resolves. An entry with a name allows every
    address of that name; an entry with a network allows its addresses under every name."""
    address = unwrap_ipv4(address)
    return any(
        (entry.port is None or entry.port == port)
        and (entry.name == host if entry.network is None else address in entry.network)
        for entry in entries
    )


def read_address(text: str) -> Address:
    """Parse an address from a resolver; the zone of a link-local one is ignored. Raises ``ValueError``."""
    return ip_address(text.partition("%")[0])
