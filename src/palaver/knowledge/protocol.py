"""What a process that reads documents is asked, and what it answers. Values, each with its length before it."""

from __future__ import annotations

import msgspec

from palaver.knowledge.files import Kind

LENGTH = 4
"""Bytes of the number before a frame."""
OUT_OF_MEMORY = 71
"""The exit status of a process that needed more memory than it may have."""


class JobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the reading of one document may cost: bytes of memory, seconds on a processor and altogether, bytes of the
    answer."""

    memory: int
    cpu_s: float
    wall_s: float
    output: int


class ExtractText(msgspec.Struct, frozen=True, kw_only=True, tag="extract"):
    """The text of a document, ``limit`` characters of it."""

    html: bool
    limit: int
    content: bytes


class ExtractedText(msgspec.Struct, frozen=True, kw_only=True, tag="extracted"):
    """``more`` counts the characters beyond the limit."""

    text: str
    more: int


class PrepareDocument(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """A file, to be read, split and indexed."""

    name: str
    kind: Kind
    content: bytes


class PreparedDocument(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """A document ready to be stored. The sequences have an entry for each passage, as ``KnowledgeRepository.put`` takes
    them."""

    title: str
    headings: list[str]
    texts: list[str]
    lengths: list[int]
    words: list[str]


class JobRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The document was not read. ``reason`` is for a person."""

    reason: str


Job = ExtractText | PrepareDocument
JobResult = ExtractedText | PreparedDocument | JobRefused

decode_job = msgspec.msgpack.Decoder(Job).decode
decode_answer = msgspec.msgpack.Decoder(JobResult).decode


def encode_frame(message: Job | JobResult) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body
