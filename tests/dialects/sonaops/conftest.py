"""Callers with credentials of both generations, for every module."""

from __future__ import annotations

import pytest
from dialects.serving import Served
from dialects.sonaops.asking import Caller


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    """Of the seed's generation."""
    return Caller(served)


@pytest.fixture(scope="module")
def later(served: Served) -> Caller:
    """Of the later generation."""
    return Caller(served, served.key("sonaops", signature="hmac-sha256"))
