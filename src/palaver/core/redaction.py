"""What of an address, or of a text with addresses in it, may stand in a log: nothing that opens anything.

A log is read by more people than may read what an address leads to, and is kept longer.
"""

from __future__ import annotations

import re

HIDDEN = "…"
_URL = re.compile(r"""(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s"'<>`\\]+""")
_WORD = re.compile(r"[A-Za-z][A-Za-z_.-]{0,30}|v[0-9]{1,2}|[A-Za-z_-]{1,20}\.[a-z0-9]{1,5}|", re.ASCII)
_SECRETS = re.compile(
    r"\b(?:bearer|basic|kso-1)[ \t]+[^\s,;\"']{8,}"  # a header's value
    r"|(?<![\w-])eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"  # a JWT
    r"|(?<![\w-])(?:ak|ck|pa|pv|sk|SAI|kso_rt)[-_][\w-]{8,}"  # a secret that says what it is
    r"|\b[0-9a-f]{32}(?=\.[A-Za-z0-9]{1,16}\b)"  # the name of a stored file
    r"|(?<=/[0-9]{8}/)[0-9a-f]{32}\b",
    re.ASCII | re.IGNORECASE,
)


def redact_url(address: str) -> str:
    """A URL, a path or a file's key: without user and password, without query and fragment, and without every segment
    that is more than a plain word."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return _path(address)
    authority, slash, path = rest.partition("/")
    host = re.split(r"[?#]", authority.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}://{host}{_path(slash + path) if host == authority.rpartition('@')[2] else ''}"


def redact_text(text: str) -> str:
    """The text, with every URL in it as ``redact_url`` has it and without what looks like a secret."""
    return _SECRETS.sub(HIDDEN, _URL.sub(lambda found: redact_url(found[0]), text))


def _path(path: str) -> str:
    segments = re.split(r"[?#]", path, maxsplit=1)[0].split("/")
    return "/".join(segment if _WORD.fullmatch(segment) else HIDDEN for segment in segments)[:200]
