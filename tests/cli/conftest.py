"""What the tests of the command share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import Palaver


@pytest.fixture
def palaver(database_url: str, tmp_path: Path) -> Palaver:
    """The command on a database of this test's own."""
    return Palaver(tmp_path, database_url)
