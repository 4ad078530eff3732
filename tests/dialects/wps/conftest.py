"""A caller with a credential of its own, for every module."""

from __future__ import annotations

import pytest
from dialects.serving import Served
from dialects.wps.asking import Caller


@pytest.fixture(scope="module")
def caller(served: Served) -> Caller:
    return Caller(served)
