"""A stream says the same to a reader that gets it byte by byte and to one that gets it all at once."""

from __future__ import annotations

import json

import pytest
from support.adapters import STREAM_FORMS
from support.http_clients import Answer
from support.live_server import APPLICATION, Served, Step
from support.stream_forms import FAILING, QUESTION, SAID, SPOKEN, StreamForm, said, split

from palaver.core.types import Agent
from palaver.knowledge.ingest import ingest

SETTINGS = {"heartbeat_s": 0.05}
SCRIPTS: dict[str, tuple[Step, ...]] = {
    "ends well": (*SPOKEN[:2], {"wait": 0.15}, *SPOKEN[2:]),
    "fails": FAILING,
    "fails at once": ({"fail": "connect"},),
}


@pytest.fixture(scope="module")
def base(served: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A knowledge base that has something to say to the question."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "苹果.md").write_text("# 苹果 🍎\n\n苹果在地窖里放三个月。\n", encoding="utf-8")

    async def add() -> None:
        application = await served.core.store.applications.get_or_create(APPLICATION)
        await ingest(served.core.store.knowledge, application.id, "苹果", [folder], lambda _: None)

    served.do(add())
    return "苹果"


@pytest.fixture(params=SCRIPTS)
def agent(request: pytest.FixtureRequest, served: Served, base: str) -> Agent:
    return served.agent(*SCRIPTS[request.param], name=request.param, knowledge=(base,))


def heard(served: Served, form: StreamForm, agent: Agent, at_once: int) -> Answer:
    ask = form.ask(served, agent)
    with served.connection(at_once=at_once) as connection:
        connection.send(ask)
        answer = connection.answer()
    assert answer.status == 200, answer.body
    assert answer.complete or form.aborts_on_failure
    return answer


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
def test_a_stream_says_the_same_at_any_pace(served: Served, form: StreamForm, agent: Agent) -> None:
    slow, fast = (heard(served, form, agent, at_once) for at_once in (1, 1 << 20))
    by_byte = said(split((slow.body[at : at + 1] for at in range(len(slow.body))), form.mark))
    assert by_byte == said(split([fast.body], form.mark))
    assert slow.complete == fast.complete
    text = json.dumps(by_byte, ensure_ascii=False)
    if agent.name != "fails at once":
        assert json.dumps(SAID, ensure_ascii=False)[1:-1] in text
        assert "再说一遍：🍎🍏。" in text
    if form.name.startswith(("wps", "xspace")):
        assert "knowledge_search" in text
        assert QUESTION in text


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
def test_each_write_is_one_event(served: Served, form: StreamForm, agent: Agent) -> None:
    """Some readers cut where chunks end."""
    writes = heard(served, form, agent, 1 << 20).writes
    assert all(write.count(form.mark) == 1 and write.endswith(form.mark) for write in writes), form.name
    assert said(split(writes, form.mark)) == said(write.removesuffix(form.mark) for write in writes if write.strip())
