"""The page says what the code does, byte for byte."""

from __future__ import annotations

import re

import msgspec
import pytest
from dialects.native.client import EVENTS, ROOT, Caller, good
from dialects.native.page import PAGE, code, examples, without_chance
from support.http_clients import Ask
from support.live_server import Served
from support.requirements import shows
from support.survey import bare, table

from palaver.dialects.native import DIALECT, requirements
from palaver.dialects.native.errors import CODES, ProblemDocument
from palaver.dialects.native.responses import (
    AgentResponse,
    AnswerResponse,
    ConversationResponse,
    FileResponse,
    QuestionResponse,
    TurnResponse,
)
from palaver.wire.framing import compact_json

SHAPES = (
    ProblemDocument,
    AgentResponse,
    ConversationResponse,
    QuestionResponse,
    AnswerResponse,
    TurnResponse,
    FileResponse,
)


@shows(requirements.documents)
def test_the_page_lists_every_route() -> None:
    rows = [(bare(row[0]), row[4]) for row in table(PAGE, "Route")]
    routes = [
        (f"{route.method} {route.path.removeprefix(ROOT)}", "yes" if route.idempotent else "no")
        for route in DIALECT.routes
    ]
    assert rows == routes


@shows(requirements.codes)
def test_the_page_lists_every_code(served: Served) -> None:
    rows = [[bare(row[0]), *row[1:]] for row in table(PAGE, "`code`")]
    assert rows == [[name, str(one.status), one.title, one.meaning] for name, one in CODES.items()]
    listed = good(served.ask(Ask(method="GET", path=f"{ROOT}/problems")))["problems"]
    assert [[one["code"], str(one["status"]), one["title"], one["meaning"]] for one in listed] == rows


@shows(requirements.documents, requirements.problem_document)
@pytest.mark.parametrize("number", range(len(SHAPES)), ids=[shape.__name__ for shape in SHAPES])
def test_the_pages_documents_are_written_as_the_code_writes_them(number: int) -> None:
    example = examples()[number]
    assert len(examples()) == len(SHAPES)
    assert compact_json(msgspec.json.decode(example, type=SHAPES[number], strict=True)).decode() == example


@shows(requirements.frames)
def test_the_pages_stream_is_what_is_sent(served: Served, caller: Caller) -> None:
    agent = served.agent(
        {"think": "Hm."},
        {"call": {"name": "weather", "arguments": {"city": "Xi'an"}}},
        "Sunny ",
        {"wait": 0.05},
        "🌞.",
        {"usage": {"prompt": 61, "completion": 7}},
    )
    answer = caller.ask("POST", "messages", {"agent": agent.id, "content": "Weather?"}, headers=EVENTS)
    written = code("")
    assert without_chance(answer.body.decode("ascii")) == without_chance(written)
    assert not re.search(r"[^\x00-\x7e]", written)
