"""The OpenAPI 3.1 document, generated from the routes and dialects.

The schemas are those of the types that the routes declare. The error responses are the dialect's own, from ``refuse``
for every problem that the route may raise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

import palaver
from palaver.wire.contract import JSON, Dialect, Route
from palaver.wire.error_examples import ErrorExample, error_examples
from palaver.wire.framing import compact_json
from palaver.wire.operation import BodySpec, Operation, Parameter, QuerySpec, ResponseSpec, SecurityScheme

Schema = dict[str, Any]
_SEGMENT = re.compile(r"\{(\w+)\}")
_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_IDEMPOTENCY = Parameter(
    name="Idempotency-Key",
    meaning="Repeating a request with the same key returns the response to the first one, without executing it again.",
    shape=Annotated[str, Meta(pattern="^[!-~]{1,255}$")],
)
_HEADERS = {"Retry-After": "Seconds to wait."}
_INFO = {
    "title": "palaver",
    "summary": "One self-hosted agent server that speaks several vendors' documented chat APIs.",
    "description": (
        "Each tag is one vendor's API, called a dialect. All of them reach the same agents and conversations.\n\n"
        "Requests are parsed leniently: members that are not listed are ignored, and `null` equals absent."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


def build_document(dialects: Sequence[Dialect]) -> Schema:
    """The document without ``servers``, which depends on the request."""
    paths: dict[str, Schema] = {}
    schemas: Schema = {}
    schemes: Schema = {}
    examples: Schema = {}
    for dialect in dialects:
        section = _DialectSection(dialect)
        for route in dialect.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = section.operation(route)
        schemas |= section.schemas
        examples |= section.examples
        schemes |= _schemes(dialect)
    return {
        "openapi": "3.1.0",
        "info": {**_INFO, "version": palaver.__version__},
        "tags": [_tag(dialect) for dialect in dialects],
        "paths": paths,
        "components": {"schemas": schemas, "examples": examples, "securitySchemes": schemes},
    }


def _tag(dialect: Dialect) -> Schema:
    info = dialect.info
    if info is None:
        return {"name": dialect.name}
    return {"name": dialect.name, "description": f"**{info.title}.** {info.meaning}"}


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
    """The operations of one dialect, and the components that they refer to."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        bodies = _bodies(dialect)
        self._shapes, self.schemas = _schemas(dialect, bodies)
        # The schema of a form is inline, because it includes files: not a component.
        forms = {id(body.shape): self._name(body) for body in bodies if body.files}
        self._forms = {shape: self.schemas.pop(name) for shape, name in forms.items()}
        self.examples: Schema = {}
        self._example_of: dict[tuple[str, bytes], str] = {}

    def operation(self, route: Route) -> Schema:
        spec = route.operation or Operation(source="")
        operation: Schema = {
            "operationId": _operation_id(self._dialect, route),
            "tags": [self._dialect.name],
            "summary": route.summary,
        }
        if description := _description(spec):
            operation["description"] = description
        if parameters := [*self._parameters(route), *self._query_parameters(spec.query)]:
            operation["parameters"] = parameters
        if spec.body is not None:
            operation["requestBody"] = self._body(spec.body)
        return operation | {"responses": self._responses(route, spec), "security": self._security(route, spec)}

    # Requests ------------------------------------------------------------------------------------------------------

    def _parameters(self, route: Route) -> list[Schema]:
        info = self._dialect.info
        described = {} if info is None else {parameter.name: parameter for parameter in info.path}
        names = _SEGMENT.findall(route.path)
        parameters = [
            {**_parameter(described.get(name, Parameter(name=name, meaning="")), "path"), "required": True}
            for name in names
        ]
        if info is not None and not route.public:
            parameters += [_parameter(header, "header") for header in info.headers]
        return [*parameters, _parameter(_IDEMPOTENCY, "header")] if route.idempotent else parameters

    def _query_parameters(self, query: QuerySpec | None) -> list[Schema]:
        if query is None or query.shape is None:
            return []
        members: Schema = _tidy(msgspec.json.schema(query.shape))["$defs"][query.shape.__name__]["properties"]
        parameters: list[Schema] = []
        for name in [name for name in members if name not in query.without]:
            schema = _without_null(members[name])
            parameter: Schema = {"name": name, "in": "query", "required": name in query.required}
            if "description" in schema:
                parameter["description"] = schema.pop("description")
            parameter["schema"] = schema
            if name in query.example:
                parameter["example"] = query.example[name]
            parameters.append(parameter)
        return parameters

    def _security(self, route: Route, spec: Operation) -> list[Schema]:
        if route.public or self._dialect.info is None:
            return []
        groups = self._dialect.info.needs if spec.needs is None else spec.needs
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
            schema = self.schemas[self._name(body)]
            properties = {name: member for name, member in schema["properties"].items() if name not in body.without}
            return {**schema, "properties": properties, "required": list(body.required)}
        always_required = self.schemas[self._name(body)].get("required", [])
        required = [name for name in body.required if name not in always_required]
        return {"allOf": [reference, {"required": required}]} if required else reference

    def _form(self, body: BodySpec) -> Schema:
        """The schema of a form, with its files, which are not part of the shape."""
        schema: Schema = self._forms[id(body.shape)]
        files = {name: {"type": "string", "format": "binary"} for name in body.files}
        return {**schema, "properties": {**files, **schema["properties"]}, "required": list(body.required)}

    def _name(self, body: BodySpec) -> str:
        """The component name of the body's shape."""
        return self._shapes[id(body.shape)]["$ref"].rpartition("/")[2]

    # Responses -----------------------------------------------------------------------------------------------------

    def _responses(self, route: Route, spec: Operation) -> Schema:
        errors = error_examples(self._dialect, route)
        responses: Schema = {}
        if route.operation is None:
            responses["200"] = {"description": "See the vendor's page."}
        for status in sorted({response.status for response in spec.responses} | {one.reply.status for one in errors}):
            specs = [response for response in spec.responses if response.status == status]
            responses[str(status)] = self._response(specs, [one for one in errors if one.reply.status == status])
        return responses

    def _response(self, specs: Sequence[ResponseSpec], errors: Sequence[ErrorExample]) -> Schema:
        response: Schema = {"description": _meaning(specs, errors)}
        if headers := _headers(specs, errors):
            response["headers"] = headers
        media_types = [_bare(one.media_type) for one in (*specs, *(error.reply for error in errors))]
        content = {
            media_type: self._content(
                [spec for spec in specs if _bare(spec.media_type) == media_type],
                [error for error in errors if _bare(error.reply.media_type) == media_type],
                media_type,
            )
            for media_type in dict.fromkeys(media_types)
            if media_type
        }
        return response | ({"content": content} if content else {})

    def _content(self, specs: Sequence[ResponseSpec], errors: Sequence[ErrorExample], media_type: str) -> Schema:
        shapes: list[Schema] = [self._shapes[id(one.shape)] for one in specs if one.shape is not None]
        if errors and _is_json(media_type) and self._dialect.info is not None:
            shapes.append(self._shapes[id(self._dialect.info.refusal)])
        shapes = [shape for at, shape in enumerate(shapes) if shape not in shapes[:at]]
        content: Schema = {}
        if shapes:
            content["schema"] = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        elif media_type == "text/html":  # not for streams: some tools apply a schema to each event, others to the whole
            content["schema"] = {"type": "string"}
        examples = {name: {"value": value} for spec in specs for name, value in spec.examples.items()}
        examples |= {name: {"$ref": f"#/components/examples/{name}"} for name in map(self._example, errors)}
        return content | ({"examples": examples} if examples else {})

    def _example(self, error: ErrorExample) -> str:
        """The component name of the example; equal examples share one."""
        key = (error.reply.media_type, error.reply.body)
        if key not in self._example_of:
            name = base = f"{self._dialect.name}.{_PLAIN.sub('-', error.name)}"
            number = 1
            while name in self.examples:
                number += 1
                name = f"{base}-{number}"
            text = error.reply.body.decode()
            value = msgspec.json.decode(text) if _is_json(_bare(error.reply.media_type)) else text
            self.examples[name] = {"summary": error.name, "value": value}
            self._example_of[key] = name
        return self._example_of[key]


def _operation_id(dialect: Dialect, route: Route) -> str:
    """A name for generated code: unique, because method and path are."""
    path = _SEGMENT.sub(r"by_\1", route.path)
    slash = "_" if route.path.endswith("/") else ""
    return f"{dialect.name}_{route.method.lower()}_{_PLAIN.sub('_', path).strip('_')}{slash}"


def _description(spec: Operation) -> str:
    source = f"Source: {spec.source}." if spec.source else ""
    return "\n\n".join(filter(None, (spec.more, source)))


def _headers(specs: Sequence[ResponseSpec], errors: Sequence[ErrorExample]) -> Schema:
    """The documented headers, then those of the error examples."""
    headers: Schema = {
        "X-Request-ID": {
            "description": "The request's id, sent by the caller or generated.",
            "schema": {"type": "string"},
        }
    }
    for header in (header for spec in specs for header in spec.headers):
        parameter = _parameter(header, "header")
        headers.setdefault(parameter.pop("name"), {name: value for name, value in parameter.items() if name != "in"})
    for name in sorted({name for error in errors for name, _ in error.reply.headers}):
        headers.setdefault(name, {"description": _HEADERS.get(name, ""), "schema": {"type": "string"}})
    return headers


def _meaning(specs: Sequence[ResponseSpec], errors: Sequence[ErrorExample]) -> str:
    meanings = [spec.meaning for spec in specs]
    if errors:
        names = sorted({error.name.partition(",")[0] for error in errors})
        meanings.append(f"Error: {', '.join(names)}.")
    return " ".join(dict.fromkeys(meanings))


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip()


def _is_json(media_type: str) -> bool:
    return media_type == JSON or media_type.endswith("+json")


def _parameter(parameter: Parameter, location: str) -> Schema:
    content: Schema = {"name": parameter.name, "in": location}
    if parameter.meaning:
        content["description"] = parameter.meaning
    content["schema"] = _tidy(msgspec.json.schema(parameter.shape))
    return content if parameter.example is None else {**content, "example": parameter.example}


# Schemas ------------------------------------------------------------------------------------------------------------


def _bodies(dialect: Dialect) -> list[BodySpec]:
    """The bodies that have a shape."""
    bodies = [route.operation.body for route in dialect.routes if route.operation is not None]
    return [body for body in bodies if body is not None and body.shape is not None]


def _schemas(dialect: Dialect, bodies: Sequence[BodySpec]) -> tuple[dict[int, Schema], Schema]:
    """The schema of each shape of the dialect, by the shape's identity, and the components that they refer to."""
    shapes: dict[int, Any] = {id(body.shape): body.shape for body in bodies}
    if dialect.info is not None:
        shapes[id(dialect.info.refusal)] = dialect.info.refusal
    for route in dialect.routes:
        for response in () if route.operation is None else route.operation.responses:
            if response.shape is not None:
                shapes[id(response.shape)] = response.shape
    in_order, components = msgspec.json.schema_components(shapes.values(), ref_template="#/components/schemas/{name}")
    names = {name: f"{dialect.name}.{_readable(schema.get('title', name))}" for name, schema in components.items()}
    assert len(set(names.values())) == len(names), "two shapes of one dialect have the same name"
    schemas: Schema = {names[name]: _renamed(_tidy(schema), names) for name, schema in components.items()}
    by_shape = {key: _renamed(_tidy(schema), names) for key, schema in zip(shapes, in_order, strict=True)}
    for body in bodies:
        _require(schemas[by_shape[id(body.shape)]["$ref"].rpartition("/")[2]], _always_required(body, bodies))
    return by_shape, schemas


def _always_required(body: BodySpec, bodies: Iterable[BodySpec]) -> list[str]:
    """The members required by every operation that has the body's shape."""
    required_by = [other.required for other in bodies if other.shape is body.shape]
    names = [name for name in body.required if name not in body.files]
    return [name for name in names if all(name in required for required in required_by)]


def _require(schema: Schema, names: Sequence[str]) -> None:
    """Mark members as required. They do not accept ``null``, which equals absent."""
    required = dict.fromkeys((*schema.get("required", ()), *names))
    if required:
        schema["required"] = list(required)
    for name in names:
        schema["properties"][name] = _without_null(schema["properties"][name])


def _readable(title: str) -> str:
    """``Envelope[list[palaver.dialects.x.Y]]`` as ``Envelope_list_Y``."""
    return _PLAIN.sub("_", re.sub(r"(?:\w+\.)+", "", title)).strip("_")


def _tidy(schema: Any) -> Any:
    """``schema`` in its usual form: nullable members have ``null`` among their types, and no default ``null``."""
    if isinstance(schema, list):
        return [_tidy(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    tidy = {name: _tidy(value) for name, value in cast("Schema", schema).items()}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = tidy["description"].replace("``", "`")  # docstring markup as Markdown
    if tidy.get("required") == []:
        del tidy["required"]
    if "default" in tidy and tidy["default"] is None:
        del tidy["default"]
    options: Any = tidy.get("anyOf")
    if isinstance(options, list) and all(map(_is_simple, cast("list[Any]", options))):
        del tidy["anyOf"]
        merged: Schema = {}
        for option in cast("list[Schema]", options):
            merged |= option
        tidy |= merged | {"type": [option["type"] for option in cast("list[Schema]", options)]}
    return tidy


def _is_simple(schema: Mapping[str, Any]) -> bool:
    """Whether the schema can be merged with one of another type: their keywords do not conflict."""
    return isinstance(schema.get("type"), str) and "enum" not in schema


def _without_null(schema: Schema) -> Schema:
    types: Any = schema.get("type")
    if isinstance(types, list):
        others = [name for name in cast("list[str]", types) if name != "null"]
        return {**schema, "type": others[0] if len(others) == 1 else others}
    options: Any = schema.get("anyOf")
    if isinstance(options, list):
        others = [option for option in cast("list[Schema]", options) if option.get("type") != "null"]
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        return {**rest, **others[0]} if len(others) == 1 else {**rest, "anyOf": others}
    return schema


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in cast("list[Any]", schema)]
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
    """The encoded document. Only its ``servers`` depend on the request, so only they are encoded per request."""

    def __init__(self, content: Schema) -> None:
        rest = {**content}
        opening = {name: rest.pop(name) for name in ("openapi", "info")}
        self._before = compact_json(opening).removesuffix(b"}") + b',"servers":[{"url":'
        self._after = b"}]," + compact_json(rest).removeprefix(b"{")

    def for_origin(self, origin: str) -> bytes:
        """The document for a caller that uses ``origin`` as the base URL."""
        return self._before + compact_json(origin) + self._after
