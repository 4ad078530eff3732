"""What a request's head says, where HTTP leaves more than one way to say it."""

from __future__ import annotations

import re
import urllib.parse

import httptools

_UPGRADE = re.compile(rb"(?im)^upgrade(?=[ \t]*:)")
_RAW = re.compile(rb"[\x80-\xff]+")
_HOST = re.compile(rb"[!-~]*")


def normalize_head(line: re.Match[bytes], rest: bytes) -> bytes:
    """The head as the parser takes it: a raw UTF-8 target percent-encoded, and no offer to upgrade the connection:
    Java's HttpClient makes one (h2c) with a first request, and the parser would pass over the body of such a one."""
    return b"%s %s HTTP/%s.%s" % (line[1], encode_target(line[2]), line[3], line[4]) + _UPGRADE.sub(b"X-Upgrade", rest)


def encode_target(target: bytes) -> bytes:
    if target.isascii():
        return target
    return _RAW.sub(lambda raw: urllib.parse.quote(raw[0]).encode(), target)


def split_target(target: bytes) -> tuple[bytes, bytes] | None:
    """(path, query) of a request's target, ``None`` for what is none."""
    try:
        url = httptools.parse_url(encode_target(target))
    except httptools.HttpParserError:
        return None
    return url.path or b"/", url.query or b""


def origin_form(target: bytes) -> str:
    """Path and query byte for byte as they were sent, without the scheme and host that a proxy may be sent."""
    text = target.decode("latin-1")
    if text.startswith("/") or "://" not in text:
        return text
    authority_and_path = text.partition("://")[2]
    start = re.search(r"[/?]", authority_and_path)
    return "/" if start is None else authority_and_path[start.start() :]


def wrong_host(hosts: list[bytes], version: str) -> str:
    """What is wrong with a request's ``Host``, if anything is: RFC 9112, 3.2."""
    if len(hosts) > 1:
        return "more than one Host"
    if not hosts:
        return "" if version == "1.0" else "no Host"
    return "" if _HOST.fullmatch(hosts[0]) else "a Host that is none"
