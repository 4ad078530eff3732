"""Calls that go beyond a limit, and their refusals."""

from __future__ import annotations

from dialects.sonaops import client as sonaops
from support.http_clients import Ask
from support.limits import USER, Guest, LimitCalls, Refusal, Refusals


def _caller(guest: Guest) -> sonaops.Caller:
    return sonaops.Caller(guest.served, guest.key, user=USER)


def _start(guest: Guest) -> Ask:
    headers = {"X-Request-ID": guest.served.new_name("request")}
    return _caller(guest).request(sonaops.CREATE, {"agentId": str(guest.agent.uid)}, headers=headers)


LIMITS = LimitCalls(
    settings={"default_user": USER, "reject_repeated_request_id": True},
    send=lambda guest, text: _caller(guest).asks(guest.agent, guest.conversation.uid.hex, text),
    start=_start,
    upload=None,
    checks_request_ids=True,
    refusals=Refusals(
        rate=Refusal(200, '"code":10429', retry_after=True),
        daily_rate=None,
        usage=Refusal(200, '"code":10403'),
        waiting=Refusal(200, '"code":10429'),
        overload=Refusal(200, '"code":10429'),
        full=Refusal(200, "storage quota exceeded"),
        file=None,
        body=Refusal(413, '"code":10413'),
    ),
)
