"""Calls that go beyond a limit, and their refusals."""

from __future__ import annotations

from dialects.snail import client as snail
from support.http_clients import Ask
from support.limits import USER, Guest, LimitCalls, Refusal, Refusals


def _send(guest: Guest, text: str) -> Ask:
    conversation = guest.conversation.uid.hex
    body = snail.Caller.members(guest.agent, text, user=USER, conversationId=conversation)
    return snail.Caller(guest.served, guest.key).request(body)


def _start(guest: Guest) -> Ask:
    return snail.Caller(guest.served, guest.key).request(snail.Caller.members(guest.agent, user=USER))


LIMITS = LimitCalls(
    settings={"auto_register": True},
    send=_send,
    start=_start,
    upload=None,
    checks_request_ids=False,
    refusals=Refusals(
        rate=Refusal(429, "请求过于频繁，请稍后再试", retry_after=True),
        daily_rate=None,
        usage=Refusal(429, "请求过于频繁，请稍后再试", retry_after=True),
        waiting=Refusal(200, "会话繁忙，请稍后再试"),
        overload=Refusal(200, "会话繁忙，请稍后再试"),
        full=Refusal(200, "存储配额已用完"),
        file=None,
        body=Refusal(413, "请求体过大"),
    ),
)
