"""Routing of paths to routes and dialects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.app import all_dialects
from palaver.core.types import Principal
from palaver.http.router import Router
from palaver.wire.contract import Dialect, Method, Request, Response, Route, Services


async def nothing(_call: Request, _who: Principal, _room: Services) -> Response:
    return Response()


def dialect(name: str, *routes: tuple[Method, str]) -> Dialect:
    template = all_dialects()[0]
    made = tuple(Route(method=method, path=path, endpoint=nothing, summary="") for method, path in routes)
    return replaced(template, name, made)


def replaced(template: Dialect, name: str, routes: tuple[Route, ...]) -> Dialect:
    return Dialect(
        name=name,
        prefixes=(f"/{name}/",),
        routes=routes,
        claim=template.claim,
        verify=template.verify,
        refuse=template.refuse,
        new_credential=template.new_credential,
        curl=template.curl,
    )


ROUTER = Router(
    [
        dialect("a", ("GET", "/a/c/list"), ("GET", "/a/c/{id}"), ("POST", "/a/c/{id}"), ("POST", "/a/c/{id}/x/{y}")),
        dialect("b", ("GET", "/b/q")),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "served", "params"),
    [
        ("GET", "/a/c/list", "/a/c/list", {}),
        ("GET", "/a/c/7", "/a/c/{id}", {"id": "7"}),
        ("HEAD", "/a/c/7", "/a/c/{id}", {"id": "7"}),
        ("POST", "/a/c/7", "/a/c/{id}", {"id": "7"}),
        ("POST", "/a/c/a%2Fb%20%E4%BD%A0/x/%25", "/a/c/{id}/x/{y}", {"id": "a/b 你", "y": "%"}),
        ("GET", "/b/q", "/b/q", {}),
    ],
)
def test_a_path_is_served_by_its_route(method: str, path: str, served: str, params: dict[str, str]) -> None:
    match = ROUTER.match(method, path)
    assert match.route is not None
    assert match.route.path == served
    assert match.params == params


@pytest.mark.parametrize(
    ("method", "path", "dialect_name", "allowed"),
    [
        ("PUT", "/a/c/7", "a", ("GET", "POST")),
        ("POST", "/a/c/list", "a", ("GET",)),
        ("GET", "/a/c/", "a", ()),
        ("GET", "/a/c/7/", "a", ()),
        ("GET", "/a/nope", "a", ()),
        ("GET", "//a/c/7", None, ()),
        ("GET", "/b", None, ()),
        ("GET", "/", None, ()),
        ("GET", "", None, ()),
    ],
)
def test_an_unrouted_path_is_assigned_to_the_dialect_of_its_prefix(
    method: str, path: str, dialect_name: str | None, allowed: tuple[str, ...]
) -> None:
    match = ROUTER.match(method, path)
    assert match.route is None
    assert (match.dialect.name if match.dialect else None) == dialect_name
    assert match.allowed == allowed


def test_two_dialects_that_claim_one_path_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"is taken by GET /x/\{id\} of dialect 'a'"):
        Router([dialect("a", ("GET", "/x/{id}")), dialect("b", ("POST", "/x/{name}"))])


@given(st.text(), st.sampled_from(["GET", "POST", "TRACE", ""]))
def test_matching_never_raises(path: str, method: str) -> None:
    ROUTER.match(method, path)


def test_the_mounted_dialects_claim_no_path_twice() -> None:
    assert Router(all_dialects())
