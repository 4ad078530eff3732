"""What is being answered ends with the credential or the token that it is answered to, however that one ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from dialects.native import client as native
from dialects.snail import client as snail
from dialects.snail import client_b as snail_b
from dialects.snail import client_c as snail_c
from dialects.test_tokens_end import rotated
from dialects.wps import client as wps
from dialects.wps.contract_adapter import CHAT
from dialects.xspace import client as xspace
from dialects.xspace.test_files import send
from support.adapters import STREAM_FORMS
from support.http_clients import Ask, Exchange
from support.live_server import HOLD, Served
from support.stream_forms import StreamForm

from palaver.core.types import Agent, ApiKey
from palaver.dialects.snail.auth import LEEWAY_S, embed_token
from palaver.dialects.wps.auth import SCOPES

LIFE_S = 1.5
"""Seconds for which a credential or a token of a test is good."""
WITHIN = 1.0
"""Seconds after its end in which a stream ends."""
UNSIGNED = {"X-Kso-Date": "", "X-Kso-Authorization": ""}


def newest(served: Served) -> ApiKey:
    """The credential that was made last."""
    (row,) = served.sql("SELECT app, number FROM credential ORDER BY number DESC LIMIT 1")
    key = served.do(served.core.store.keys.get_by_number(row["app"], row["number"]))
    assert key is not None
    return key


def opened(served: Served, ask: Ask) -> Exchange:
    stream = served.exchange(ask)
    assert stream.head().status == 200
    return stream


# By themselves ------------------------------------------------------------------------------------------------------


def _wps_token(served: Served, agent: Agent, until: float) -> Ask:
    key = served.key("wps", require_signature=False)
    issued = served.core.services.users.issue_token(key, "access", "ann", SCOPES, life_s=until - time.time())
    caller = wps.Caller(served, key, token=served.do(issued))
    body = {"text": "hi", "stream": True}
    return caller.request("POST", CHAT.format(agent.uid), body, headers=UNSIGNED)


def _snail_jwt(served: Served, agent: Agent, until: float) -> Ask:
    caller = snail.Caller(served)
    token = snail.jwt({"appId": caller.key.id, "exp": until - LEEWAY_S}, caller.key.secret)
    ask = caller.request(snail.Caller.members(agent, "hi"))
    others = [(name, value) for name, value in ask.headers if name != "Snail-Ai-Auth"]
    return Ask(path=ask.path, body=ask.body, headers=[*others, ("Snail-Ai-Auth", token)])


def _embed_token(served: Served, agent: Agent, until: float) -> Ask:
    program = snail_b.Caller(served)
    token = embed_token(program.key, program.register(), int(until) - LEEWAY_S, None)
    page = snail_c.Browser(served, token)
    return page.request("POST", snail_c.COMPLETIONS, body={"agentId": agent.id, "content": "hi"})


def _xspace_key(served: Served, agent: Agent, until: float) -> Ask:
    caller = xspace.Caller(served, expire=datetime.fromtimestamp(until, UTC).isoformat())
    return caller.request("POST", xspace.chat_path(caller.add(agent)), {"message": "hi"})


def _agent_bound_key(served: Served, agent: Agent, until: float) -> Ask:
    expire = datetime.fromtimestamp(until, UTC).isoformat()
    caller = xspace.Caller(served, kind="agent", agent=str(agent.uid), expire=expire)
    return caller.request("POST", "/api/v1/chat", {"message": "hi", "conversationId": caller.add(agent)})


LIVES: dict[str, Callable[[Served, Agent, float], Ask]] = {
    "wps, access token": _wps_token,
    "snail, JWT": _snail_jwt,
    "snail, embed token": _embed_token,
    "xspace, key": _xspace_key,
    "xspace, agent-bound key": _agent_bound_key,
}


@pytest.mark.parametrize("made", LIVES.values(), ids=LIVES)
def test_a_stream_ends_when_the_key_or_the_token_expires(
    served: Served, made: Callable[[Served, Agent, float], Ask]
) -> None:
    until = float(int(time.time()) + 2)
    ask = made(served, served.agent({"text": "well"}, HOLD), until)
    stream = opened(served, ask)
    stream.rest()
    assert not stream.complete
    assert until <= time.time() < until + WITHIN
    (row,) = served.sql("SELECT status FROM message WHERE status IS NOT NULL ORDER BY id DESC LIMIT 1")
    assert row["status"] == "live", "the run goes on"
    assert b"well" not in served.ask(ask).body


def test_a_key_that_is_given_an_end_ends_its_open_streams_then(served: Served) -> None:
    ask = _xspace_key(served, served.agent({"text": "well"}, HOLD), time.time() + 3600)
    stream, until = opened(served, ask), time.time() + LIFE_S
    settings = {"expire": datetime.fromtimestamp(until, UTC).isoformat()}
    served.do(served.core.store.keys.update(newest(served), settings, enabled=True, label=""))
    stream.rest()
    assert not stream.complete
    assert until <= time.time() < until + WITHIN


def test_who_waits_for_a_whole_answer_hears_that_the_key_has_ended(served: Served) -> None:
    caller = native.Caller(served)
    rotated(served, caller.key, overlap_s=LIFE_S)
    until = time.time() + LIFE_S
    answer = caller.ask("POST", "messages", {"agent": served.agent(HOLD).id, "content": "hi"})
    native.problem(answer, 401, "unauthenticated")
    assert abs(time.time() - until) < WITHIN


def test_a_download_ends_with_the_token_in_its_address(served: Served) -> None:
    caller = xspace.Caller(served)
    size = 64 * 1024 * 1024
    path = urlsplit(str(xspace.data(send(caller, bytes(size)))["url"])).path
    key, name = caller.key, path.removeprefix("/api/f/")
    token = served.core.services.users.sign_token(key, "file", "default", (name,), life_s=LIFE_S)
    until = time.time() + LIFE_S
    with served.connection() as connection:
        connection.send(Ask(method="GET", path=path, query=f"ak={token}"))
        assert connection.head().status == 200
        while time.time() < until + 0.2:
            connection.hear(1024)
            time.sleep(0.05)
        assert len(connection.to_the_end()) < size / 2


# By their operator --------------------------------------------------------------------------------------------------


def _disable(served: Served, key: ApiKey) -> None:
    served.do(served.core.store.keys.set_enabled(key.id, enabled=False))


def _set_disabled(served: Served, key: ApiKey) -> None:
    served.do(served.core.store.keys.update(key, key.settings, enabled=False, label=""))


def _delete(served: Served, key: ApiKey) -> None:
    served.do(served.core.store.keys.delete(key))


ENDS: dict[str, Callable[[Served, ApiKey], None]] = {
    "disabled": _disable,
    "set to disabled": _set_disabled,
    "deleted": _delete,
    "rotated": rotated,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("form", STREAM_FORMS, ids=[form.name for form in STREAM_FORMS])
def test_a_stream_ends_when_its_credential_does(
    served: Served, form: StreamForm, end: Callable[[Served, ApiKey], None]
) -> None:
    stream = opened(served, form.ask(served, served.agent({"text": "well"}, HOLD)))
    end(served, newest(served))
    stream.rest()
    assert not stream.complete


@pytest.mark.parametrize("form", STREAM_FORMS, ids=[form.name for form in STREAM_FORMS])
def test_a_stream_ends_with_the_overlap_of_a_rotation(served: Served, form: StreamForm) -> None:
    ask = form.ask(served, served.agent({"text": "well"}, HOLD))
    key = newest(served)
    before = opened(served, ask)
    rotated(served, key, overlap_s=LIFE_S)
    until = served.sql("SELECT previous_until FROM credential WHERE number = $1", key.number)[0]["previous_until"]
    within = opened(served, ask)
    for stream in (before, within):
        stream.rest()
        assert not stream.complete
        assert until <= datetime.now(UTC) < until + timedelta(seconds=WITHIN)
