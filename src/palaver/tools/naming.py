"""Determines the name and the media type of a fetched file from its headers and its URL. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from email.message import Message
from email.utils import collapse_rfc2231_value
from mimetypes import MimeTypes
from urllib.parse import unquote_to_bytes, urlsplit

from palaver.core.files import shorten_name

LONGEST = 120
"""Maximum characters of a name."""
BYTES = "application/octet-stream"

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}")
_UNSPECIFIC = frozenset({"", BYTES, "binary/octet-stream", "application/x-download", "application/force-download"})
"""Media types that servers send for files of any type."""
_KINDS = MimeTypes()
"""Python's own table without the machine's, so that the result does not depend on the machine."""
_KINDS.add_type("text/markdown", ".md")  # part of Python's table since 3.13


def name(headers: Mapping[str, str], url: str) -> str:
    """The file's name without a folder: from ``Content-Disposition`` (RFC 6266), else from the end of the URL's path,
    else empty."""
    return _clean(_disposition_name(headers.get("Content-Disposition", ""))) or _clean(
        _unquoted(urlsplit(url).path.rpartition("/")[2])
    )


def media_type(headers: Mapping[str, str], name: str) -> str:
    """The media type without parameters: from ``Content-Type``, or from the name's extension if that is missing,
    invalid or unspecific."""
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in _UNSPECIFIC or not _TYPE.fullmatch(content_type):
        return _KINDS.guess_type(f"/{name}")[0] or BYTES
    return content_type


def _unquoted(text: str) -> str:
    """Percent-decoded: UTF-8, or GB 18030, which browsers in China used for a long time."""
    raw = unquote_to_bytes(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("gb18030", "replace")


def _disposition_name(header: str) -> str:
    """``filename*`` (RFC 8187) if present, else its fallback ``filename``."""
    message = Message()
    message["Content-Disposition"] = header.replace("\r", " ").replace("\n", " ")
    params = message.get_params(header="Content-Disposition", failobj=[])
    names = [value for key, value in params if key.lower() == "filename"]
    best = next((value for value in names if isinstance(value, tuple)), names[0] if names else "")
    return collapse_rfc2231_value(best)


def _clean(path: str) -> str:
    """The last part of a path, without invisible characters and direction marks, at most ``LONGEST`` characters."""
    last = re.split(r"[/\\]", path)[-1]
    visible = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in last)
    return shorten_name(" ".join(visible.split()).strip(". "), LONGEST)
