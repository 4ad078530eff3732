"""Callers with credentials of both generations, for every module."""

from __future__ import annotations

import pytest
from dialects.sonaops.client import Caller
from support.live_server import Served


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    """Of the seed's generation."""
    return Caller(served)


@pytest.fixture(scope="module")
def later(served: Served) -> Caller:
    """Of the later generation."""
    return Caller(served, served.key("sonaops", signature="hmac-sha256"))
