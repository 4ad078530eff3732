"""Redaction of URLs, and of text that contains them, for logs: nothing that grants access may be logged.

Logs have more readers than the resources behind a URL, and are kept longer.
"""

from __future__ import annotations

import re

HIDDEN = "…"
_URL = re.compile(r"""(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s"'<>`\\]+""")
_WORD = re.compile(r"[A-Za-z][A-Za-z_.-]{0,30}|v[0-9]{1,2}|[A-Za-z_-]{1,20}\.[a-z0-9]{1,5}|", re.ASCII)
_SECRETS = re.compile(
    r"\b(?:bearer|basic|kso-1)[ \t]+[^\s,;\"']{8,}"  # a header's value
    r"|(?<![\w-])eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"  # a JWT
    r"|(?<![\w-])(?:ak|ck|pa|pv|sk|SAI|kso_rt)[-_][\w-]{8,}"  # a secret with a known prefix
    r"|\b[0-9a-f]{32}(?=\.[A-Za-z0-9]{1,16}\b)"  # the name of a stored file
    r"|(?<=/[0-9]{8}/)[0-9a-f]{32}\b",
    re.ASCII | re.IGNORECASE,
)


def redact_url(address: str) -> str:
    """Redact a URL, a path or a file key: remove user and password, query and fragment, and hide every path segment
    that is not a plain word."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return _redact_path(address)
    authority, slash, path = rest.partition("/")
    host = re.split(r"[?#]", authority.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}://{host}{_redact_path(slash + path) if host == authority.rpartition('@')[2] else ''}"


def redact_text(text: str) -> str:
    """Redact every URL in the text with ``redact_url``, and hide everything that looks like a secret."""
    return _SECRETS.sub(HIDDEN, _URL.sub(lambda match: redact_url(match[0]), text))


def _redact_path(path: str) -> str:
    segments = re.split(r"[?#]", path, maxsplit=1)[0].split("/")
    return "/".join(segment if _WORD.fullmatch(segment) else HIDDEN for segment in segments)[:200]
