"""Files beside messages: what the model gets to see of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.kit import product, read

from palaver.app import Core
from palaver.core.attachments import MAX_CHARACTERS, MAX_FILES, MAX_IMAGE_BYTES
from palaver.core.chat import NewMessage
from palaver.core.types import AgentSpec, AnyPart, File, Principal, Ref, StoredFile, Text

PNG = b"\x89PNG\r\n\x1a\n"


class Stage:
    """A product with one caller, whose agent says what stands in the files."""

    def __init__(self, core: Core, who: Principal) -> None:
        self.core = core
        self.who = who

    async def upload(self, name: str, content: bytes, media_type: str = "text/plain", user: str = "ann") -> StoredFile:
        return await self.core.services.files.add(
            self.who.acting_for(user), key=f"k/{user}/{name}", name=name, media_type=media_type, content=content
        )

    async def say(self, *parts: AnyPart, to: Ref | None = None, **spec: Any) -> tuple[str, Ref]:
        """What is answered, and the conversation."""
        app = await self.core.store.applications.get_or_create("acme")
        chosen: dict[str, Any] = {"name": "reader", "model": "scripted", "instructions": "- text: ${files}", **spec}
        agent = await self.core.store.agents.upsert(app, AgentSpec(**chosen))
        sent = await self.core.chat.send(self.who, agent, NewMessage(parts=(Text(text="?"), *parts)), conversation=to)
        _, (said, _) = await read(sent.reader)
        return "".join(part.text for part in said if isinstance(part, Text)), sent.conversation.id


@asynccontextmanager
async def stage(url: str, folder: Path) -> AsyncGenerator[Stage]:
    async with product(url, folder) as core:
        app = await core.store.applications.get_or_create("acme")
        key = await core.store.keys.create(app, "snail", "app-1", "SAI_1", {})
        yield Stage(core, Principal(key=key, user="ann"))


async def test_an_uploaded_file_is_read_by_its_key_its_uid_and_its_number(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        file = await on.upload("notes.txt", "价格是 5 元".encode())
        for ref in (file.key, file.uid.hex, str(file.uid), str(file.id)):
            assert (await on.say(File(ref=ref)))[0] == "价格是 5 元"


async def test_a_file_of_somebody_else_is_not_there(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        file = await on.upload("secret.txt", b"secret", user="bob")
        for ref in (file.key, file.uid.hex, str(file.id)):
            assert (await on.say(File(ref=ref)))[0] == f"[{ref}: there is no such file]"


async def test_a_later_turn_still_reads_the_file(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        file = await on.upload("menu.txt", b"Soup costs 4.\n\nTea costs 2.")
        _, conversation = await on.say(File(ref=file.key))
        answer, _ = await on.say(Text(text="What does tea cost?"), to=conversation, model="extract")
        assert "Tea costs 2." in answer
        assert "menu.txt" in answer


@pytest.mark.parametrize(
    ("name", "media_type", "content", "seen"),
    [
        ("a.html", "text/html", b"<p>Hi <b>you</b></p><script>x</script>", "Hi you"),
        ("a.html", "application/octet-stream", b"<p>Hi</p>", "Hi"),
        ("a.csv", "text/csv; charset=gbk", "价格,5".encode("gbk"), "价格,5"),
        ("a.json", "application/json", b'{"a": 1}', '{"a": 1}'),
        ("a", "application/octet-stream", b"plain", "plain"),
        ("a.png", "image/png", PNG, "[image/png]"),
        ("a.png", "application/octet-stream", PNG, "[image/png]"),
        ("a.bin", "application/octet-stream", b"\0\1\2", "[a.bin: it is neither text nor a picture]"),
        ("a.pdf", "application/pdf", b"%PDF-1.7", "[a.pdf: it is neither text nor a picture]"),
        ("a.mp3", "audio/mpeg", b"ID3", "[a.mp3: it is neither text nor a picture]"),
        ("a.svg", "image/svg+xml", b"<svg/>", "[a.svg: it is neither text nor a picture]"),
        ("empty.txt", "text/plain", b"", ""),
    ],
)
async def test_what_a_file_says_goes_by_its_kind(
    database_url: str, tmp_path: Path, name: str, media_type: str, content: bytes, seen: str
) -> None:
    async with stage(database_url, tmp_path) as on:
        file = await on.upload(name, content, media_type)
        assert (await on.say(File(ref=file.key, name=name)))[0] == seen


async def test_what_was_not_read_is_a_part_of_the_answer_and_a_line_in_the_log(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path) as on:
        file = await on.upload("deep.html", b"<div>" * 600, "text/html")
        app = await on.core.store.applications.get_or_create("acme")
        agent = await on.core.store.agents.upsert(app, AgentSpec(name="yes", model="scripted", instructions="yes"))
        message = NewMessage(parts=(File(ref=file.key, name="deep.html"), File(ref="none")), trace="t" * 32)
        with capture_logs() as logs:
            sent = await on.core.chat.send(on.who, agent, message)
            _, (parts, _) = await read(sent.reader)
        problems = ["too deeply nested (more than 512 levels)", "there is no such file"]
        assert [(part.ref, part.problem) for part in parts if isinstance(part, File)] == list(
            zip((file.key, "none"), problems, strict=True)
        )
        lines = [line for line in logs if line["event"] == "attachment not read"]
        assert [(line["name"], line["reason"], line["detail"]) for line in lines] == [
            ("deep.html", "content", problems[0]),
            ("none", "name", problems[1]),
        ]
        assert {(line["conversation"], line["trace"]) for line in lines} == {(sent.conversation.id, "t" * 32)}
        again = await on.core.chat.send(
            on.who, agent, NewMessage(parts=(Text(text="?"),)), conversation=sent.conversation.id
        )
        assert [type(part) for part in (await read(again.reader))[1][0]] == [Text]


async def test_more_than_a_model_takes_is_cut_and_said_so(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        long = await on.upload("long.txt", b"x" * (MAX_CHARACTERS + 7))
        short = await on.upload("short.txt", b"hello")
        answer, _ = await on.say(File(ref=long.key), File(ref=short.key))
        assert answer == "x" * MAX_CHARACTERS + "\n[… 7 more characters]\n\n[… 5 more characters]"
        half = await on.upload("half.png", PNG + bytes(MAX_IMAGE_BYTES // 2), "image/png")
        again = await on.upload("again.png", PNG + bytes(MAX_IMAGE_BYTES // 2), "image/png")
        answer, _ = await on.say(File(ref=half.key), File(ref=again.key))
        assert answer == "[image/png]\n[k/ann/again.png: the pictures are too large]"
        few = [File(ref=f"none/{number}") for number in range(MAX_FILES + 1)]
        assert (await on.say(*few))[0].endswith(f"none/{MAX_FILES}: not read]")
