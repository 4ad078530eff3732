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
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import msgspec
import structlog

from palaver.core.ports.models import ContentDelta, ModelDelta, ModelRequest, StepFinished, ToolCallDelta
from palaver.core.stopwords import CHINESE, ENGLISH, PARTICLES
from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import Passage, Text, ToolCall, ToolResult, Value, new_uid

QUOTES = 3
"""Passages quoted at most."""
QUOTE_CHARACTERS = 600
"""… and the length of each."""
PASSAGE_CHARACTERS = 1_000
"""How long the pieces are that a file beside a message is cut into."""
QUESTION_CHARACTERS = 4_000
"""How much of a question is looked at: half from its beginning, half from its end, …"""
WORDS = 48
"""… and how many of its words, in the same way."""
SEGMENT = 8
"""Characters of Chinese that count as one thing asked for."""
MANY = 4
"""From so many passages on, a word that stands in more than half of them says nothing about which one answers."""

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ASKING = re.compile(
    rf"{'|'.join(sorted(map(re.escape, CHINESE), key=len, reverse=True))}|几[天年月周次点个种号人岁元]?"
    rf"|多[少久长大远高重]?|[{''.join(sorted(PARTICLES))}]"
)
"""What Chinese says between the words that matter."""
_SENTENCE = re.compile(
    r"(?:[^\n。！？；.!?]|[.!?](?![\s\"')\]]|\Z))*(?:[。！？；]+[”」』）]*|[.!?][\"')\]]*|\n+|\Z)[ \t]*"
)
_GREETING = re.compile(r"(?i)^\W*(hi|hello|hey|good (morning|afternoon|evening)|你好|您好|哈喽|嗨|早上好|晚上好)\W*$")

_NOTHING = {"en": "I have found nothing about this.", "zh": "没有找到与此相关的内容。"}
_HELLO = {"en": "Hello! What would you like to know?", "zh": "你好！请问您想了解什么？"}
_FOUND = {"en": "This is what my documents say:", "zh": "资料中的相关内容如下："}
_UNSURE = {
    "en": "I am not sure that this answers the question. The closest I have found:",
    "zh": "以下内容不一定能回答您的问题，是资料中最接近的：",
}

log = structlog.get_logger("palaver.models")


class ExtractModel:
    """A ``ChatModel`` that quotes ``request.passages``, or what its one search finds. Uses no tokens, calls nobody."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        question = _question(request)
        result = _searched(request)
        if not request.passages and result is None and question.strip() and _offered(request):
            call = ToolCall(call_id=f"call_{new_uid().hex}", name=SEARCH_TOOL, arguments={"query": question})
            yield ToolCallDelta(call=call)
            yield StepFinished(reason="tool_calls")
            return
        passages = request.passages or (() if result is None or result.error else _passages(result.data))
        for piece in await pieces(question, passages, _attached(request)):
            yield ContentDelta(text=piece)
            await asyncio.sleep(0)  # readers see the answer grow, as with any other model
        yield StepFinished()


async def pieces(question: str, passages: Sequence[Passage], attached: Sequence[Passage] = ()) -> list[str]:
    """The answer, paragraph by paragraph."""
    question = _ends(question)
    language = "zh" if _HAN.search(question) and not _KANA.search(question) else "en"
    if _GREETING.match(question):
        return [_HELLO[language]]
    quotes, sure = await choose(question, (*attached, *passages))
    if not quotes and attached:  # asked what a file says, or for its summary: it begins like this
        quotes = [(attached[0], excerpt(attached[0].text, ())[0])]
    if not quotes:
        log.info("nothing to quote", remedy="a model that answers in its own words: PALAVER_MODEL=openai:NAME")
        return [_NOTHING[language]]
    answer = [(_FOUND if sure else _UNSURE)[language]]
    for passage, quote in quotes:
        lines = "\n".join(f"> {line}".rstrip() for line in quote.split("\n"))
        answer += [f"\n\n{lines}\n", f"\n{_source(passage, language)}"]
    return answer


# What is asked ------------------------------------------------------------------------------------------------------


class QueryWord(Value, frozen=True, kw_only=True):
    """A word of the question; or a run of Chinese, whose ``parts`` are its pairs of characters, each beginning inside
    the one before."""

    parts: tuple[str, ...]
    count: int = 1
    """How many words it stands for: two characters of Chinese are one."""

    def within(self, text: str) -> int:
        """How many of its words stand in ``text``, which is in lower case."""
        found = 0
        last = -2
        for place, part in enumerate(self.parts):
            if place > last + 1 and part in text:
                found, last = found + 1, place
        return found


def _ends(question: str) -> str:
    half = QUESTION_CHARACTERS // 2
    return question if len(question) <= 2 * half else f"{question[:half]}\n{question[-half:]}"


def _asked(question: str) -> list[QueryWord]:
    """The words of ``question`` that say what it is about, each once."""
    found: dict[tuple[str, ...], QueryWord] = {}
    for word in _WORD.findall(_HAN_RUN.sub(" ", question.lower().replace("’", "'"))):
        if word not in ENGLISH and (len(word) > 1 or word.isdigit()):
            # Without its last letter a longer word also meets its plural, or its singular.
            parts = (word[:-1] if len(word) > 4 else word,)
            found.setdefault(parts, QueryWord(parts=parts))
    for run in _HAN_RUN.findall(question):
        for segment in _segments(run):
            if len(segment) > 1:
                parts = tuple(segment[at : at + 2] for at in range(len(segment) - 1))
                found.setdefault(parts, QueryWord(parts=parts, count=len(segment) // 2))
    words = list(found.values())
    return words if len(words) <= WORDS else [*words[: WORDS // 2], *words[-WORDS // 2 :]]


def _segments(run: str) -> Iterator[str]:
    """What a run of Chinese speaks of, in pieces of a few words at most."""
    for segment in _ASKING.split(run):
        for start in range(0, len(segment), SEGMENT):
            yield segment[start : start + SEGMENT]


# What answers -------------------------------------------------------------------------------------------------------


class _Quote(Value, frozen=True, kw_only=True):
    passage: Passage
    text: str
    shared: int
    """Words of the question in it, its headings included."""
    close: int
    """… and close together, its headings included."""


async def choose(question: str, passages: Sequence[Passage]) -> tuple[list[tuple[Passage, str]], bool]:
    """The passages to quote, in their order, each with the part of its text that answers best; and whether they do.

    The work is a bounded number of words times the passages, and gives way after each of them.
    """
    asked = _asked(question)
    present: list[list[QueryWord]] = []
    for passage in passages:
        whole = f"{passage.title}\n{passage.heading}\n{passage.text}".lower()
        present.append([word for word in asked if word.within(whole)])
        await asyncio.sleep(0)
    asked = _telling(asked, present)
    total = sum(word.count for word in asked)
    needed = 2 if total > (2 if _HAN.search(question) else 1) else 1
    quotes: list[_Quote] = []
    for passage, there in zip(passages, present, strict=True):
        if words := [word for word in there if word in asked]:
            quote = _quoted(passage, words)
            if quote.shared >= needed and not any(quote.text in other.text for other in quotes):
                quotes.append(quote)
            await asyncio.sleep(0)
    best = max((quote.shared for quote in quotes), default=0)
    sure = any(quote.close >= needed and 2 * quote.close >= total for quote in quotes)
    worth = [(quote.passage, quote.text) for quote in quotes if 2 * quote.shared >= best]
    return worth[: QUOTES if sure else 1], sure


def _telling(asked: list[QueryWord], present: Sequence[Sequence[QueryWord]]) -> list[QueryWord]:
    """Those of ``asked`` that tell one passage from another; all of them where none does."""
    if len(present) < MANY:
        return asked
    counts = Counter(word.parts for there in present for word in there)
    rare = [word for word in asked if 2 * counts[word.parts] <= len(present)]
    return rare if any(counts[word.parts] for word in rare) else asked


def _quoted(passage: Passage, asked: Sequence[QueryWord]) -> _Quote:
    # A heading says what its text is about; a question often has its words and not the text's.
    headings = f"{passage.title}\n{passage.heading}\n".lower()
    text, close = excerpt(passage.text, asked)
    return _Quote(
        passage=passage,
        text=text,
        shared=_shared(headings + text.lower(), asked),
        close=_shared(headings + close.lower(), asked),
    )


def _shared(text: str, asked: Sequence[QueryWord]) -> int:
    return sum(word.within(text) for word in asked)


def excerpt(text: str, asked: Sequence[QueryWord], room: int = QUOTE_CHARACTERS) -> tuple[str, str]:
    """At most ``room`` characters of ``text``: the sentence that shares most, and as many around it as fit. And that
    sentence with those beside it; a row of a table stands alone."""
    text = text.strip()
    spans = [match.span() for match in _SENTENCE.finditer(text) if match.group().strip()]
    if not spans:
        return text[:room], ""
    values = [_shared(text[start:end].lower(), asked) for start, end in spans]
    first = last = values.index(max(values))
    start, end = spans[first]
    best = text[start:end]
    beside = (text[slice(*span)] for span in (*spans[max(0, first - 1) : first], *spans[first + 1 : first + 2]))
    close = "\n".join((best, *(sentence for sentence in beside if not sentence.startswith("|"))))
    if len(text) <= room:
        return text, close
    if end - start > room:
        return _cut(best, asked, room), close
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
    return ("… " if start else "") + text[start:end].strip() + (" …" if end < len(text) else ""), close


def _cut(sentence: str, asked: Sequence[QueryWord], room: int) -> str:
    """A sentence that is itself too long: the part that begins a little before the first word asked for."""
    lower = sentence.lower()
    places = [place for word in asked for part in word.parts if (place := lower.find(part)) >= 0]
    start = max(0, min(min(places, default=0) - room // 4, len(sentence) - room))
    return ("… " if start else "") + sentence[start : start + room].strip() + " …"


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
    return next((part for part in parts if isinstance(part, ToolResult) and part.name == SEARCH_TOOL), None)


def _attached(request: ModelRequest) -> tuple[Passage, ...]:
    """What the files beside the messages say, as passages."""
    return tuple(
        Passage(text=paragraph, source=one.name)
        for one in request.attachments.values()
        for paragraph in _paragraphs(one.text or "")
    )


def _paragraphs(text: str) -> list[str]:
    """``text`` in pieces about as long as a passage, cut at blank lines, or else between sentences."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if pieces and len(pieces[-1]) + len(paragraph) < PASSAGE_CHARACTERS:
            pieces[-1] += f"\n\n{paragraph}"
        elif paragraph.strip():
            pieces += _smaller(paragraph)
    return pieces


def _smaller(paragraph: str) -> Iterator[str]:
    start = end = 0
    for sentence in _SENTENCE.finditer(paragraph):
        while sentence.end() - start > PASSAGE_CHARACTERS:
            end = end if end > start else start + PASSAGE_CHARACTERS
            yield paragraph[start:end]
            start = end
        end = sentence.end()
    if start < end:
        yield paragraph[start:end]


def _offered(request: ModelRequest) -> bool:
    return any(tool.name == SEARCH_TOOL for tool in request.tools)


def _passages(data: Any) -> tuple[Passage, ...]:
    try:
        return msgspec.convert(data or (), tuple[Passage, ...])
    except msgspec.ValidationError:
        return ()
