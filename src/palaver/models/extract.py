"""The offline model: answers by quoting. For agents that must say only what stands in their documents, and for
servers without any endpoint.

It takes the passages that retrieval found (or, offered the search tool, searches once with the question's own words)
and what stands in attached files, and quotes the best lines around what was asked, each with its source. It never
writes a sentence about the subject.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from palaver.core.ports import Call, Delta, Finished, ModelRequest, Say
from palaver.core.turn import SEARCH
from palaver.core.types import Passage, Text, ToolCall, ToolResult, new_uid

QUOTES = 3
"""Passages quoted at most."""
QUOTE_CHARACTERS = 600
"""… and the length of each."""
PASSAGE_CHARACTERS = 1_000
"""How long the pieces are that a file beside a message is cut into."""

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(
    r"(?:[^\n。！？；.!?]|[.!?](?![\s\"')\]]|\Z))*(?:[。！？；]+[”」』）]*|[.!?][\"')\]]*|\n+|\Z)[ \t]*"
)
_GREETING = re.compile(r"(?i)^\W*(hi|hello|hey|good (morning|afternoon|evening)|你好|您好|哈喽|嗨|早上好|晚上好)\W*$")

_NOTHING = {
    "en": (
        "I found nothing about this in my documents. I am palaver's offline model: I only quote documents and cannot"
        " answer in words of my own. A real model is set with PALAVER_MODEL=openai:NAME together with OPENAI_BASE_URL"
        " and OPENAI_API_KEY."
    ),
    "zh": (
        "在我的资料中没有找到相关内容。我是 palaver 的离线模型：只引用资料原文，不能自己组织回答。"
        "要使用真正的模型，请设置 PALAVER_MODEL=openai:NAME，以及 OPENAI_BASE_URL 和 OPENAI_API_KEY。"
    ),
}
_HELLO = {"en": "Hello! ", "zh": "你好！"}
_FOUND = {"en": "This is what my documents say:", "zh": "资料中的相关内容如下："}


class Extract:
    """A ``Model`` that quotes ``request.passages``, or what its one search finds. Uses no tokens, calls nobody."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        question = _question(request)
        result = _searched(request)
        if not request.passages and result is None and question.strip() and _offered(request):
            call = ToolCall(call_id=f"call_{new_uid().hex}", name=SEARCH, arguments={"query": question})
            yield Call(call=call)
            yield Finished(reason="tool_calls")
            return
        passages = request.passages or (() if result is None or result.error else _passages(result.data))
        for piece in pieces(question, (*_attached(request), *passages)):
            yield Say(text=piece)
            await asyncio.sleep(0)  # readers see the answer grow, as with any other model
        yield Finished()


def pieces(question: str, passages: Sequence[Passage]) -> list[str]:
    """The answer, paragraph by paragraph."""
    language = "zh" if _HAN.search(question) and not _KANA.search(question) else "en"
    quotes = choose(question, passages)
    if not quotes:
        hello = _HELLO[language] if _GREETING.match(question) else ""
        return [sentence for sentence in _SENTENCE.findall(hello + _NOTHING[language]) if sentence]
    answer = [_FOUND[language]]
    for passage, quote in quotes:
        lines = "\n".join(f"> {line}".rstrip() for line in quote.split("\n"))
        answer += [f"\n\n{lines}\n", f"\n{_source(passage, language)}"]
    return answer


def choose(question: str, passages: Sequence[Passage]) -> list[tuple[Passage, str]]:
    """The passages to quote, in their order, each with the part of its text that answers best."""
    # A heading says what its text is about; a question often has its words and not the text's.
    weights = _weights(question, [f"{passage.heading}\n{passage.text}" for passage in passages])
    quotes: list[tuple[Passage, str, float]] = []
    for passage in passages:
        quote = excerpt(passage.text, weights)
        if quote and not any(quote in other for _, other, _ in quotes):
            quotes.append((passage, quote, _value(f"{passage.heading}\n{quote}", weights)))
    best = max((value for _, _, value in quotes), default=0.0)
    # Where no word of the question stands at all the search went by meaning; that is worth one quote, not three.
    worth = [(passage, quote) for passage, quote, value in quotes if value * 3 >= best]
    return worth[: QUOTES if best else 1]


def excerpt(text: str, weights: dict[str, float], room: int = QUOTE_CHARACTERS) -> str:
    """At most ``room`` characters of ``text``: the sentence with the most weight, and as many around it as fit."""
    text = text.strip()
    if len(text) <= room:
        return text
    spans = [match.span() for match in _SENTENCE.finditer(text) if match.group().strip()]
    values = [_value(text[start:end], weights) for start, end in spans]
    first = last = values.index(max(values))
    start, end = spans[first]
    if end - start > room:
        return _cut(text[start:end], weights, room)
    if first > 0 and end - spans[first - 1][0] <= room:
        first -= 1
        start = spans[first][0]
    while True:
        # Onwards rather than back, but for one sentence: an explanation follows what it explains.
        if last + 1 < len(spans) and spans[last + 1][1] - start <= room:
            last += 1
            end = spans[last][1]
        elif first > 0 and end - spans[first - 1][0] <= room:
            first -= 1
            start = spans[first][0]
        else:
            break
    return ("… " if start else "") + text[start:end].strip() + (" …" if end < len(text) else "")


def _cut(sentence: str, weights: dict[str, float], room: int) -> str:
    """A sentence that is itself too long: the part that begins a little before the first word asked for."""
    lower = sentence.lower()
    places = [place for term in weights if (place := lower.find(term)) >= 0]
    start = max(0, min(min(places, default=0) - room // 4, len(sentence) - room))
    return ("… " if start else "") + sentence[start : start + room].strip() + " …"


def _weights(question: str, texts: Sequence[str]) -> dict[str, float]:
    """The question's terms; one that stands everywhere says little about where the answer is."""
    terms: set[str] = set()
    for word in _WORD.findall(_HAN_RUN.sub(" ", question.lower())):
        # Without its last letter a longer word also meets its plural, or its singular.
        terms.add(word[:-1] if len(word) > 4 else word)
    for run in _HAN_RUN.findall(question):
        terms.update(run[at : at + 2] for at in range(max(1, len(run) - 1)))
    counts: Counter[str] = Counter()
    for text in texts:
        for sentence in _SENTENCE.findall(text.lower()):
            counts.update(term for term in terms if term in sentence)
    return {term: len(term) / count for term, count in counts.items() if len(term) > 2 or _HAN_RUN.match(term)}


def _value(text: str, weights: dict[str, float]) -> float:
    lower = text.lower()
    return sum(weight for term, weight in weights.items() if term in lower)


def _source(passage: Passage, language: str) -> str:
    name = " › ".join(filter(None, (passage.title, passage.heading)))
    if language == "zh":
        return f"—— {name}（{passage.source}）" if name and name != passage.source else f"—— {passage.source}"
    return f"— {name} ({passage.source})" if name and name != passage.source else f"— {passage.source}"


def _question(request: ModelRequest) -> str:
    turn = next((turn for turn in reversed(request.history) if turn.role == "user"), None)
    return "\n".join(part.text for part in turn.parts if isinstance(part, Text)) if turn else ""


def _searched(request: ModelRequest) -> ToolResult | None:
    """The result of the search in this turn."""
    parts = request.history[-1].parts if request.history and request.history[-1].role == "assistant" else ()
    return next((part for part in parts if isinstance(part, ToolResult) and part.name == SEARCH), None)


def _attached(request: ModelRequest) -> tuple[Passage, ...]:
    """What the files beside the messages say, as passages."""
    return tuple(
        Passage(text=paragraph, source=one.name)
        for one in request.attachments.values()
        for paragraph in _paragraphs(one.text or "")
    )


def _paragraphs(text: str) -> list[str]:
    """``text`` in pieces about as long as a passage, cut at blank lines."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if pieces and len(pieces[-1]) + len(paragraph) < PASSAGE_CHARACTERS:
            pieces[-1] += f"\n\n{paragraph}"
        elif paragraph.strip():
            pieces.append(paragraph)
    return pieces


def _offered(request: ModelRequest) -> bool:
    return any(tool.name == SEARCH for tool in request.tools)


def _passages(data: Any) -> tuple[Passage, ...]:
    try:
        return msgspec.convert(data or (), tuple[Passage, ...])
    except msgspec.ValidationError:
        return ()
