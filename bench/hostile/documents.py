"""Attacks with documents: attachments that are expensive to read, and questions about large ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from bench.calling import Failed
from bench.hostile.target import Target, ask

FILE_BYTES = 920_000
SHAPES = {
    "lists never closed": "<ul><li>x",
    "tables never closed": "<table><tr><td><p>x</p>",
    "elements never closed": "<div>",
    "misnested emphasis": "<b><p></b>",
    "selects never closed": "<select><option>x",
    "forms in tables": "<table><form><td>",
    "fonts, each another": "<font color=a><a href=b>",
    "entities": "&amp;&lt;&#9",
    "comments never closed": "<!--",
    "quotation marks never closed": "<a x='",
    "foreign content": "<svg><foreignObject><math><mi>",
    "words": "ab ",
    "Chinese": "中",
    "combining marks": "e\u0301\u0323",
    "ligatures of many letters": "\ufdfa",
    "blanks": " ",
    "nothing": "\0",
}
WORDS = 13_000
"""The number of distinct words in a question of 80 KB."""


async def hostile_documents(target: Target) -> str:
    """Attach each shape to a message, all at once, each by another end user; also a tag with 1 MB of attributes."""
    size = target.number(FILE_BYTES)
    files = {name: (piece * (size // len(piece.encode()))).encode() for name, piece in SHAPES.items()}
    files["one tag of attributes"] = b"<p " + b" ".join(b"a%d=b" % number for number in range(size // 8)) + b">x"
    answers = await asyncio.gather(
        *(_about(target, "reader", f"reader-{at}", [content]) for at, content in enumerate(files.values()))
    )
    return _summary(answers, "documents")


async def great_questions(target: Target) -> str:
    """Questions with 40 and 80 KB of distinct words about large attachments whose sentences all contain some."""
    words = [f"w{number:05d}" for number in range(target.number(WORDS, least=2000))]
    sentences = [" ".join(words[at % len(words) : at % len(words) + 10]) + "." for at in range(FILE_BYTES // 70)]
    content = "\n".join(sentences).encode()[: target.number(FILE_BYTES)]
    questions = [" ".join(words[: len(words) // 2]), " ".join(words)]
    answers = await asyncio.gather(
        *(
            _about(target, "quoter", f"asker-{at}", [content[: 56_000 * (at + 1)]] * 4, questions[at % 2])
            for at in range(target.number(8, least=2))
        )
    )
    return _summary(answers, "questions")


async def _about(
    target: Target, agent: str, user: str, files: Sequence[bytes], question: str = "What does it say?"
) -> int:
    """Run a turn about files. Returns the status."""
    keys: list[str] = []
    for content in files:
        request = target.request("POST", "files?name=page.html", content, user=user, Content_Type="text/html")
        status, body = await ask(target.port, request)
        if status != 201:
            return status
        keys.append(json.loads(body)["key"])
    status, _ = await ask(target.port, target.message(agent, question, user=user, files=keys), within=120)
    return status


def _summary(statuses: Sequence[int], what: str) -> str:
    """Raises ``Failed`` for a missing response or a server error."""
    wrong = [status for status in statuses if status in {0, 500}]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(statuses)} {what} without an answer: {wrong}")
    return f"{len(statuses)} {what}, {sum(status == 200 for status in statuses)} answered"
