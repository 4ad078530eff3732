"""A caller with a credential of its own, for every module."""

from __future__ import annotations

import pytest
from dialects.native.asking import Caller
from dialects.serving import Served


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    return Caller(served)
