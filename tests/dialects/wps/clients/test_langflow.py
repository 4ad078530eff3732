"""A Langflow page's reader and store of messages, against a server on a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from dialects.wps.client import Caller
from support.http_clients import GUARD
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.wps import requirements

PAGE = Path(__file__).parent / "langflow.mjs"
NODE = shutil.which("node")
ATTEMPTS = 12
"""A page that stood still itself, on a busy machine, is asked again; what a punctual one shows wrong is wrong."""
WORDS = "用户🙂}\n\nwort, "

Store = Literal["replace", "append"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a page shows at the end, and what an answer looked like on the way."""

    late: bool
    answers: list[str]
    seen: list[str]
    alerts: list[str]
    complete: bool | None


def pages(caller: Caller, agents: list[Agent], store: Store = "replace") -> list[Shown]:
    """What pages show that ask these agents at the same time."""
    if NODE is None:
        pytest.skip("there is no Node here")
    key = caller.key
    command = [NODE, str(PAGE), caller.served.base_url, key.id, key.secret, store, *(str(one.uid) for one in agents)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=6 * GUARD).stdout
    return [Shown(**json.loads(line)) for line in output.splitlines()]


def paced(length: int, size: int, pause_s: float) -> tuple[str, tuple[Any, ...]]:
    """An answer of ``length`` characters in pieces of ``size``, ``pause_s`` between two, and its script."""
    text = (WORDS * (length // len(WORDS) + 1))[:length]
    pieces = [text[at : at + size] for at in range(0, length, size)]
    return text, tuple(step for piece in pieces for step in (piece, {"wait": pause_s}))


ANSWERS = [
    (length, size, pause_s)
    for length in (1, 40, 150)
    for size in (1, 7, 10_000)
    for pause_s in (0.0, 0.004, 0.03)
    if length / size * pause_s < 1.5
]


@pytest.mark.parametrize("answers", [ANSWERS[at::4] for at in range(4)])
@pytest.mark.parametrize("store", ["replace", "append"])
@shows(requirements.langflow_pages)
def test_an_answer_of_any_length_and_pace_is_shown_once(
    served: Served, caller: Caller, store: Store, answers: list[tuple[int, int, float]]
) -> None:
    texts, scripts = zip(*(paced(*one) for one in answers), strict=True)
    agents = {at: served.agent(*script) for at, script in enumerate(scripts)}
    results: dict[int, Shown] = {}
    for _ in range(ATTEMPTS):
        results = dict(zip(agents, pages(caller, list(agents.values()), store), strict=True))
        wrong = [at for at, page in results.items() if not _once(page, texts[at], store)]
        if not wrong:
            return
        if not all(results[at].late for at in wrong):
            break
        agents = {at: agents[at] for at in wrong}
    pytest.fail(f"{[(answers[at], results[at]) for at in agents]}")


def _once(page: Shown, text: str, store: Store) -> bool:
    """Whether the page shows the answer, and on its way nothing but its beginnings (where messages replace)."""
    right_on_the_way = store == "append" or all(text.startswith(seen) for seen in page.seen)
    return page.answers == [text] and page.complete is True and right_on_the_way


@pytest.mark.parametrize("store", ["replace", "append"])
@shows(requirements.streams_without_tokens, requirements.langflow_pages)
def test_a_stream_without_tokens_is_shown_once_however_late_the_page_is(served: Served, store: Store) -> None:
    caller = Caller(served, served.key("wps", tokens=False))
    text, script = paced(150, 7, 0.03)
    (page,) = pages(caller, [served.agent(*script)], store)
    assert (page.answers, page.complete) == ([text], True)


@shows(requirements.langflow_failures, requirements.error_event)
def test_the_reason_of_a_failure_is_shown(served: Served) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    (page,) = pages(Caller(served, served.key("wps")), [agent])
    assert (page.answers, page.alerts) == (["so far"], ["the model failed to answer"])
    (page,) = pages(Caller(served, served.key("wps", error_event=True)), [agent])
    reason = "the model failed to answer"
    assert (page.answers, page.alerts) == (["so far", reason], [reason, reason])
