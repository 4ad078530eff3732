"""Where the embedded PostgreSQL can be. For the settings too: nothing is loaded here that takes time."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LONGEST = 900
"""Bytes of the cluster's path: PostgreSQL has room for 1023, those of its files' names included."""


def why_unusable(folder: Path) -> str | None:
    """Why PostgreSQL cannot have its files in ``folder``."""
    name = str(folder)
    if re.search(r"[\x00-\x1f\x7f]", name):
        return f"the data folder {name!r} has a control character in its name, which PostgreSQL's files cannot have"
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"the data folder {name!r} is not UTF-8"
    if len(os.fsencode(folder / "postgres")) > _LONGEST:
        return f"the data folder's path has more than {_LONGEST} bytes, PostgreSQL takes no more: {name[:60]}…"
    return None
