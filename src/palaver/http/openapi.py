"""The OpenAPI 3.1 document of every mounted route, made of what routes and dialects say of themselves.

Nothing is written down twice: the shapes of requests are those that the handlers read with, the refusals are what the
dialect's ``refuse`` answers to every problem that the route may meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

import palaver
from palaver.wire.contract import JSON, Dialect, Route
from palaver.wire.framing import compact_json
from palaver.wire.operation import BodySpec, DialectInfo, Operation, Parameter, QuerySpec, ResponseSpec, SecurityScheme
from palaver.wire.refusals import ErrorExample, error_examples

Schema = dict[str, Any]
_SEGMENT = re.compile(r"\{(\w+)\}")
_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_IDEMPOTENCY = Parameter(
    name="Idempotency-Key",
    meaning="An equal call with the same key is answered with what the first one was answered, and begins nothing.",
    shape=Annotated[str, Meta(pattern="^[!-~]{1,255}$")],
)
_HEADERS = {"Retry-After": "Seconds to wait."}
_INFO = {
    "title": "palaver",
    "summary": "One self-hosted agent server that speaks several vendors' documented chat APIs.",
    "description": (
        "Each tag is one vendor's API, called a dialect. All of them reach the same agents and conversations.\n\n"
        "Requests are read leniently: members that are not listed are passed over, and `null` counts as absent."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


def document(dialects: Sequence[Dialect]) -> Schema:
    """The document without ``servers``, which depends on who asks."""
    paths: dict[str, Schema] = {}
    schemas: Schema = {}
    schemes: Schema = {}
    examples: Schema = {}
    for dialect in dialects:
        pages = _DialectSection(dialect)
        for route in dialect.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = pages.operation(route)
        schemas |= pages.schemas
        examples |= pages.examples
        schemes |= _schemes(dialect)
    return {
        "openapi": "3.1.0",
        "info": {**_INFO, "version": palaver.__version__},
        "tags": [_tag(dialect) for dialect in dialects],
        "paths": paths,
        "components": {"schemas": schemas, "examples": examples, "securitySchemes": schemes},
    }


def _tag(dialect: Dialect) -> Schema:
    about = dialect.info
    return {"name": dialect.name} if about is None else {"name": dialect.name, "description": _named(about)}


def _named(about: DialectInfo) -> str:
    return f"**{about.title}.** {about.meaning}"


def _schemes(dialect: Dialect) -> Schema:
    return {_scheme_name(dialect, scheme.name): _scheme(scheme) for scheme in _schemes_of(dialect)}


def _schemes_of(dialect: Dialect) -> tuple[SecurityScheme, ...]:
    return () if dialect.info is None else dialect.info.schemes


def _scheme_name(dialect: Dialect, name: str) -> str:
    return f"{dialect.name}.{name}"


def _scheme(scheme: SecurityScheme) -> Schema:
    if scheme.kind == "bearer":
        return {"type": "http", "scheme": "bearer", "description": scheme.meaning}
    return {"type": "apiKey", "in": "header", "name": scheme.header, "description": scheme.meaning}


class _DialectSection:
    """The operations of one dialect, with the components that they refer to."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        bodies = _bodies(dialect)
        self._shapes, self.schemas = _schemas(dialect, bodies)
        # A form's schema stands in its operation, with its files: it is no component.
        forms = {id(body.shape): self._name(body) for body in bodies if body.files}
        self._forms = {shape: self.schemas.pop(name) for shape, name in forms.items()}
        self.examples: Schema = {}
        self._example_of: dict[tuple[str, bytes], str] = {}

    def operation(self, route: Route) -> Schema:
        told = route.operation or Operation(source="")
        operation: Schema = {
            "operationId": _operation_id(self._dialect, route),
            "tags": [self._dialect.name],
            "summary": route.summary,
        }
        if description := _description(told):
            operation["description"] = description
        if parameters := [*self._parameters(route), *self._queried(told.query)]:
            operation["parameters"] = parameters
        if told.body is not None:
            operation["requestBody"] = self._body(told.body)
        return operation | {"responses": self._responses(route, told), "security": self._security(route, told)}

    # What comes in --------------------------------------------------------------------------------------------------

    def _parameters(self, route: Route) -> list[Schema]:
        known = {} if self._dialect.info is None else {one.name: one for one in self._dialect.info.path}
        names = _SEGMENT.findall(route.path)
        given = [
            {**_parameter(known.get(name, Parameter(name=name, meaning="")), "path"), "required": True}
            for name in names
        ]
        if self._dialect.info is not None and not route.public:
            given += [_parameter(one, "header") for one in self._dialect.info.headers]
        return [*given, _parameter(_IDEMPOTENCY, "header")] if route.idempotent else given

    def _queried(self, query: QuerySpec | None) -> list[Schema]:
        if query is None or query.shape is None:
            return []
        members: Schema = _tidy(msgspec.json.schema(query.shape))["$defs"][query.shape.__name__]["properties"]
        given: list[Schema] = []
        for name in [name for name in members if name not in query.without]:
            schema = _without_null(members[name])
            one: Schema = {"name": name, "in": "query", "required": name in query.required}
            if "description" in schema:
                one["description"] = schema.pop("description")
            one["schema"] = schema
            if name in query.example:
                one["example"] = query.example[name]
            given.append(one)
        return given

    def _security(self, route: Route, told: Operation) -> list[Schema]:
        if route.public or self._dialect.info is None:
            return []
        groups = self._dialect.info.needs if told.needs is None else told.needs
        return [{_scheme_name(self._dialect, name): list[str]() for name in group} for group in groups]

    def _body(self, body: BodySpec) -> Schema:
        content: Schema = {}
        if body.shape is not None:
            content["schema"] = self._form(body) if body.files else self._members(body)
        if body.examples:
            content["examples"] = {name: {"value": value} for name, value in body.examples.items()}
        return {"required": not body.empty, "content": {body.media_type: content}}

    def _members(self, body: BodySpec) -> Schema:
        reference = self._shapes[id(body.shape)]
        if body.without:
            whole = self.schemas[self._name(body)]
            left = {name: one for name, one in whole["properties"].items() if name not in body.without}
            return {**whole, "properties": left, "required": list(body.required)}
        always = self.schemas[self._name(body)].get("required", [])
        beyond = [name for name in body.required if name not in always]
        return {"allOf": [reference, {"required": beyond}]} if beyond else reference

    def _form(self, body: BodySpec) -> Schema:
        """The fields of a form and its files, whose bytes no shape has."""
        schema: Schema = self._forms[id(body.shape)]
        files = {name: {"type": "string", "format": "binary"} for name in body.files}
        return {**schema, "properties": {**files, **schema["properties"]}, "required": list(body.required)}

    def _name(self, body: BodySpec) -> str:
        """What the body's shape is called among the components."""
        return self._shapes[id(body.shape)]["$ref"].rpartition("/")[2]

    # What goes out --------------------------------------------------------------------------------------------------

    def _responses(self, route: Route, told: Operation) -> Schema:
        said = error_examples(self._dialect, route)
        responses: Schema = {}
        if route.operation is None:
            responses["200"] = {"description": "What its vendor's page says."}
        for status in sorted({answer.status for answer in told.responses} | {one.reply.status for one in said}):
            answers = [answer for answer in told.responses if answer.status == status]
            responses[str(status)] = self._response(answers, [one for one in said if one.reply.status == status])
        return responses

    def _response(self, answers: Sequence[ResponseSpec], said: Sequence[ErrorExample]) -> Schema:
        response: Schema = {"description": _meaning(answers, said)}
        if headers := _headers(answers, said):
            response["headers"] = headers
        kinds = [_bare(one.media_type) for one in (*answers, *(refusal.reply for refusal in said))]
        content = {
            kind: self._content(
                [answer for answer in answers if _bare(answer.media_type) == kind],
                [refusal for refusal in said if _bare(refusal.reply.media_type) == kind],
                kind,
            )
            for kind in dict.fromkeys(kinds)
            if kind
        }
        return response | ({"content": content} if content else {})

    def _content(self, answers: Sequence[ResponseSpec], said: Sequence[ErrorExample], kind: str) -> Schema:
        shapes: list[Schema] = [self._shapes[id(one.shape)] for one in answers if one.shape is not None]
        if said and _is_json(kind) and self._dialect.info is not None:
            shapes.append(self._shapes[id(self._dialect.info.refusal)])
        shapes = [shape for at, shape in enumerate(shapes) if shape not in shapes[:at]]
        content: Schema = {}
        if shapes:
            content["schema"] = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        elif kind == "text/html":  # a stream has no schema: some readers take one for its events', others for the whole
            content["schema"] = {"type": "string"}
        examples = {name: {"value": value} for answer in answers for name, value in answer.examples.items()}
        examples |= {name: {"$ref": f"#/components/examples/{name}"} for name in map(self._example, said)}
        return content | ({"examples": examples} if examples else {})

    def _example(self, refusal: ErrorExample) -> str:
        """The name of the refusal among the components' examples; equal ones have one."""
        known = (refusal.reply.media_type, refusal.reply.body)
        if known not in self._example_of:
            name = wanted = f"{self._dialect.name}.{_PLAIN.sub('-', refusal.name)}"
            number = 1
            while name in self.examples:
                number += 1
                name = f"{wanted}-{number}"
            text = refusal.reply.body.decode()
            value = msgspec.json.decode(text) if _is_json(_bare(refusal.reply.media_type)) else text
            self.examples[name] = {"summary": refusal.name, "value": value}
            self._example_of[known] = name
        return self._example_of[known]


def _operation_id(dialect: Dialect, route: Route) -> str:
    """As code is generated from it: unique, because method and path are."""
    path = _SEGMENT.sub(r"by_\1", route.path)
    slash = "_" if route.path.endswith("/") else ""
    return f"{dialect.name}_{route.method.lower()}_{_PLAIN.sub('_', path).strip('_')}{slash}"


def _description(told: Operation) -> str:
    source = f"Source: {told.source}." if told.source else ""
    return "\n\n".join(filter(None, (told.more, source)))


def _headers(answers: Sequence[ResponseSpec], said: Sequence[ErrorExample]) -> Schema:
    """What is documented of the answers' headers, then those that refusals are seen to have."""
    headers: Schema = {
        "X-Request-ID": {"description": "As the call had it, else one made here.", "schema": {"type": "string"}}
    }
    for header in (header for answer in answers for header in answer.headers):
        one = _parameter(header, "header")
        headers.setdefault(one.pop("name"), {name: value for name, value in one.items() if name != "in"})
    for name in sorted({name for refusal in said for name, _ in refusal.reply.headers}):
        headers.setdefault(name, {"description": _HEADERS.get(name, ""), "schema": {"type": "string"}})
    return headers


def _meaning(answers: Sequence[ResponseSpec], said: Sequence[ErrorExample]) -> str:
    meant = [answer.meaning for answer in answers]
    if said:
        names = sorted({refusal.name.partition(",")[0] for refusal in said})
        meant.append(f"Refused: {', '.join(names)}.")
    return " ".join(dict.fromkeys(meant))


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip()


def _is_json(kind: str) -> bool:
    return kind == JSON or kind.endswith("+json")


def _parameter(one: Parameter, where: str) -> Schema:
    schema = _tidy(msgspec.json.schema(one.shape))
    given: Schema = {"name": one.name, "in": where, "description": one.meaning, "schema": schema}
    if not one.meaning:
        del given["description"]
    return given if one.example is None else {**given, "example": one.example}


# Shapes -------------------------------------------------------------------------------------------------------------


def _bodies(dialect: Dialect) -> list[BodySpec]:
    """The bodies that have a shape."""
    told = [route.operation.body for route in dialect.routes if route.operation is not None]
    return [body for body in told if body is not None and body.shape is not None]


def _schemas(dialect: Dialect, bodies: Sequence[BodySpec]) -> tuple[dict[int, Schema], Schema]:
    """A schema for each shape of the dialect, by the shape's identity, and the components that they refer to."""
    shapes: dict[int, Any] = {id(body.shape): body.shape for body in bodies}
    if dialect.info is not None:
        shapes[id(dialect.info.refusal)] = dialect.info.refusal
    for route in dialect.routes:
        for answer in () if route.operation is None else route.operation.responses:
            if answer.shape is not None:
                shapes[id(answer.shape)] = answer.shape
    given, found = msgspec.json.schema_components(shapes.values(), ref_template="#/components/schemas/{name}")
    names = {name: f"{dialect.name}.{_readable(schema.get('title', name))}" for name, schema in found.items()}
    assert len(set(names.values())) == len(names), "two shapes of one dialect have one name"
    schemas: Schema = {names[name]: _renamed(_tidy(schema), names) for name, schema in found.items()}
    by_shape = {key: _renamed(_tidy(one), names) for key, one in zip(shapes, given, strict=True)}
    for body in bodies:
        _require(schemas[by_shape[id(body.shape)]["$ref"].rpartition("/")[2]], _always(body, bodies))
    return by_shape, schemas


def _always(body: BodySpec, bodies: Iterable[BodySpec]) -> list[str]:
    """What every call that brings the shape has to bring."""
    alike = [other.required for other in bodies if other.shape is body.shape]
    names = [name for name in body.required if name not in body.files]
    return [name for name in names if all(name in required for required in alike)]


def _require(schema: Schema, names: Sequence[str]) -> None:
    """Mark members as required: for them ``null``, which equals absent, is no value."""
    required = dict.fromkeys((*schema.get("required", ()), *names))
    if required:
        schema["required"] = list(required)
    for name in names:
        schema["properties"][name] = _without_null(schema["properties"][name])


def _readable(title: str) -> str:
    """``Envelope[list[palaver.dialects.x.Y]]`` as ``Envelope_list_Y``."""
    return _PLAIN.sub("_", re.sub(r"(?:\w+\.)+", "", title)).strip("_")


def _tidy(schema: Any) -> Any:
    """``schema`` as people write it: what may be ``null`` has a type more, and no default that says so."""
    if isinstance(schema, list):
        return [_tidy(one) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    tidy = {name: _tidy(value) for name, value in cast("Schema", schema).items()}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = tidy["description"].replace("``", "`")  # a docstring's marks as Markdown's
    if tidy.get("required") == []:
        del tidy["required"]
    if "default" in tidy and tidy["default"] is None:
        del tidy["default"]
    options: Any = tidy.get("anyOf")
    if isinstance(options, list) and all(_is_simple(one) for one in cast("list[Any]", options)):
        del tidy["anyOf"]
        merged: Schema = {}
        for one in cast("list[Schema]", options):
            merged |= one
        tidy |= merged | {"type": [one["type"] for one in cast("list[Schema]", options)]}
    return tidy


def _is_simple(schema: Mapping[str, Any]) -> bool:
    """Whether another type may stand beside this one's, because no keyword of one is a keyword of the other."""
    return isinstance(schema.get("type"), str) and "enum" not in schema


def _without_null(schema: Schema) -> Schema:
    kinds: Any = schema.get("type")
    if isinstance(kinds, list):
        left = [kind for kind in cast("list[str]", kinds) if kind != "null"]
        return {**schema, "type": left[0] if len(left) == 1 else left}
    options: Any = schema.get("anyOf")
    if isinstance(options, list):
        some = [one for one in cast("list[Schema]", options) if one.get("type") != "null"]
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        return {**rest, **some[0]} if len(some) == 1 else {**rest, "anyOf": some}
    return schema


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(one, names) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    renamed = {name: _renamed(value, names) for name, value in cast("Schema", schema).items()}
    if "$ref" in renamed:
        prefix, _, name = cast("str", renamed["$ref"]).rpartition("/")
        renamed["$ref"] = f"{prefix}/{names[name]}"
    if "title" in renamed and isinstance(renamed["title"], str):
        del renamed["title"]
    return renamed


class RenderedDocument:
    """The document as it is sent. Only its ``servers`` depend on who asks, so only they are written anew."""

    def __init__(self, content: Schema) -> None:
        rest = {**content}
        opening = {name: rest.pop(name) for name in ("openapi", "info")}
        self._before = compact_json(opening).removesuffix(b"}") + b',"servers":[{"url":'
        self._after = b"}]," + compact_json(rest).removeprefix(b"{")

    def for_origin(self, origin: str) -> bytes:
        """For callers who reach the server at ``origin``."""
        return self._before + compact_json(origin) + self._after
