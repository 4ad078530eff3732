"""What a client's author would notice."""

from __future__ import annotations

from dialects.wps.client import Caller, spoken
from dialects.wps.test_tokens import BACK, code, exchange, failed, granted
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.wps import requirements


@shows(requirements.chat_id_is_last)
def test_every_message_of_a_stream_ends_with_its_chat_id(served: Served, caller: Caller) -> None:
    answer = caller.begin(served.agent("one two three")).answer()
    messages = [one["data"] for one in spoken(answer.writes) if one["event"] in {"add_message", "token"}]
    assert len(messages) > 2
    assert {list(message)[-1] for message in messages} == {"chat_id"}
    assert {message["chat_id"] for message in messages} == {answer.header("X-Chat-Id")}


@shows(requirements.no_later_form)
def test_no_spelling_of_the_call_streams_the_later_form(served: Served, caller: Caller) -> None:
    agent = served.agent("one two three")
    for path in ("/v7/devhub/apps/{}/chats/create", "/v7/sse/devhub/apps/{}/chats/create"):
        events = spoken(caller.post(path.format(agent.uid), {"text": "hi", "stream": True}).writes)
        assert events[-1] == {"event": "end", "data": {}}
        assert [one for one in events if {"role", "type"} & set(one["data"])] == []


@shows(requirements.members_without_effect)
def test_a_ticket_and_a_company_change_nothing_of_a_token(served: Served) -> None:
    key = served.key("wps", default_user="shop")
    plain = granted(exchange(served, key, grant_type="client_credentials"))
    more = granted(exchange(served, key, grant_type="client_credentials", app_ticket="x", company_id="y"))
    assert plain.pop("access_token") != more.pop("access_token")
    assert plain == more


@shows(requirements.tried_codes_are_used_up)
def test_a_code_that_somebody_else_tried_is_used_up(served: Served) -> None:
    key, other = (served.key("wps", redirect_uris=[BACK], auto_approve_user="ann") for _ in range(2))
    for caller, address in ((other, BACK), (key, "http://127.0.0.1:9/other")):
        fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
        failed(exchange(served, caller, **{**fields, "redirect_uri": address}), "invalid_grant")
        failed(exchange(served, key, **fields), "invalid_grant")
