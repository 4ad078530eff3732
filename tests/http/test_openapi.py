"""The OpenAPI document is complete and valid, and so are its examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from palaver.app import all_dialects
from palaver.core.problems import NotFound
from palaver.http.openapi import RenderedDocument, build_document
from palaver.wire.contract import Dialect, Request, Response, Route
from palaver.wire.error_examples import error_examples
from palaver.wire.operation import Operation, ResponseSpec

DIALECTS = {dialect.name: dialect for dialect in all_dialects()}
EACH = [pytest.param(dialect, id=name) for name, dialect in DIALECTS.items()]
DESCRIBED = [pytest.param(dialect, id=name) for name, dialect in DIALECTS.items() if dialect.info is not None]
WHOLE = build_document(list(DIALECTS.values()))
Members = dict[str, Any]


def operation(content: Members, route: Route) -> Members:
    return content["paths"][route.path][route.method.lower()]


def operations(content: Members) -> Iterator[tuple[str, Members]]:
    for path, item in content["paths"].items():
        for method, one in item.items():
            yield f"{method.upper()} {path}", one


# Complete -----------------------------------------------------------------------------------------------------------


def test_the_document_is_valid_openapi_3_1() -> None:
    content: Any = json.loads(RenderedDocument(WHOLE).for_origin("https://example.com"))
    assert content["openapi"].startswith("3.1.")
    assert content["servers"] == [{"url": "https://example.com"}]
    tool: Any = schemathesis
    tool.openapi.from_dict(content).validate()


def test_there_is_one_operation_for_every_route_and_no_other() -> None:
    routes = sorted(f"{route.method} {route.path}" for dialect in DIALECTS.values() for route in dialect.routes)
    assert sorted(name for name, _ in operations(WHOLE)) == routes
    names = [one["operationId"] for _, one in operations(WHOLE)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z]\w*", name) for name in names)


@pytest.mark.parametrize("dialect", EACH)
def test_an_operation_has_a_summary_a_tag_and_described_path_parameters(dialect: Dialect) -> None:
    for route in dialect.routes:
        one = operation(WHOLE, route)
        assert (one["tags"], one["summary"]) == ([dialect.name], route.summary)
        parameters = one.get("parameters", [])
        assert len({(parameter["in"], parameter["name"].lower()) for parameter in parameters}) == len(parameters)
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path" and parameter["required"]}
        assert in_path == set(re.findall(r"\{(\w+)\}", route.path))
        assert ("Idempotency-Key" in {parameter["name"] for parameter in parameters}) == route.idempotent
        assert (one["security"] == []) == (route.public or dialect.info is None)


@pytest.mark.parametrize("dialect", DESCRIBED)
def test_a_dialect_with_descriptions_describes_every_route_parameter_and_status(dialect: Dialect) -> None:
    assert [route.path for route in dialect.routes if route.operation is None] == []
    for route in dialect.routes:
        one = operation(WHOLE, route)
        assert [parameter["name"] for parameter in one.get("parameters", []) if parameter["in"] != "query"] == [
            parameter["name"]
            for parameter in one.get("parameters", [])
            if parameter.get("description") and parameter["in"] != "query"
        ]
        assert "Source: " in one["description"]
        assert all(re.fullmatch(r"[2-5]\d\d", status) for status in one["responses"])
        assert all(answer["description"] for answer in one["responses"].values())


@pytest.mark.parametrize("dialect", EACH)
def test_every_error_response_of_a_route_has_its_status_media_type_and_an_example(dialect: Dialect) -> None:
    for route in dialect.routes:
        responses = operation(WHOLE, route)["responses"]
        for refusal in error_examples(dialect, route):
            reply = refusal.reply
            content = responses[str(reply.status)]["content"][reply.media_type.partition(";")[0]]
            examples = [WHOLE["components"]["examples"][name]["value"] for name in content["examples"] if "." in name]
            text = reply.body.decode()
            assert (json.loads(text) if "json" in reply.media_type else text) in examples


def test_every_security_scheme_is_defined_and_used() -> None:
    needed = {name for _, one in operations(WHOLE) for group in one["security"] for name in group}
    assert needed == set(WHOLE["components"]["securitySchemes"])


# Examples -----------------------------------------------------------------------------------------------------------

SEEDS: dict[tuple[str, str], Any] = {
    ("post", "/v1/chat/conversation"): {"agentId": "agent-uuid"},
    ("post", "/v7/devhub/app/{app_id}/chat/create"): {
        "files": ["string"],
        "session_id": "string",
        "stream": True,
        "text": "string",
        "variables": [{"key": "string", "value": "string"}],
    },
    ("post", "/api/v1/chat/conversation/{conversationId}/update"): {"firstMessage": "你好,请问今天天气怎么样?"},
    ("post", "/snail-ai/open-api/chat"): {
        "agentId": 1,
        "openId": "external-user-001",
        "content": "帮我分析一下上季度的销售数据",
    },
}
"""The bodies that the vendors' own pages show."""


@pytest.mark.parametrize(("method", "path"), SEEDS)
def test_the_vendor_s_own_example_comes_first(method: str, path: str) -> None:
    examples = WHOLE["paths"][path][method]["requestBody"]["content"]["application/json"]["examples"]
    name, first = next(iter(examples.items()))
    assert name.startswith("the vendor's")
    assert first["value"] == SEEDS[method, path]


def _examples(one: Members) -> Iterator[tuple[Members, Any]]:
    """(schema, value) of every example of an operation."""
    contents = [one["requestBody"]] if "requestBody" in one else []
    for content in (*contents, *one["responses"].values()):
        for media in content.get("content", {}).values():
            for name, example in media.get("examples", {}).items():
                document = WHOLE["components"]["examples"][name] if "$ref" in example else example
                yield media.get("schema", {}), document["value"]
    for parameter in one.get("parameters", []):
        if "example" in parameter:
            yield parameter["schema"], parameter["example"]


@pytest.mark.parametrize("dialect", EACH)
def test_every_example_is_valid_against_its_schema(dialect: Dialect) -> None:
    for route in dialect.routes:
        for schema, value in _examples(operation(WHOLE, route)):
            whole = {**schema, "components": {"schemas": WHOLE["components"]["schemas"]}}
            jsonschema_rs.validator_for(whole).validate(value)


def test_every_component_is_referenced_and_every_reference_resolves() -> None:
    text = json.dumps(WHOLE)
    referred = set(re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', text))
    components = WHOLE["components"]
    assert referred == {(kind, name) for kind in ("schemas", "examples") for name in components[kind]}


# Another dialect ----------------------------------------------------------------------------------------------------


def test_a_dialect_without_descriptions_is_documented_from_its_routes() -> None:
    async def handle(_call: Request, *_: Any) -> Response:
        return Response()

    def refuse(problem: Any, *_: Any) -> Response:
        status = 404 if isinstance(problem, NotFound) else 418
        return Response(status=status, body=str(problem.kind).encode(), media_type="text/plain")

    route = Route(method="POST", path="/fifth/{agent}/say", endpoint=handle, summary="talk", idempotent=True)
    documented = Operation(source="a page", responses=(ResponseSpec(meaning="How many.", shape=dict[str, int]),))
    silent, speaking = route, replace(route, path="/fifth/count", operation=documented)
    fifth = replace(
        DIALECTS["snail"], name="fifth", prefixes=("/fifth/",), routes=(silent, speaking), refuse=refuse, info=None
    )
    content = build_document([*DIALECTS.values(), fifth])
    one = operation(content, route)
    assert (one["operationId"], one["summary"]) == ("fifth_post_fifth_by_agent_say", "talk")
    assert [parameter["name"] for parameter in one["parameters"]] == ["agent", "Idempotency-Key"]
    assert set(one["responses"]) == {"200", "404", "418"}
    counted = operation(content, speaking)["responses"]["200"]["content"]["application/json"]["schema"]
    assert counted == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert {"name": "fifth"} in content["tags"]
    tool: Any = schemathesis
    tool.openapi.from_dict(json.loads(RenderedDocument(content).for_origin("https://example.com"))).validate()
