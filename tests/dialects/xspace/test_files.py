"""Files: uploading, attaching, listing, downloading."""

from __future__ import annotations

import re
import tracemalloc
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from dialects.xspace.client import FORM_TYPE, UPLOAD, Caller, chat_path, data, enveloped, events, form, refused
from support.histories import LETTERS, TURNS, USER, long_conversation
from support.http_clients import Answer
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.xspace import requirements

SETTINGS: dict[str, Any] = {"max_upload_bytes": 2_000_000, "max_body_bytes": 1000}
RECORD = [
    *("id", "tenantId", "userId", "targetType", "targetId", "fileName", "size", "mimeType", "fileExtension"),
    *("metadata", "key", "storageType", "url", "authRequired", "status", "created", "modified"),
]


def send(
    caller: Caller, content: bytes, name: str = "a.txt", *, boundary: str = "b0", headers: dict[str, str] | None = None
) -> Answer:
    file = (f'; name="file"; filename="{name}"\r\nContent-Type: text/plain', content)
    all_headers = {"Content-Type": FORM_TYPE.replace("b0", boundary), **(headers or {})}
    return caller.post(UPLOAD, form(file, boundary=boundary), headers=all_headers)


@shows(requirements.upload_record, requirements.size_limit)
def test_an_upload_returns_its_record(caller: Caller) -> None:
    content = bytes(range(256)) * 5000
    fields = (
        ('; name="file"; filename="说明.TXT"\r\nContent-Type: text/plain', content),
        ('; name="targetType"', b"Chat"),
        ('; name="targetId"', b"7"),
        ('; name="metadata"', '{"a": "用"}'.encode()),
    )
    record = data(caller.post(UPLOAD, form(*fields), headers={"Content-Type": FORM_TYPE}))
    assert list(record) == RECORD
    assert re.fullmatch(r"local/chat/\d{8}/[0-9a-f]{32}\.TXT", record["key"])
    assert record["url"] == f"http://test/api/f/{record['key']}"
    assert (record["targetType"], record["targetId"], record["metadata"]) == ("Chat", 7, '{"a": "用"}')
    assert (record["fileName"], record["fileExtension"], record["size"]) == ("说明.TXT", "TXT", len(content))
    assert (record["mimeType"], record["storageType"], record["status"]) == ("text/plain", "local", "active")
    assert record["authRequired"] is True
    assert record["created"] == record["modified"]
    answer = caller.get(f"/api/f/{record['key']}")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (200, content, "text/plain")


@shows(requirements.upload_record)
def test_optional_upload_fields_have_defaults(caller: Caller) -> None:
    record = data(caller.post(UPLOAD, form(("; name=file; filename=x", b"")), headers={"Content-Type": FORM_TYPE}))
    assert re.fullmatch(r"local/default/\d{8}/[0-9a-f]{32}", record["key"])
    assert (record["targetType"], record["targetId"], record["metadata"]) == ("Default", -1, None)
    assert (record["mimeType"], record["fileExtension"], record["size"]) == ("application/octet-stream", "", 0)


@shows(requirements.upload_errors, requirements.size_limit, requirements.strict_multipart)
def test_an_upload_that_breaks_a_rule_is_refused(caller: Caller) -> None:
    missing = ("4000", "Required part 'file' is not present.")
    refused(caller.post(UPLOAD, {}), *missing)
    refused(caller.post(UPLOAD, form(("; name=file", b"x")), headers={"Content-Type": FORM_TYPE}), *missing)
    refused(caller.post(UPLOAD, form(("; name=x; filename=x", b"x")), headers={"Content-Type": FORM_TYPE}), *missing)
    broken = caller.post(UPLOAD, b"--b0", headers={"Content-Type": FORM_TYPE})
    refused(broken, "4000", "Failed to parse multipart servlet request")
    refused(send(caller, bytes(2_000_001)), "4000", "Request body too large")
    refused(caller.post(chat_path(1), bytes(1001)), "4000", "Request body too large")
    for name, value in (("targetType", b"../x"), ("targetId", b"x")):
        fields = (("; name=file; filename=x", b"x"), (f"; name={name}", value))
        refused(
            caller.post(UPLOAD, form(*fields), headers={"Content-Type": FORM_TYPE}), "4000", f"Invalid value of {name}"
        )


@shows(requirements.idempotent_creation, requirements.idempotency_form)
def test_an_upload_is_idempotent_regardless_of_its_boundary(caller: Caller) -> None:
    key = {"Idempotency-Key": "file"}
    first, second = (send(caller, b"x", boundary=mark, headers=key) for mark in ("b1", "b2"))
    assert first.body == second.body
    assert second.header("Idempotency-Replayed") == "true"
    assert send(caller, b"y", headers=key).json()["code"] == "4220"


@shows(requirements.stored_file, requirements.conversation_owners)
def test_a_file_belongs_to_its_owner(served: Served, caller: Caller) -> None:
    key = data(send(caller, b"mine"))["key"]
    path = f"/api/f/{key}"
    for stranger in (
        Caller(served, default_user="bob"),
        Caller(served, served.key("xspace", application="another")),
    ):
        assert stranger.get(path).status == 403
        assert stranger.get(path[:-36] + "0" * 32 + ".txt").status == 404
    nobody = Caller(served, caller.key)
    nobody.auth = None
    assert nobody.get(path).status == 403
    nobody.auth = "ak-bad"
    assert nobody.get(path).status == 403
    refused(caller.get("/api/f/x"), "4040", "No static resource api/f/x.")
    assert caller.get("/api/f/local/default/20260101/x").status == 404
    refused(caller.post(path), "4050", "Request method 'POST' is not supported")


@shows(requirements.ranges)
def test_a_file_is_read_in_ranges(caller: Caller) -> None:
    path = f"/api/f/{data(send(caller, b'0123456789'))['key']}"
    whole = caller.get(path)
    assert whole.header("Accept-Ranges") == "bytes"
    tag, modified = whole.header("ETag") or "", whole.header("Last-Modified") or ""
    assert re.fullmatch('"[0-9a-f]{32}"', tag)
    assert parsedate_to_datetime(modified).tzinfo is not None
    part = caller.get(path, headers={"Range": "bytes=2-4"})
    assert (part.status, part.body, part.header("Content-Range")) == (206, b"234", "bytes 2-4/10")
    assert part.header("ETag") == tag
    bad = caller.get(path, headers={"Range": "bytes=10-"})
    assert (bad.status, bad.header("Content-Range")) == (416, "bytes */10")
    assert caller.get(path, headers={"Range": "bytes=2-4", "If-Range": tag}).status == 206
    assert caller.get(path, headers={"Range": "bytes=2-4", "If-Range": modified}).status == 206
    assert caller.get(path, headers={"Range": "bytes=2-4", "If-Range": '"x"'}).body == b"0123456789"


@shows(requirements.conversation_files, requirements.ranges)
def test_a_conversations_files_have_unique_names(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("ok"))
    keys = [data(send(caller, content))["key"] for content in (b"one", b"two", b"three")]
    names = ["说 明/a.txt", "说 明/a.txt", ""]
    for key, name in zip(keys, names, strict=True):
        attachment = {"fileKey": key, "fileName": name, "mimeType": "text/plain"}
        events(caller.post(chat_path(conversation), {"message": "x", "attachments": [attachment]}))
    events(
        caller.post(
            chat_path(conversation), {"message": "x", "attachments": [{"fileKey": keys[0], "fileName": "again"}]}
        )
    )
    listed = data(caller.get(f"{chat_path(conversation)}/files"))["files"]
    assert [one["fileId"] for one in listed] == keys
    assert list(listed[0]) == [
        *("fileId", "name", "binary", "sizeExceeded", "contents", "fileProxyUrl", "isDir", "isLink"),
    ]
    assert listed[1]["name"].endswith(" (2).txt")
    for one, content in zip(listed, (b"one", b"two", b"three"), strict=True):
        answer = caller.get(one["fileProxyUrl"])
        assert (answer.status, answer.body) == (200, content)
        assert caller.get(one["fileProxyUrl"], headers={"Range": "bytes=0-1"}).body == content[:2]


@shows(requirements.external_files)
@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://files.example/a%20b.png?x=1&y=%C3%A9#top", "https://files.example/a%20b.png?x=1&y=%C3%A9#top"),
        (
            "http://files.example/菜 单\r\nSet-Cookie: a=b",
            "http://files.example/%E8%8F%9C%20%E5%8D%95%0D%0ASet-Cookie:%20a=b",
        ),
    ],
)
def test_an_external_file_is_a_redirect(served: Served, caller: Caller, url: str, target: str) -> None:
    conversation = caller.add(served.agent("ok"))
    attachment = {"fileUrl": url, "fileName": "a.png"}
    events(caller.post(chat_path(conversation), {"message": "x", "attachments": [attachment]}))
    (listed,) = data(caller.get(f"{chat_path(conversation)}/files"))["files"]
    answer = caller.get(listed["fileProxyUrl"])
    assert (answer.status, answer.body, answer.header("Location")) == (302, b"", target)
    assert answer.header("Set-Cookie") is None


@pytest.mark.parametrize(("path", "status"), [("nothing.txt", 404), ("", 400)])
@shows(requirements.conversation_files)
def test_a_missing_file_has_an_error_status(served: Served, caller: Caller, path: str, status: int) -> None:
    conversation = caller.add(served.agent("ok"))
    answer = caller.get(f"{chat_path(conversation)}/file/{path}")
    assert answer.status == status
    assert not answer.json()["success"]


@shows(requirements.conversation_files, requirements.conversation_owners)
def test_another_users_conversation_has_no_files(served: Served, caller: Caller) -> None:
    bob = Caller(served, default_user="bob")
    conversation = caller.add(served.agent("ok"))
    key = data(send(caller, b"mine"))["key"]
    events(caller.post(chat_path(conversation), {"attachments": [{"fileKey": key, "fileName": "a.txt"}]}))
    for ref in (conversation, 999_999, "x"):
        assert bob.get(f"{chat_path(ref)}/file/a.txt").status == 404
        refused(bob.get(f"{chat_path(ref)}/files"), "0001", "Invalid conversationId")
    theirs = bob.add(served.agent("ok"))
    events(bob.post(chat_path(theirs), {"attachments": [{"fileKey": key, "fileName": "a.txt"}]}))
    assert bob.get(f"{chat_path(theirs)}/file/a.txt").status == 404
    assert enveloped(bob.get(f"{chat_path(theirs)}/files"))["success"]


@shows(requirements.conversation_files)
def test_the_files_of_a_long_conversation_are_found_without_its_texts(served: Served) -> None:
    conversation = long_conversation(served)
    caller = Caller(served, default_user=USER)
    tracemalloc.start(1)
    try:
        answer = caller.get(f"/api/v1/chat/{conversation.id}/files")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data(answer)["files"] == []
    assert peak < TURNS * LETTERS * 2
