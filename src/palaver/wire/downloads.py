"""Headers for serving uploaded files, so that a browser never executes them in this server's origin."""

from __future__ import annotations

import re
from urllib.parse import quote

from palaver.core.types import StoredFile

_DISPLAYABLE = re.compile(
    r"(?:image/(?:png|jpeg|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|text/plain)(?:[ \t]*;.*)?",
    re.ASCII | re.IGNORECASE,
)
"""Media types that browsers display without executing any content."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def download_headers(file: StoredFile, *, inline: bool = True) -> tuple[tuple[str, str], ...]:
    """The response headers for a file. With ``inline``, browsers display safe media types; otherwise they download."""
    kind = "inline" if inline and _DISPLAYABLE.fullmatch(file.media_type) else "attachment"
    return (
        ("Content-Disposition", f"{kind}; filename*=UTF-8''{quote(file.name, safe='')}"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", _POLICY),
    )
