"""Calls that go beyond a limit, and their refusals."""

from __future__ import annotations

from typing import Any

from dialects.wps import client as wps
from support.http_clients import Ask
from support.limits import USER, Guest, LimitCalls, Refusal, Refusals


def _chat(guest: Guest, text: str, **more: Any) -> Ask:
    caller = wps.Caller(guest.served, guest.key)
    return caller.request("POST", wps.chat(guest.agent), {"text": text, "stream": True, **more})


LIMITS = LimitCalls(
    settings={"default_user": USER},
    send=lambda guest, text: _chat(guest, text, session_id=str(guest.conversation.uid)),
    start=lambda guest: _chat(guest, "hi"),
    upload=None,
    checks_request_ids=False,
    refusals=Refusals(
        rate=Refusal(429, '"code":429000001', retry_after=True),
        daily_rate=None,
        usage=Refusal(429, '"code":429000001'),
        waiting=Refusal(429, '"code":429000001', retry_after=True),
        overload=Refusal(429, '"code":429000001', retry_after=True),
        full=Refusal(429, "storage quota exceeded"),
        file=None,
        body=Refusal(413, '"code":413000001'),
    ),
)
