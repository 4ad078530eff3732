"""What routes say of themselves is what their handlers do: the shapes are those that they read with."""

from __future__ import annotations

import dis
from types import CodeType, FunctionType
from typing import Any

import msgspec
import pytest
from support.contract import DIALECTS

from palaver.wire.contract import Route

PARTS = {"Attachment", "Chat"}
"""Shapes that are no call's own: a part of one, and one that has been checked."""


def shapes_read(handler: Any) -> set[type[msgspec.Struct]]:
    """The request shapes that a handler, and what it calls of its dialect, has to do with."""
    found: set[type[msgspec.Struct]] = set()
    seen: set[Any] = set()
    todo: list[Any] = [handler]
    while todo:
        one = todo.pop()
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            if one.__module__.endswith(".shapes") and one.__name__ not in PARTS:
                found.add(one)
        elif isinstance(one, FunctionType) and one not in seen and one.__module__.startswith("palaver.dialects."):
            seen.add(one)
            todo += [cell.cell_contents for cell in one.__closure__ or ()]
            todo += [one.__globals__[name] for name in names_in(one.__code__) if name in one.__globals__]
    return found


def names_in(code: CodeType) -> set[str]:
    """The globals that a function, and those inside it, look at."""
    own = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    return own.union(*(names_in(one) for one in code.co_consts if isinstance(one, CodeType)))


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(route, id=f"{route.method} {route.path}")
        for dialect in DIALECTS.values()
        for route in dialect.routes
        if route.operation is not None
    ],
)
def test_the_shapes_of_the_document_are_those_that_the_handler_reads_with(route: Route) -> None:
    """Of a handler that serves several routes every shape is documented with one of them."""
    served = [
        one.operation for dialect in DIALECTS.values() for one in dialect.routes if one.endpoint is route.endpoint
    ]
    described = {given.shape for told in served if told for given in (told.body, told.query) if given}
    assert shapes_read(route.endpoint) == described - {None}
