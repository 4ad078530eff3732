"""The offline, extractive model: answers by quoting. For agents that must not go beyond their documents, and for
servers without an endpoint.

It takes the retrieved passages (or, if offered the search tool, searches once with the question) and the text of
attached files, and quotes the best lines, each with its source. It never writes a sentence of its own about the
subject.
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
"""Maximum number of quoted passages."""
QUOTE_CHARACTERS = 600
"""Maximum length of each."""
PASSAGE_CHARACTERS = 1_000
"""Length of the pieces that an attached file is split into."""
QUESTION_CHARACTERS = 4_000
"""How much of a question is used: half from its beginning, half from its end, …"""
WORDS = 48
"""… and how many of its words, in the same way."""
SEGMENT = 8
"""Maximum characters of a Chinese query segment."""
MANY = 4
"""With at least this many passages, a word found in more than half of them does not tell them apart."""

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_FUNCTION_WORDS = re.compile(
    rf"{'|'.join(sorted(map(re.escape, CHINESE), key=len, reverse=True))}|几[天年月周次点个种号人岁元]?"
    rf"|多[少久长大远高重]?|[{''.join(sorted(PARTICLES))}]"
)
"""Chinese function words and particles, which separate the words that matter."""
_SENTENCE = re.compile(
    r"(?:[^\n。！？；.!?]|[.!?](?![\s\"')\]]|\Z))*(?:[。！？；]+[”」』）]*|[.!?][\"')\]]*|\n+|\Z)[ \t]*"
)
_GREETING = re.compile(r"(?i)^\W*(hi|hello|hey|good (morning|afternoon|evening)|你好|您好|哈喽|嗨|早上好|晚上好)\W*$")

_NO_RESULTS_TEXT = {"en": "I have found nothing about this.", "zh": "没有找到与此相关的内容。"}
_GREETING_TEXT = {"en": "Hello! What would you like to know?", "zh": "你好！请问您想了解什么？"}
_RESULTS_TEXT = {"en": "This is what my documents say:", "zh": "资料中的相关内容如下："}
_UNSURE_TEXT = {
    "en": "I am not sure that this answers the question. The closest I have found:",
    "zh": "以下内容不一定能回答您的问题，是资料中最接近的：",
}

log = structlog.get_logger("palaver.models")


class ExtractModel:
    """A ``ChatModel`` that quotes ``request.passages``, or the results of its one search. No tokens, no network."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        question = _question(request)
        result = _search_result(request)
        if not request.passages and result is None and question.strip() and _search_offered(request):
            call = ToolCall(call_id=f"call_{new_uid().hex}", name=SEARCH_TOOL, arguments={"query": question})
            yield ToolCallDelta(call=call)
            yield StepFinished(reason="tool_calls")
            return
        passages = request.passages or (() if result is None or result.error else _passages(result.data))
        for piece in await answer_paragraphs(question, passages, _attachment_passages(request)):
            yield ContentDelta(text=piece)
            await asyncio.sleep(0)  # the answer streams, as with any other model
        yield StepFinished()


async def answer_paragraphs(question: str, passages: Sequence[Passage], attached: Sequence[Passage] = ()) -> list[str]:
    """Return the answer, paragraph by paragraph."""
    question = _head_and_tail(question)
    language = "zh" if _HAN.search(question) and not _KANA.search(question) else "en"
    if _GREETING.match(question):
        return [_GREETING_TEXT[language]]
    quotes, sure = await choose_passages(question, (*attached, *passages))
    if not quotes and attached:  # a question about the whole file: quote its beginning
        quotes = [(attached[0], excerpt(attached[0].text, ())[0])]
    if not quotes:
        log.info("nothing to quote", remedy="a model that answers in its own words: PALAVER_MODEL=openai:NAME")
        return [_NO_RESULTS_TEXT[language]]
    answer = [(_RESULTS_TEXT if sure else _UNSURE_TEXT)[language]]
    for passage, quote in quotes:
        lines = "\n".join(f"> {line}".rstrip() for line in quote.split("\n"))
        answer += [f"\n\n{lines}\n", f"\n{_source(passage, language)}"]
    return answer


# Question -----------------------------------------------------------------------------------------------------------


class QueryWord(Value, frozen=True, kw_only=True):
    """A word of the question; or a run of Chinese, whose ``parts`` are its overlapping pairs of characters."""

    parts: tuple[str, ...]
    count: int = 1
    """Number of words it counts as: two Chinese characters are one."""

    def within(self, text: str) -> int:
        """The number of its words found in ``text``, which is in lower case."""
        matches = 0
        last = -2
        for position, part in enumerate(self.parts):
            if position > last + 1 and part in text:
                matches, last = matches + 1, position
        return matches


def _head_and_tail(question: str) -> str:
    half = QUESTION_CHARACTERS // 2
    return question if len(question) <= 2 * half else f"{question[:half]}\n{question[-half:]}"


def _query_words(question: str) -> list[QueryWord]:
    """The distinct content words of ``question``."""
    by_parts: dict[tuple[str, ...], QueryWord] = {}
    for word in _WORD.findall(_HAN_RUN.sub(" ", question.lower().replace("’", "'"))):
        if word not in ENGLISH and (len(word) > 1 or word.isdigit()):
            # A longer word without its last letter also matches its plural or singular.
            parts = (word[:-1] if len(word) > 4 else word,)
            by_parts.setdefault(parts, QueryWord(parts=parts))
    for run in _HAN_RUN.findall(question):
        for segment in _segments(run):
            if len(segment) > 1:
                parts = tuple(segment[at : at + 2] for at in range(len(segment) - 1))
                by_parts.setdefault(parts, QueryWord(parts=parts, count=len(segment) // 2))
    words = list(by_parts.values())
    return words if len(words) <= WORDS else [*words[: WORDS // 2], *words[-WORDS // 2 :]]


def _segments(run: str) -> Iterator[str]:
    """The content words of a run of Chinese, in segments of at most ``SEGMENT`` characters."""
    for segment in _FUNCTION_WORDS.split(run):
        for start in range(0, len(segment), SEGMENT):
            yield segment[start : start + SEGMENT]


# Quotes -------------------------------------------------------------------------------------------------------------


class _Quote(Value, frozen=True, kw_only=True):
    passage: Passage
    text: str
    shared: int
    """Words of the question in the text and its headings."""
    close: int
    """Words of the question close together in the text, or in its headings."""


async def choose_passages(question: str, passages: Sequence[Passage]) -> tuple[list[tuple[Passage, str]], bool]:
    """Return the passages to quote, in their order, each with the best part of its text; and whether they answer.

    The work is bounded by the number of words times passages, and yields to the event loop after each passage.
    """
    words = _query_words(question)
    word_lists: list[list[QueryWord]] = []
    for passage in passages:
        whole = f"{passage.title}\n{passage.heading}\n{passage.text}".lower()
        word_lists.append([word for word in words if word.within(whole)])
        await asyncio.sleep(0)
    words = _distinctive(words, word_lists)
    total = sum(word.count for word in words)
    needed = 2 if total > (2 if _HAN.search(question) else 1) else 1
    quotes: list[_Quote] = []
    for passage, found in zip(passages, word_lists, strict=True):
        if matching := [word for word in found if word in words]:
            quote = _quoted(passage, matching)
            if quote.shared >= needed and not any(quote.text in other.text for other in quotes):
                quotes.append(quote)
            await asyncio.sleep(0)
    best = max((quote.shared for quote in quotes), default=0)
    sure = any(quote.close >= needed and 2 * quote.close >= total for quote in quotes)
    worth = [(quote.passage, quote.text) for quote in quotes if 2 * quote.shared >= best]
    return worth[: QUOTES if sure else 1], sure


def _distinctive(words: list[QueryWord], present: Sequence[Sequence[QueryWord]]) -> list[QueryWord]:
    """The words that distinguish passages; all words if none does."""
    if len(present) < MANY:
        return words
    counts = Counter(word.parts for passage_words in present for word in passage_words)
    rare = [word for word in words if 2 * counts[word.parts] <= len(present)]
    return rare if any(counts[word.parts] for word in rare) else words


def _quoted(passage: Passage, words: Sequence[QueryWord]) -> _Quote:
    # A heading names the subject of its text; a question often shares words with the heading only.
    headings = f"{passage.title}\n{passage.heading}\n".lower()
    text, close = excerpt(passage.text, words)
    return _Quote(
        passage=passage,
        text=text,
        shared=_shared(headings + text.lower(), words),
        close=_shared(headings + close.lower(), words),
    )


def _shared(text: str, words: Sequence[QueryWord]) -> int:
    return sum(word.within(text) for word in words)


def excerpt(text: str, words: Sequence[QueryWord], limit: int = QUOTE_CHARACTERS) -> tuple[str, str]:
    """At most ``limit`` characters of ``text``: the sentence that shares most words, and as many around it as fit.
    Also returns that sentence with its neighbours, except table rows."""
    text = text.strip()
    spans = [match.span() for match in _SENTENCE.finditer(text) if match.group().strip()]
    if not spans:
        return text[:limit], ""
    values = [_shared(text[start:end].lower(), words) for start, end in spans]
    first = last = values.index(max(values))
    start, end = spans[first]
    best = text[start:end]
    neighbours = (text[slice(*span)] for span in (*spans[max(0, first - 1) : first], *spans[first + 1 : first + 2]))
    close = "\n".join((best, *(sentence for sentence in neighbours if not sentence.startswith("|"))))
    if len(text) <= limit:
        return text, close
    if end - start > limit:
        return _cut(best, words, limit), close
    if first > 0 and end - spans[first - 1][0] <= limit:
        first -= 1
        start = spans[first][0]
    while True:
        # After one sentence before it, prefer what follows: an explanation follows what it explains.
        if last + 1 < len(spans) and spans[last + 1][1] - start <= limit:
            last += 1
            end = spans[last][1]
        elif first > 0 and end - spans[first - 1][0] <= limit:
            first -= 1
            start = spans[first][0]
        else:
            break
    return ("… " if start else "") + text[start:end].strip() + (" …" if end < len(text) else ""), close


def _cut(sentence: str, words: Sequence[QueryWord], limit: int) -> str:
    """Shorten a sentence that is too long, beginning a little before the first word of the question."""
    lower = sentence.lower()
    positions = [position for word in words for part in word.parts if (position := lower.find(part)) >= 0]
    start = max(0, min(min(positions, default=0) - limit // 4, len(sentence) - limit))
    return ("… " if start else "") + sentence[start : start + limit].strip() + " …"


def _source(passage: Passage, language: str) -> str:
    name = " › ".join(filter(None, (passage.title, passage.heading)))
    if language == "zh":
        return f"—— {name}（{passage.source}）" if name and name != passage.source else f"—— {passage.source}"
    return f"— {name} ({passage.source})" if name and name != passage.source else f"— {passage.source}"


def _question(request: ModelRequest) -> str:
    turn = next((turn for turn in reversed(request.history) if turn.role == "user"), None)
    return "\n".join(part.text for part in turn.parts if isinstance(part, Text)) if turn else ""


def _search_result(request: ModelRequest) -> ToolResult | None:
    """The result of the search in this turn, if there was one."""
    parts = request.history[-1].parts if request.history and request.history[-1].role == "assistant" else ()
    return next((part for part in parts if isinstance(part, ToolResult) and part.name == SEARCH_TOOL), None)


def _attachment_passages(request: ModelRequest) -> tuple[Passage, ...]:
    """The text of attached files as passages."""
    return tuple(
        Passage(text=paragraph, source=attachment.name)
        for attachment in request.attachments.values()
        for paragraph in _paragraphs(attachment.text or "")
    )


def _paragraphs(text: str) -> list[str]:
    """Split ``text`` into pieces of about a passage, at blank lines, or else between sentences."""
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


def _search_offered(request: ModelRequest) -> bool:
    return any(tool.name == SEARCH_TOOL for tool in request.tools)


def _passages(data: Any) -> tuple[Passage, ...]:
    try:
        return msgspec.convert(data or (), tuple[Passage, ...])
    except msgspec.ValidationError:
        return ()
