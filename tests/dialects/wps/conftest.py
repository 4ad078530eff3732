"""A caller with a credential of its own, for every module."""

from __future__ import annotations

import pytest
from dialects.wps.client import Caller
from support.live_server import Served


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    return Caller(served)
