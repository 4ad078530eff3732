"""The OpenAPI document against a server: whatever is asked by it, the server answers as it says."""

from __future__ import annotations

import copy
import re
from collections.abc import Generator
from contextlib import nullcontext, suppress
from typing import Any, cast

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from support.contract import DIALECTS
from support.live_server import Served
from support.signers import Callers

from palaver.wire.contract import JSON
from palaver.wire.operation import Operation as Told

_tool: Any = schemathesis  # its types are as open as the documents it reads
Case = Any
Operation = Any
ANSWERED_AS_SAID = [
    _tool.checks.not_a_server_error,
    _tool.checks.status_code_conformance,
    _tool.checks.content_type_conformance,
    _tool.checks.response_schema_conformance,
]
TIMEOUT = 20.0


@pytest.fixture(scope="module")
def callers(served: Served) -> Callers:
    return Callers(served, served.agent("It is ", "sunny."))


@pytest.fixture(scope="module")
def session() -> Generator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def _name(members: Any, there: dict[str, Any]) -> None:
    """Put what is there in the place of every name that ``members`` has for such a thing."""
    if isinstance(members, dict):
        known = cast("dict[str, Any]", members)
        known.update({name: there[name] for name in known if name in there})


class Asking:
    """Cases of one dialect's operations, sent as they are or about something that is there."""

    def __init__(self, dialect: str, callers: Callers, session: requests.Session, *, signed: bool = True) -> None:
        self.dialect = dialect
        self._callers = callers
        self._session = session
        self._signed = signed
        address = f"{callers.served.base_url}/openapi.json?dialect={dialect}"
        schema = _tool.openapi.from_dict(session.get(address, timeout=TIMEOUT).json())
        schema.validate()
        self.operations: list[Operation] = [found.ok() for found in schema.get_all_operations()]

    def there(self) -> dict[str, Any]:
        """What names something that is there, by the member that names it."""
        conversation, agent = self._callers.conversation(), self._callers.agent
        named = agent.id if self.dialect in {"snail", "xspace"} else str(agent.uid)
        place = conversation.id if self.dialect == "xspace" else str(conversation.uid)
        return {
            **dict.fromkeys(("conversationId", "session_id", "id"), place),
            "agentId": named,
            "app_id": str(agent.uid),
            "agent": agent.id,
            "conversation": conversation.id,
            "uid": self._callers.run(conversation).hex if self.dialect == "native" else None,
            "openId": "ann",
            "client_id": self._callers.keys["wps"].id,
            "client_secret": self._callers.keys["wps"].secret,
        }

    def send(self, case: Case, there: dict[str, Any] | None = None) -> requests.Response:
        """The answer to the case, with the names of ``there`` in it where it names something."""
        if there is not None:
            for members in (case.path_parameters, case.query, case.body):
                _name(members, there)
        arguments = case.as_transport_kwargs(base_url=self._callers.served.base_url)
        request = requests.Request(**{name: arguments[name] for name in arguments if name in _OF_A_REQUEST}).prepare()
        if self._signed:
            self._callers.sign(self.dialect, request)
        response = self._session.send(request, timeout=TIMEOUT, allow_redirects=False)
        case.validate_response(response, checks=ANSWERED_AS_SAID)
        return response

    def example(self, operation: Operation) -> Case:
        """The call that the document gives as an example, the last one where there are several."""
        raw: dict[str, Any] = operation.definition.raw
        content = next(iter(raw.get("requestBody", {}).get("content", {}).items()), None)
        parameters: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for parameter in raw.get("parameters", []):
            if "example" in parameter and parameter["in"] in parameters:
                parameters[parameter["in"]][parameter["name"]] = parameter["example"]
        more: dict[str, Any] = {}
        if content is not None and "examples" in content[1]:
            named = list(content[1]["examples"].values())
            more = {"body": copy.deepcopy(named[-1]["value"]), "media_type": content[0]}
        return operation.Case(path_parameters=parameters["path"], query=parameters["query"], **more)


_OF_A_REQUEST = {"method", "url", "headers", "files", "data", "params", "cookies", "json"}
NOT_THERE = {
    ("POST", "/snail-ai/open-api/rag/search"): "there is no knowledge base",
    ("POST", "/api/snail/chat/session"): "there is no embed token",
    ("POST", "/v1/chat/image"): "nothing paints here",
    ("POST", "/v1/chat/tts"): "nothing speaks here",
    ("GET", "/saas/voice-broadcast/{name}"): "nothing was spoken",
    ("GET", "/api/v1/chat/{conversationId}/file/{path}"): "there is no file",
    ("GET", "/api/v1/chat/{conversationId}/file/"): "is always refused",
    ("GET", "/api/f/{storage}/{target}/{day}/{name}"): "there is no file",
    ("GET", "/api/v1/file/ak"): "there is no file",
    ("POST", "/api/v1/file/upload"): "its own test uploads",
    ("POST", "/palaver/v1/files"): "its own test uploads",
    ("GET", "/palaver/v1/files/{key}"): "there is no file",
    ("DELETE", "/palaver/v1/files/{key}"): "there is no file",
}
"""Operations whose examples are refused, and why."""


GOOD = {(1, 1), (10200, None), (0, None), ("0000", None)}
"""``code`` and ``status`` of good answers; Snail has both."""


_REFUSED = re.compile(r'event: ?error|"type": ?"error"|"error": ?(?:true|")')
"""What a stream says of a failure."""


def told_of(dialect: str, operation: Operation) -> Told:
    """What the operation's route says of itself."""
    title = (operation.method.upper(), operation.path)
    return next(one.operation for one in DIALECTS[dialect].routes if (one.method, one.path) == title and one.operation)


def nothing_like(kind: Any) -> Any:
    """A value that cannot be read as a field's kind."""
    return ["x"] if "dict[" in str(kind) and "list[" not in str(kind) else {"x": "y"}


def went_well(response: requests.Response) -> bool:
    """Whether the answer is no refusal, in any dialect's words."""
    if response.headers.get("Content-Type") != "application/json":
        refused = _REFUSED.search(response.text) or "error=" in response.headers.get("Location", "")
        return response.status_code < 400 and not refused
    body = response.json()
    return response.status_code < 400 and ("code" not in body or (body["code"], body.get("status")) in GOOD)


def documented(asking: Asking) -> list[Operation]:
    """The operations of the dialect that can go well here."""
    return [one for one in asking.operations if (one.method.upper(), one.path) not in NOT_THERE]


ALLOWED, FORBIDDEN = _tool.GenerationMode.POSITIVE, _tool.GenerationMode.NEGATIVE


def explore(asking: Asking, operation: Operation, *, examples: int, what: Any = ALLOWED) -> None:
    """Send what the operation's description allows, or forbids, about what there is and about what there is not."""
    there = asking.there()

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=what), real=st.integers(0, 2))
    def send(case: Case, real: int) -> None:
        asking.send(case, there if real else None)

    with suppress(Unsatisfiable) if what is FORBIDDEN else nullcontext():  # not every operation forbids something
        send()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_call_that_the_document_allows_is_answered_as_it_says(
    dialect: str, callers: Callers, session: requests.Session
) -> None:
    asking = Asking(dialect, callers, session)
    for operation in asking.operations:
        explore(asking, operation, examples=3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_call_that_the_document_does_not_allow_is_answered_as_it_says(
    dialect: str, callers: Callers, session: requests.Session
) -> None:
    asking = Asking(dialect, callers, session)
    for operation in asking.operations:
        explore(asking, operation, examples=1, what=FORBIDDEN)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_call_without_a_credential_is_answered_as_it_says(
    dialect: str, callers: Callers, session: requests.Session
) -> None:
    asking = Asking(dialect, callers, session, signed=False)
    for operation in asking.operations:
        explore(asking, operation, examples=1)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_example_of_a_call_goes_well(dialect: str, callers: Callers, session: requests.Session) -> None:
    asking = Asking(dialect, callers, session)
    for operation in documented(asking):
        response = asking.send(asking.example(operation), asking.there())
        assert went_well(response), (operation.label, response.text)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_documented_as_required_is(dialect: str, callers: Callers, session: requests.Session) -> None:
    asking = Asking(dialect, callers, session)
    for operation in documented(asking):
        there, documented_statuses = asking.there(), told_of(dialect, operation)
        for place, brought in (("body", documented_statuses.body), ("query", documented_statuses.query)):
            for name in () if brought is None else brought.required:
                lacking = asking.example(operation)
                del getattr(lacking, place)[name]
                response = asking.send(lacking, there)
                assert not went_well(response), (operation.label, name, response.text)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_documented_member_of_a_body_is_read_as_what_it_is_documented_as(
    dialect: str, callers: Callers, session: requests.Session
) -> None:
    asking = Asking(dialect, callers, session)
    for operation in documented(asking):
        body, there = told_of(dialect, operation).body, asking.there()
        if body is None or body.shape is None or body.media_type != JSON:
            continue
        for field in msgspec.structs.fields(body.shape):
            if field.encode_name in body.without:
                continue
            wrong = asking.example(operation)
            wrong.body[field.encode_name] = nothing_like(field.type)
            response = asking.send(wrong, {name: one for name, one in there.items() if name != field.encode_name})
            assert not went_well(response), (operation.label, field.encode_name, response.text)
