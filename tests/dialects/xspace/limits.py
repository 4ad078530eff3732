"""Calls that go beyond a limit, and their refusals."""

from __future__ import annotations

from dialects.xspace import client as xspace
from support.http_clients import Ask
from support.limits import USER, Guest, LimitCalls, Refusal, Refusals


def _caller(guest: Guest) -> xspace.Caller:
    return xspace.Caller(guest.served, guest.key)


def _send(guest: Guest, text: str) -> Ask:
    return _caller(guest).request("POST", xspace.chat_path(guest.conversation.id), {"message": text})


def _upload(guest: Guest, size: int) -> Ask:
    body = xspace.form(("; name=file; filename=a.txt", b"x" * size))
    return _caller(guest).request("POST", xspace.UPLOAD, body, headers={"Content-Type": xspace.FORM_TYPE})


LIMITS = LimitCalls(
    settings={"default_user": USER},
    send=_send,
    start=lambda guest: _caller(guest).request("POST", xspace.ADD, {"agentId": guest.agent.id}),
    upload=_upload,
    checks_request_ids=False,
    refusals=Refusals(
        rate=Refusal(200, '"code":"4290"'),
        daily_rate=Refusal(200, '"code":"4290"'),
        usage=Refusal(200, '"code":"4290"'),
        waiting=Refusal(200, "Agent正在执行任务"),
        overload=Refusal(200, "Agent正在执行任务"),
        full=Refusal(200, "Storage quota exceeded."),
        file=Refusal(200, "File quota exceeded"),
        body=Refusal(200, "Request body too large"),
    ),
)
