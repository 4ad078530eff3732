"""Calls that go beyond a limit, and their refusals."""

from __future__ import annotations

from dialects.native import client as native
from support.http_clients import Ask
from support.limits import USER, Guest, LimitCalls, Refusal, Refusals


def _caller(guest: Guest) -> native.Caller:
    return native.Caller(guest.served, guest.key, user=USER)


def _send(guest: Guest, text: str) -> Ask:
    return _caller(guest).request("POST", f"conversations/{guest.conversation.uid.hex}/messages", {"content": text})


def _start(guest: Guest) -> Ask:
    return _caller(guest).request("POST", "messages", {"agent": guest.agent.uid.hex, "content": "hi"})


def _upload(guest: Guest, size: int) -> Ask:
    headers = {"Content-Type": "text/plain"}
    return _caller(guest).request("POST", "files", b"x" * size, query="name=a.txt", headers=headers)


LIMITS = LimitCalls(
    settings={},
    send=_send,
    start=_start,
    upload=_upload,
    checks_request_ids=False,
    refusals=Refusals(
        rate=Refusal(429, '"rate_limited"', retry_after=True),
        daily_rate=Refusal(429, '"rate_limited"', retry_after=True),
        usage=Refusal(429, '"used_up"'),
        waiting=Refusal(429, '"busy"', retry_after=True),
        overload=Refusal(503, '"overloaded"', retry_after=True),
        full=Refusal(429, '"full"'),
        file=Refusal(400, '"size"'),
        body=Refusal(413, '"too_large"'),
    ),
)
