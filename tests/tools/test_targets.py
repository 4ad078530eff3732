"""What a URL leads to: every spelling of an address is that address, and what is not one URL to all is none."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from palaver.core.fetch import FetchError
from palaver.tools.targets import LONGEST, follow_redirect, parse_url


def _why(url: str) -> FetchError:
    with pytest.raises(FetchError) as raised:
        parse_url(url)
    return raised.value


# Spellings of an address --------------------------------------------------------------------------------------------

_FULL = str.maketrans("0123456789abcdefx.", "０１２３４５６７８９ａｂｃｄｅｆｘ。")


@st.composite
def _spelt(draw: st.DrawFn) -> tuple[IPv4Address, str]:
    """An IPv4 address, and a way to write it as a URL's host."""
    number = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(1, 4))
    parts = [(number >> (24 - 8 * place)) & 255 for place in range(count - 1)]
    parts.append(number & (256 ** (5 - count) - 1))
    forms = ("{}", "0{:o}", "000{:o}", "0x{:x}", "0X{:X}", "0x000{:x}")
    host = ".".join(draw(st.sampled_from(forms)).format(part) for part in parts)
    if draw(st.booleans()):
        host = host.lower().translate(_FULL)
    return IPv4Address(number), host + draw(st.sampled_from(("", ".")))


@given(_spelt())
def test_an_ipv4_address_is_read_in_every_spelling(spelt: tuple[IPv4Address, str]) -> None:
    address, host = spelt
    target = parse_url(f"http://{host}/")
    assert (target.address, target.host, target.url) == (address, str(address), f"http://{address}/")


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_read_in_every_spelling(address: IPv4Address | IPv6Address) -> None:
    for host in (str(address), address.exploded, address.exploded.upper()):
        assert parse_url(f"http://[{host}]:81/x").address == address
    whole = IPv6Address(int(address))
    assert parse_url(f"http://[{whole}]/").url == f"http://[{whole}]/"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("１２７。０。０。１", "127.0.0.1"),
        ("①②⑦.①", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
    ],
)
def test_known_spellings_of_this_machine_are_addresses(host: str, address: str) -> None:
    assert parse_url(f"http://{host}/").address == ip_address(address)


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTP://EXAMPLE.COM:80/A?b=C#d", "http://example.com/A?b=C"),
        ("https://example.com.:443/", "https://example.com/"),
        ("https://example.com:8443?x", "https://example.com:8443/?x"),
        (" https://a_b.example/文件 1.pdf ", "https://a_b.example/文件 1.pdf"),
        ("http://例子.测试/", "http://xn--fsqu00a.xn--0zwm56d/"),
        ("http://ｌｏｃａｌｈｏｓｔ/", "http://localhost/"),
        ("http://example.com:/x", "http://example.com/x"),
        ("http://1.2.3.4.example/", "http://1.2.3.4.example/"),
        ("http://example.com/a@b:c?d@e", "http://example.com/a@b:c?d@e"),
    ],
)
def test_a_url_is_written_anew_from_what_was_read(url: str, written: str) -> None:
    assert parse_url(url).url == written
    assert parse_url(written) == parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "http:example.com",
        "http:///example.com",
        "http://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_",
        "http://good.example@127.0.0.1/",
        "http://user:password@example.com/",
        "http://good.example\\@127.0.0.1/",
        "http:\\\\example.com",
        "http://127.0.0.1%00.example.com/",
        "http://%31%32%37.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1]x/",
        "http://[127.0.0.1]/",
        "http://::1/",
        "http://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://4294967296/",
        "http://08.1.1.1/",
        "http://0x-5.1/",
        "http://1_0.1/",
        "http://foo.0x1/",
        "http://a..b/",
        "http://.example.com/",
        "http://localhost../",
        "http://-a.example/",
        "http://a b.example/",
        "http://a℀b.example/",
        "http://exa＃mple.com/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:80:80/",
        "http://example.com:８０/",
        "http://example.com:+80/",
        "http://example.com/\r\nHost: internal",
        "http://example.com/\tx",
        "http://exa\u00admple\u202e.com\n/",
        "http://example.com/\udcff",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
    ],
)
def test_what_is_not_one_url_to_every_reader_is_none(url: str) -> None:
    assert _why(url).reason == "url"


def test_a_url_has_an_end() -> None:
    begin = "http://example.com/"
    assert parse_url(begin + "a" * (LONGEST - len(begin))).host == "example.com"
    assert _why(begin + "a" * LONGEST).detail == f"the URL has more than {LONGEST} characters"


@given(st.text(alphabet=st.sampled_from("http:/@[]\\.?#%0127axéＡ。 \t-_"), max_size=40))
def test_whatever_is_read_the_client_reads_alike(rest: str) -> None:
    try:
        target = parse_url(f"http://{rest}")
    except FetchError as reason:
        assert reason.reason == "url"  # noqa: PT017  any other exception is the failure
        return
    seen = URL(target.url)
    assert (seen.scheme, seen.port, seen.user) == (target.scheme, target.port, None)
    if target.address is None:
        assert seen.raw_host == target.host
    else:
        assert ip_address(seen.raw_host or "") == target.address


# Redirects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "https://example.com:8443/b?c"),
        ("b", "https://example.com:8443/dir/b"),
        ("../b", "https://example.com:8443/b"),
        ("?b", "https://example.com:8443/dir/a?b"),
        ("//other.example/b", "https://other.example/b"),
        ("https://127.1/b#c", "https://127.0.0.1/b"),
    ],
)
def test_a_redirect_is_read_from_where_it_stood(location: str, url: str) -> None:
    assert follow_redirect(parse_url("https://example.com:8443/dir/a"), location).url == url


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://example.com/", "redirects"),
        ("file:///etc/passwd", "url"),
        ("https://user@example.com/", "url"),
        ("https://example.com\t/", "url"),
        ("\\\\127.0.0.1/", "url"),
        ("javascript:alert(1)", "url"),
        ("https://[::1/", "url"),
        ("//[fe80::1%25eth0]/", "url"),
        ("//a℀b.example/", "url"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_refused(location: str, reason: str) -> None:
    with pytest.raises(FetchError) as raised:
        follow_redirect(parse_url("https://example.com/"), location)
    assert raised.value.reason == reason


@given(st.text(alphabet=st.sampled_from("https:/@[]\\.?#%0127axéＡ℀。 \t-_"), max_size=40))
def test_a_redirect_leads_somewhere_or_is_refused(location: str) -> None:
    try:
        target = follow_redirect(parse_url("https://example.com/a"), location)
    except FetchError as reason:
        assert reason.reason in {"url", "redirects"}  # noqa: PT017  any other exception is the failure
    else:
        assert target == parse_url(target.url)


def test_a_redirect_may_lead_into_tls() -> None:
    target = follow_redirect(parse_url("http://example.com/"), "https://example.com/")
    assert (target.scheme, target.port) == ("https", 443)
