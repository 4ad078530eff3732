"""What a fetched file is called, and what it is, by its headers and its URL. Pure."""

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
"""Characters of a name."""
BYTES = "application/octet-stream"

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}")
_UNTOLD = frozenset({"", BYTES, "binary/octet-stream", "application/x-download", "application/force-download"})
"""What stores say of everything."""
_KINDS = MimeTypes()
"""Python's own table, without the machine's, so that a file is the same on all of them."""
_KINDS.add_type("text/markdown", ".md")  # Python knows it since 3.13


def name(headers: Mapping[str, str], url: str) -> str:
    """The file's name without any folder: the one in ``Content-Disposition`` (RFC 6266), else the end of the URL's
    path, else nothing."""
    said = _disposed(headers.get("Content-Disposition", ""))
    return _clean(said) or _clean(_unquoted(urlsplit(url).path.rpartition("/")[2]))


def media_type(headers: Mapping[str, str], name: str) -> str:
    """The media type without parameters: the one in ``Content-Type``; where that says nothing, the one that the
    name's ending means."""
    said = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if said in _UNTOLD or not _TYPE.fullmatch(said):
        return _KINDS.guess_type(f"/{name}")[0] or BYTES
    return said


def _unquoted(text: str) -> str:
    """As browsers in China have written names for long, where it is not UTF-8."""
    raw = unquote_to_bytes(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("gb18030", "replace")


def _disposed(header: str) -> str:
    """``filename*`` (RFC 8187), which is what was meant, before ``filename``, which is for those who cannot read it."""
    message = Message()
    message["Content-Disposition"] = header.replace("\r", " ").replace("\n", " ")
    params = message.get_params(header="Content-Disposition", failobj=[])
    names = [value for key, value in params if key.lower() == "filename"]
    best = next((value for value in names if isinstance(value, tuple)), names[0] if names else "")
    return collapse_rfc2231_value(best)


def _clean(said: str) -> str:
    """The last part of a path, without what cannot be seen or turns text around, at most ``LONGEST`` long."""
    last = re.split(r"[/\\]", said)[-1]
    seen = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in last)
    return shorten_name(" ".join(seen.split()).strip(". "), LONGEST)
