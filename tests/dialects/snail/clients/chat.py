"""The Python client of the page's section "客户端处理示例", by its described behaviour: requests, ``iter_lines`` with
``decode_unicode``, blank lines passed over, ``event["type"]`` of every line, a line that is no JSON taken as text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import requests

TIMEOUT = 10.0


@dataclass(slots=True, kw_only=True)
class Shown:
    """What its user sees. ``others`` are the types it passes over; ``conversation`` is what a ``done`` line said."""

    text: str = ""
    thinking: str = ""
    others: list[str] = field(default_factory=list[str])
    failed: bool = False
    conversation: str | None = None


def chat_with_agent(
    base_url: str, token: str, agent_id: int, open_id: str, content: str, conversation_id: str | None = None
) -> Shown:
    """Ask, and read the answer line by line; a read that fails is how it learns of a break."""
    payload: dict[str, Any] = {"agentId": agent_id, "openId": open_id, "content": content}
    if conversation_id:
        payload["conversationId"] = conversation_id
    page = Shown()
    with requests.post(
        f"{base_url}/snail-ai/open-api/chat",
        json=payload,
        headers={"Content-Type": "application/json", "Snail-Ai-Auth": token},
        stream=True,
        timeout=TIMEOUT,
    ) as response:
        try:
            for line in response.iter_lines(decode_unicode=True):
                if line and line.strip():
                    _show(line, page)
        except requests.exceptions.ChunkedEncodingError:
            page.failed = True
    return page


def _show(line: str | bytes, page: Shown) -> None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        page.text += line if isinstance(line, str) else line.decode()
        return
    if event["type"] == "text":
        page.text += event["content"]
    elif event["type"] == "thinking":
        page.thinking += event["content"]
    else:
        page.others.append(event["type"])
        page.conversation = event.get("conversationId")
