"""Which data folders the embedded PostgreSQL can use. Imported by the settings, so it imports nothing slow."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MAX_PATH_BYTES = 900
"""Maximum length of the cluster's path: PostgreSQL limits paths to 1023 bytes, including file names."""


def find_problem(folder: Path) -> str | None:
    """The reason why PostgreSQL cannot store its files in ``folder``, or ``None``."""
    name = str(folder)
    if re.search(r"[\x00-\x1f\x7f]", name):
        return f"the data folder {name!r} has a control character in its name, which PostgreSQL's files cannot have"
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"the data folder {name!r} is not UTF-8"
    if len(os.fsencode(folder / "postgres")) > _MAX_PATH_BYTES:
        return f"the data folder's path has more than {_MAX_PATH_BYTES} bytes, PostgreSQL takes no more: {name[:60]}…"
    return None
