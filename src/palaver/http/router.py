"""Which route serves a path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from palaver.wire.contract import Dialect, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """What a path comes to: a route with its parameters, or who refuses it. ``routes`` are those of the path, by
    method; it is empty for a path that no route serves."""

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
    """The routes of all dialects as one tree of path segments; literal segments win over ``{name}``.

    Raises ``ValueError`` when two dialects claim one path.
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
        for method, (other, taken, _) in node.routes.items():
            if method == route.method or other is not dialect:
                raise ValueError(
                    f"{route.method} {route.path} of dialect {dialect.name!r} is taken by"
                    f" {taken.method} {taken.path} of dialect {other.name!r}"
                )
        node.routes[route.method] = (dialect, route, tuple(names))

    def match(self, method: str, raw_path: str) -> RouteMatch:
        """What serves ``raw_path`` (percent-encoded, without query). ``HEAD`` is served by ``GET``."""
        found = _find(self._root, raw_path.removeprefix("/").split("/"), 0, [])
        if found is None:
            return RouteMatch(dialect=self._keeper(raw_path))
        node, values = found
        routes = tuple(route for _, (_, route, _) in sorted(node.routes.items()))
        entry = node.routes.get("GET" if method == "HEAD" else method)
        if entry is None:
            return RouteMatch(dialect=next(iter(node.routes.values()))[0], routes=routes)
        dialect, route, names = entry
        params = {name: unquote(value) for name, value in zip(names, values, strict=True)}
        return RouteMatch(dialect=dialect, route=route, params=params, routes=routes)

    def _keeper(self, raw_path: str) -> Dialect | None:
        return next((dialect for prefix, dialect in self._prefixes if raw_path.startswith(prefix)), None)


def _find(node: _Node, segments: list[str], at: int, values: list[str]) -> tuple[_Node, list[str]] | None:
    if at == len(segments):
        return (node, values) if node.routes else None
    child = node.children.get(segments[at])
    if child is not None and (found := _find(child, segments, at + 1, values)) is not None:
        return found
    if node.parameter is not None and segments[at]:
        return _find(node.parameter, segments, at + 1, [*values, segments[at]])
    return None
