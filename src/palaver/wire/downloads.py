"""How what somebody uploaded is handed out: never so that a browser runs it as a page of this server."""

from __future__ import annotations

import re
from urllib.parse import quote

from palaver.core.types import StoredFile

_SHOWN = re.compile(
    r"(?:image/(?:png|jpeg|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|text/plain)(?:[ \t]*;.*)?",
    re.ASCII | re.IGNORECASE,
)
"""Media types that browsers show without running anything in them."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def download_headers(file: StoredFile, *, inline: bool = True) -> tuple[tuple[str, str], ...]:
    """The headers of the file's bytes. Without ``inline`` every browser saves them, with it what is safe is shown."""
    kind = "inline" if inline and _SHOWN.fullmatch(file.media_type) else "attachment"
    return (
        ("Content-Disposition", f"{kind}; filename*=UTF-8''{quote(file.name, safe='')}"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", _POLICY),
    )
