"""Which addresses are public, and what an operator's list admits."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.config import SettingsError, load
from palaver.tools.addresses import is_allowed, non_public_kind, parse_allowed, unwrap_ipv4

REFUSED = {
    "0.0.0.0": "loopback",
    "10.0.0.5": "private",
    "100.64.0.1": "shared",
    "100.100.100.200": "metadata",
    "127.0.0.1": "loopback",
    "168.63.129.16": "metadata",
    "169.254.1.1": "link-local",
    "169.254.169.254": "metadata",
    "172.31.255.255": "private",
    "192.0.0.1": "reserved",
    "192.0.0.192": "metadata",
    "192.0.2.1": "documentation",
    "192.168.1.1": "private",
    "198.18.0.1": "reserved",
    "224.0.0.1": "multicast",
    "255.255.255.255": "reserved",
    "::": "loopback",
    "::1": "loopback",
    "::10.0.0.5": "reserved",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "metadata",
    "::ffff:0:10.0.0.5": "reserved",
    "64:ff9b::10.0.0.5": "private",
    "64:ff9b:1::10.0.0.5": "reserved",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "transition",
    "2001:db8::1": "documentation",
    "2002:a00:5::1": "transition",
    "fc00::1": "private",
    "fd00:ec2::254": "metadata",
    "fe80::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
}
PUBLIC = ("8.8.8.8", "1.1.1.1", "223.5.5.5", "2606:4700::1111", "2400:3200::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8")


@pytest.mark.parametrize(("address", "why"), REFUSED.items())
def test_an_address_that_is_not_public_is_known_for_what_it_is(address: str, why: str) -> None:
    assert non_public_kind(ip_address(address)) == why


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    assert non_public_kind(ip_address(address)) is None


@given(st.ip_addresses())
def test_what_the_standard_library_holds_for_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    within = unwrap_ipv4(address)
    if within.is_private or within.is_multicast or within.is_reserved or within.is_link_local:
        assert non_public_kind(address) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_no_more_public_inside_an_ipv6_one(address: IPv4Address | IPv6Address) -> None:
    number = int(address)
    assert non_public_kind(IPv6Address((0xFFFF << 32) | number)) == non_public_kind(address)
    assert non_public_kind(IPv6Address((0x64FF9B << 96) | number)) == non_public_kind(address)
    assert non_public_kind(IPv6Address((0x2002 << 112) | (number << 80))) == "transition"
    assert non_public_kind(IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF))) == "transition"


# What an operator allows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "host", "address", "port"),
    [
        ("wiki.intranet", "wiki.intranet", "10.0.0.5", 80),
        ("WIKI.intranet.", "wiki.intranet", "10.0.0.5", 8080),
        ("wiki.intranet:8443", "wiki.intranet", "10.0.0.5", 8443),
        ("10.0.0.5", "wiki.intranet", "10.0.0.5", 80),
        ("10.0.0.0/8", "10.0.0.5", "10.0.0.5", 1),
        ("10.0.0.0/8:81", "10.0.0.5", "10.0.0.5", 81),
        ("10.0.0.5", "x", "::ffff:10.0.0.5", 80),
        ("fd00::5", "fd00::5", "fd00::5", 80),
        ("fd00::/8", "x", "fd12::1", 80),
        ("[fd00::5]:8080", "x", "fd00::5", 8080),
        ("[fd00::/8]:8080", "x", "fd12::1", 8080),
        (" localhost , 10.0.0.5 ,", "x", "10.0.0.5", 80),
    ],
)
def test_an_entry_admits_what_it_names(entry: str, host: str, address: str, port: int) -> None:
    assert is_allowed(parse_allowed(entry), host, ip_address(address), port)


@pytest.mark.parametrize(
    ("entry", "host", "address", "port"),
    [
        ("", "wiki.intranet", "10.0.0.5", 80),
        ("intranet", "wiki.intranet", "10.0.0.5", 80),
        ("wiki.intranet", "evil-wiki.intranet", "10.0.0.5", 80),
        ("wiki.intranet", "wiki.intranet.evil.example", "10.0.0.5", 80),
        ("wiki.intranet:8443", "wiki.intranet", "10.0.0.5", 443),
        ("10.0.0.5:80", "x", "10.0.0.5", 81),
        ("10.0.0.0/16", "x", "10.1.0.1", 80),
        ("10.0.0.5", "10.0.0.5", "10.0.0.6", 80),
        ("::/0", "x", "10.0.0.5", 80),
    ],
)
def test_an_entry_admits_nothing_else(entry: str, host: str, address: str, port: int) -> None:
    assert not is_allowed(parse_allowed(entry), host, ip_address(address), port)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.5/8", "did you mean '10.0.0.0/8'"),
        ("http://wiki.intranet", "a name like"),
        ("wiki.intranet/path", "a name like"),
        ("*.intranet", "a name like"),
        ("wiki intranet", "separate entries by commas"),
        ("10.0.0", "an address like"),
        ("10.0.0.5:0", "ports are 1 to 65535"),
        ("wiki:99999", "ports are 1 to 65535"),
        ("[wiki]:80", "a name like"),
        ("fe80::1%eth0", "a name like"),
        ("10.0.0.5:port", "a name like"),
    ],
)
def test_a_list_that_cannot_be_read_says_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=r"^fetch_allow: ") as error:
        load({"PALAVER_FETCH_ALLOW": f"8.8.8.8, {text}"}, {})
    assert hint in str(error.value)
