"""Request heads: normalizes them for the parser, splits the target, checks ``Host``."""

from __future__ import annotations

import re
import urllib.parse

import httptools

HEAD_TOO_LARGE = "the head has more than 64 KiB"
NOT_HTTP = "it does not begin with a request line of HTTP/1.1"

_UPGRADE = re.compile(rb"(?im)^upgrade(?=[ \t]*:)")
_NON_ASCII = re.compile(rb"[\x80-\xff]+")
_HOST_VALUE = re.compile(rb"[!-~]*")


def normalize_head(line: re.Match[bytes], rest: bytes) -> bytes:
    """The head for the parser: its target percent-encoded if it contains raw UTF-8, and ``Upgrade`` renamed. Java's
    HttpClient offers an upgrade (h2c) with its first request, and the parser would skip the body of that request."""
    return b"%s %s HTTP/%s.%s" % (line[1], encode_target(line[2]), line[3], line[4]) + _UPGRADE.sub(b"X-Upgrade", rest)


def encode_target(target: bytes) -> bytes:
    if target.isascii():
        return target
    return _NON_ASCII.sub(lambda raw: urllib.parse.quote(raw[0]).encode(), target)


def split_target(target: bytes) -> tuple[bytes, bytes] | None:
    """(path, query) of a request target; ``None`` if it is invalid."""
    try:
        url = httptools.parse_url(encode_target(target))
    except httptools.HttpParserError:
        return None
    return url.path or b"/", url.query or b""


def origin_form(target: bytes) -> str:
    """Path and query exactly as sent, without the scheme and host of an absolute-form target."""
    text = target.decode("latin-1")
    if text.startswith("/") or "://" not in text:
        return text
    authority_and_path = text.partition("://")[2]
    start = re.search(r"[/?]", authority_and_path)
    return "/" if start is None else authority_and_path[start.start() :]


def host_error(hosts: list[bytes], version: str) -> str:
    """Why a request's ``Host`` headers are invalid (RFC 9112, 3.2); empty if they are valid."""
    if len(hosts) > 1:
        return "more than one Host"
    if not hosts:
        return "" if version == "1.0" else "no Host"
    return "" if _HOST_VALUE.fullmatch(hosts[0]) else "a Host that is none"
