"""Jobs and results exchanged with the processes that read documents: length-prefixed MessagePack frames."""

from __future__ import annotations

import msgspec

from palaver.knowledge.files import Kind

LENGTH = 4
"""Bytes of a frame's length prefix (big-endian)."""
OUT_OF_MEMORY = 71
"""The exit status of a process that exceeded its memory limit."""


class JobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for reading one document: bytes of memory, seconds of CPU and wall-clock time, bytes of the result."""

    memory: int
    cpu_s: float
    wall_s: float
    output: int


class ExtractText(msgspec.Struct, frozen=True, kw_only=True, tag="extract"):
    """Extract the text of a document, at most ``limit`` characters."""

    html: bool
    limit: int
    content: bytes


class ExtractedText(msgspec.Struct, frozen=True, kw_only=True, tag="extracted"):
    """``more`` counts the characters beyond the limit."""

    text: str
    more: int


class PrepareDocument(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """Read, split and index a file."""

    name: str
    kind: Kind
    content: bytes


class PreparedDocument(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """A document ready to be stored. The lists have one entry per passage, as in ``KnowledgeRepository.put``."""

    title: str
    headings: list[str]
    texts: list[str]
    lengths: list[int]
    words: list[str]


class JobRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The document was not read. ``reason`` is human-readable."""

    reason: str


Job = ExtractText | PrepareDocument
JobResult = ExtractedText | PreparedDocument | JobRefused

decode_job = msgspec.msgpack.Decoder(Job).decode
decode_result = msgspec.msgpack.Decoder(JobResult).decode


def encode_frame(message: Job | JobResult) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body
