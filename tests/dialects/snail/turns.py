"""Messages in one conversation, stops, and failed turns. Only deleting the conversation stops a run: the vendor's pages
and SDK close the connection instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.snail import client as snail_a
from dialects.snail import client_b as snail
from dialects.snail import client_c as snail_c
from support.http_clients import Ask
from support.live_server import Served
from support.turns import FIRST_MESSAGE, USER, FailedTurnForm, MessageForm, StopForm, StoppableStream

from palaver.core.types import Agent


def _stop(served: Served, agent: Agent) -> StoppableStream:
    caller = snail.Caller(served)
    conversation = {"agentId": agent.id, "openId": caller.register(USER), "conversationId": "to be deleted"}
    stream = served.exchange(
        caller.request("POST", snail.CHAT, {**conversation, "content": "hi"}, headers=snail.EVENTS)
    )
    stream.head()
    return StoppableStream(stream, lambda: snail.good(caller.delete(snail.CONVERSATIONS, **conversation)))


def _messages_a(accept: str) -> Callable[..., Callable[[str], Ask]]:
    def messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
        caller, conversation = snail_a.Caller(served, served.key("snail", **settings)), served.new_name("conversation")
        return lambda text: caller.request(
            caller.members(agent, text, conversationId=conversation), headers={"Accept": accept}
        )

    return messages


def _messages_b(path: str) -> Callable[..., Callable[[str], Ask]]:
    def messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
        caller = snail.Caller(served, **settings)
        conversation = {
            "agentId": agent.id,
            "openId": caller.register(),
            "conversationId": served.new_name("conversation"),
        }
        paths = {FIRST_MESSAGE: snail.CHAT}
        return lambda text: caller.request(
            "POST", paths.get(text, path), {**conversation, "content": text}, headers=snail.EVENTS
        )

    return messages


def _messages_c(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
    program = snail.Caller(served, **settings)
    browser = snail_c.Browser(served, snail_c.token(program.key, program.register()))
    conversation = {"agentId": agent.id, "conversationId": served.new_name("conversation")}
    return lambda text: browser.request("POST", snail_c.COMPLETIONS, body={**conversation, "content": text})


def _failed_turn_b(path: str) -> Callable[[Served, Agent], tuple[str, bool]]:
    def read(served: Served, agent: Agent) -> tuple[str, bool]:
        caller = snail.Caller(served)
        conversation = {
            "agentId": agent.id,
            "openId": caller.register(),
            "conversationId": served.new_name("conversation"),
        }
        caller.post(path, **conversation, content="hi")
        answer = snail.good(caller.get(snail.MESSAGES, **conversation))[-1]
        return answer["content"], answer["status"] == 0

    return read


def _failed_turn_a_and_c(served: Served, agent: Agent) -> tuple[str, bool]:
    caller, conversation = snail_a.Caller(served), served.new_name("conversation")
    caller.say(agent, conversationId=conversation)
    browser = snail_c.Browser(served, snail_c.token(caller.key, snail_a.USER))
    answer = snail.good(browser.get(f"{snail_c.C}/messages", agentId=agent.id, conversationId=conversation))[-1]
    return answer["content"], answer["status"] == 0


STOPS = (StopForm(name="snail", open=_stop, deletes=True),)
MESSAGES = (
    MessageForm(name="snail A", open=_messages_a("*/*"), stops_abandoned=True),
    MessageForm(name="snail A as events", open=_messages_a("text/event-stream"), stops_abandoned=True),
    MessageForm(name="snail B", open=_messages_b(snail.CHAT), stops_abandoned=True),
    MessageForm(name="snail B, whole answers", open=_messages_b(snail.SYNC), stops_abandoned=True),
    MessageForm(name="snail C", open=_messages_c, stops_abandoned=True),
)
FAILED_TURNS = (
    FailedTurnForm(name="snail B", read=_failed_turn_b(snail.CHAT)),
    FailedTurnForm(name="snail B, whole answers", read=_failed_turn_b(snail.SYNC)),
    FailedTurnForm(name="snail A, read through C", read=_failed_turn_a_and_c),
)
