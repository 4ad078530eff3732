"""One name, one thing: every public class of the package has a name of its own."""

from __future__ import annotations

import ast
from collections import defaultdict

from support.survey import SOURCE, python, shown, tree


def test_public_class_names_are_unique() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in python(SOURCE):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(shown(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
