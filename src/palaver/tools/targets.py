"""Parses the URLs that callers name. Pure.

A URL is parsed only here and rebuilt from the result: two parsers could see two different hosts. Hosts follow the URL
standard (https://url.spec.whatwg.org/#host-parsing), by which browsers, and therefore attackers, read ``127.1``,
``0x7f000001`` and ``１２７。０。０。１`` as the same address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urljoin

from palaver.core.fetch import FetchError
from palaver.tools.addresses import Address

LONGEST = 8000
"""Maximum characters of a URL; clouds' signed URLs have about 2,000."""

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(?i:(?P<scheme>https?))://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?:#.*)?")
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTarget:
    """A parsed URL. ``host`` is a lower-case ASCII name without a final dot, or an address as ``ipaddress`` writes it;
    ``rest`` is the path and the query as sent, starting with a slash."""

    scheme: str
    host: str
    address: Address | None
    """The address, if the URL contains one instead of a name."""
    port: int
    rest: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def url(self) -> str:
        return self.origin + self.rest


def parse_url(url: str) -> FetchTarget:
    """Raises ``FetchError(reason="url")``."""
    url = url.strip(" ")
    if len(url) > LONGEST:
        raise _not(f"the URL has more than {LONGEST} characters")
    if not url.isprintable() or "\\" in url:
        raise _not("the URL has a backslash, or a character that cannot be seen")
    match = _URL.fullmatch(url)
    if match is None:
        raise _not("it is not a URL that begins with http:// or https://")
    scheme = match["scheme"].lower()
    if "@" in match["authority"]:
        raise _not("the URL has a user or a password before its host; those are not sent")
    authority = _AUTHORITY.fullmatch(match["authority"])
    if authority is None:
        raise _not(f"{match['authority'][:100]!r} is not a host")
    port = int(authority["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise _not(f"there is no port {port}")
    address = _six(authority["six"]) if authority["six"] else None
    host = str(address) if address else _ascii(authority["host"])
    if address is None and (address := _four(host)):
        host = str(address)
    rest = match["rest"].rstrip(" ")
    rest = rest if rest.startswith("/") else f"/{rest}"
    return FetchTarget(scheme=scheme, host=host, address=address, port=port, rest=rest)


def follow_redirect(target: FetchTarget, location: str) -> FetchTarget:
    """The target of a redirect. Raises ``FetchError``: ``url``, or ``redirects`` if it leads from https to http."""
    if not location.isprintable():  # urljoin would drop characters that another parser keeps
        raise _not("it redirects to a URL with a character that cannot be seen")
    try:
        joined = urljoin(target.url, location.strip(" "))
    except ValueError as error:
        raise _not("it redirects to what is no URL") from error
    redirect = parse_url(joined)
    if target.scheme == "https" and redirect.scheme == "http":
        raise FetchError("redirects", f"{target.host!r} redirects from https to http, which anybody could change")
    return redirect


def _ascii(host: str) -> str:
    """The ASCII form of a host name. International names follow IDNA 2003, which Python implements."""
    if "%" in host or len(host) > 253:
        raise _not(f"{host[:100]!r} is not a host")
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as error:
        raise _not(f"{host!r} is not a host") from error
    if not name or not all(map(_LABEL.fullmatch, name.split("."))):
        raise _not(f"{host!r} is not a host")
    return name


def _four(host: str) -> IPv4Address | None:
    """The address of a host that ends in a number: one to four decimal, octal or hexadecimal parts, the last of which
    fills the remaining bytes. A host that ends in a number is never a name."""
    parts = host.split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    numbers = [_number(part) for part in parts]
    *first, last = numbers
    if len(parts) > 4 or any(number > 255 for number in first) or last >= 256 ** (5 - len(parts)):
        raise _not(f"{host!r} is not an address")
    return IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(first)) + last)


def _number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise _not(f"{part!r} is not a number of an address")
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    try:
        return int(part, 8 if part.startswith("0") else 10)
    except ValueError as error:
        raise _not(f"{part!r} is not a number of an address") from error


def _six(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise _not(f"'[{text[:100]}]' is not an address") from error


def _not(detail: str) -> FetchError:
    return FetchError("url", detail)
