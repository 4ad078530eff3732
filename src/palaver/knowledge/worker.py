"""A process that reads documents: ``python -m palaver.knowledge.worker MEMORY CPU_SECONDS OUTPUT PARENT``.

It receives jobs as frames on standard input and returns one result each on standard output. Its memory and the CPU time
per job are limited. It exits at the end of its standard input and, on Linux, with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from typing import BinaryIO, assert_never

from palaver.core.ports.documents import UnreadableDocument
from palaver.core.types import clean
from palaver.knowledge.files import Kind
from palaver.knowledge.protocol import (
    LENGTH,
    OUT_OF_MEMORY,
    ExtractedText,
    ExtractText,
    Job,
    JobRefused,
    JobResult,
    PreparedDocument,
    PrepareDocument,
    decode_job,
    encode_frame,
)
from palaver.knowledge.read import decode, parse
from palaver.knowledge.split import PassageDraft, split
from palaver.knowledge.tokenize import Label, index

NICE = 5
"""Answering has priority over reading documents."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    memory, cpu_s, output, parent = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    _confine(memory, parent)
    gc.disable()  # its cost would grow with the size of the document
    try:
        while (job := _receive(sys.stdin.buffer)) is not None:
            # The timer counts CPU time and ends the process even while C code holds the interpreter.
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            frame = _run_to_frame(job, output)
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.stdout.buffer.write(frame)
            sys.stdout.buffer.flush()
            del job, frame  # free the memory before the next document
            gc.collect()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _confine(memory: int, parent: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # may be sent to the process group; the parent decides when to stop
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent has already died
            os._exit(0)


def _receive(stream: BinaryIO) -> Job | None:
    head = stream.read(LENGTH)
    size = int.from_bytes(head, "big")
    body = stream.read(size) if len(head) == LENGTH else b""
    return decode_job(body) if body and len(body) == size else None


def _run_to_frame(job: Job, output: int) -> bytes:
    try:
        frame = encode_frame(run_job(job))
    except UnreadableDocument as unreadable:
        return encode_frame(JobRefused(reason=unreadable.reason))
    except RecursionError:
        return encode_frame(JobRefused(reason="too deeply nested"))
    return (
        frame if len(frame) <= output else encode_frame(JobRefused(reason=f"what it says is more than {output} bytes"))
    )


def run_job(job: Job) -> JobResult:
    """Raises ``UnreadableDocument``."""
    match job:
        case ExtractText(html=html, limit=limit, content=content):
            return extract_text(content, limit, html=html)
        case PrepareDocument(name=name, kind=kind, content=content):
            return prepare_document(name, kind, content)
        case _:
            assert_never(job)


def extract_text(content: bytes, limit: int, *, html: bool) -> ExtractedText:
    """The visible text of HTML, or plain text in any encoding."""
    text = parse("page.html", "html", content).text if html else decode(content)
    if text is None:
        raise UnreadableDocument("it is neither text nor a picture")
    text = clean(text)
    return ExtractedText(text=text[:limit], more=max(0, len(text) - limit))


def prepare_document(name: str, kind: Kind, content: bytes) -> PreparedDocument:
    document = parse(name, kind, content)
    pieces = split(document.title, document.blocks)
    if not pieces:
        raise UnreadableDocument("no text in it")
    indexes = [index(_labelled(name, document.title, piece)) for piece in pieces]
    return PreparedDocument(
        title=document.title,
        headings=[piece.heading for piece in pieces],
        texts=[piece.text for piece in pieces],
        lengths=[one.length for one in indexes],
        words=[one.literal for one in indexes],
    )


def _labelled(name: str, title: str, piece: PassageDraft) -> list[tuple[str, Label]]:
    return [
        (piece.text, "D"),
        (title, "A"),
        (piece.heading, "B"),
        *((heading, "B") for heading in piece.inner),
        (name, "C"),
    ]


if __name__ == "__main__":
    main()
