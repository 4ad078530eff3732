"""Routes a request path to a route, or to the dialect that rejects it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from palaver.wire.contract import Dialect, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """The route of a request, with its percent-decoded path parameters. Without a route, ``dialect`` rejects the
    request; it is ``None`` if the path has no dialect's prefix. ``routes`` are all routes of the path, sorted by
    method."""

    dialect: Dialect | None
    route: Route | None = None
    params: Mapping[str, str] | None = None
    routes: tuple[Route, ...] = ()

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods of the path."""
        return tuple(route.method for route in self.routes)


class _Node:
    __slots__ = ("children", "parameter", "routes")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, tuple[Dialect, Route, tuple[str, ...]]] = {}


class Router:
    """The routes of all dialects in one tree of path segments. Literal segments take precedence over ``{name}``.

    Raises ``ValueError`` if two dialects, or two routes with one method, claim the same path.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._root = _Node()
        self._prefixes: list[tuple[str, Dialect]] = []
        for dialect in dialects:
            self._prefixes += [(prefix, dialect) for prefix in dialect.prefixes]
            for route in dialect.routes:
                self._add(dialect, route)
        self._prefixes.sort(key=lambda entry: -len(entry[0]))

    def _add(self, dialect: Dialect, route: Route) -> None:
        node, names = self._root, list[str]()
        for segment in route.path.removeprefix("/").split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        for method, (other, existing, _) in node.routes.items():
            if method == route.method or other is not dialect:
                raise ValueError(
                    f"{route.method} {route.path} of dialect {dialect.name!r} is taken by"
                    f" {existing.method} {existing.path} of dialect {other.name!r}"
                )
        node.routes[route.method] = (dialect, route, tuple(names))

    def match(self, method: str, raw_path: str) -> RouteMatch:
        """Match ``raw_path`` (percent-encoded, without query). ``HEAD`` matches the route for ``GET``."""
        result = _find(self._root, raw_path.removeprefix("/").split("/"), 0, [])
        if result is None:
            return RouteMatch(dialect=self._dialect_by_prefix(raw_path))
        node, values = result
        routes = tuple(route for _, (_, route, _) in sorted(node.routes.items()))
        entry = node.routes.get("GET" if method == "HEAD" else method)
        if entry is None:
            return RouteMatch(dialect=next(iter(node.routes.values()))[0], routes=routes)
        dialect, route, names = entry
        params = {name: unquote(value) for name, value in zip(names, values, strict=True)}
        return RouteMatch(dialect=dialect, route=route, params=params, routes=routes)

    def _dialect_by_prefix(self, raw_path: str) -> Dialect | None:
        return next((dialect for prefix, dialect in self._prefixes if raw_path.startswith(prefix)), None)


def _find(node: _Node, segments: list[str], index: int, values: list[str]) -> tuple[_Node, list[str]] | None:
    """The node for ``segments[index:]`` and the raw values of the path parameters."""
    if index == len(segments):
        return (node, values) if node.routes else None
    child = node.children.get(segments[index])
    if child is not None and (result := _find(child, segments, index + 1, values)) is not None:
        return result
    if node.parameter is not None and segments[index]:
        return _find(node.parameter, segments, index + 1, [*values, segments[index]])
    return None
