"""Forms with files, read from bytes."""

from __future__ import annotations

import email.policy
from contextlib import suppress
from email.parser import BytesParser
from typing import Any

import pytest
from dialects.xspace.client import FORM_TYPE, form
from hypothesis import given
from hypothesis import strategies as st
from support.requirements import shows

from palaver.core.problems import Invalid
from palaver.dialects.xspace import requirements
from palaver.dialects.xspace.multipart import MAX_PARTS, FormPart, digest, parts
from palaver.wire.ranges import RangeNotSatisfiable, requested_range


class Bytes:
    """What a form is read from."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, start: int, end: int) -> bytes:
        return self._content[start:end]


def read(content_type: str, body: bytes) -> list[FormPart]:
    """The parts of a form that is in memory."""
    return parts(content_type, Bytes(body))


@shows(requirements.strict_multipart)
def test_fields_and_files_are_parsed() -> None:
    body = form(
        ('; name="file"; filename="a.txt"\r\nContent-Type: text/plain; charset=utf-8', b"one\r\n--b\r\n--b01\r\n"),
        ("; name=targetType", b"Chat"),
        ('; name="empty"; filename=""', b""),
    )
    for content_type in (FORM_TYPE, 'Multipart/Form-Data;BOUNDARY="b0" ; charset=utf-8'):
        file, target, empty = read(content_type, b"preamble\r\n" + body + b"epilogue")
        assert (file.name, file.filename, file.media_type) == ("file", "a.txt", "text/plain; charset=utf-8")
        assert file.content == b"one\r\n--b\r\n--b01\r\n"
        assert (target.name, target.filename, target.text) == ("targetType", None, "Chat")
        assert (empty.filename, empty.content) == ("", b"")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('; name="file"; filename="说明.md"', "说明.md"),
        ('; name="file"; filename="C:\\folder\\a.txt"', "a.txt"),
        ('; name="file"; filename="../../etc/passwd"', "passwd"),
        ('; name="file"; filename="a \\"b\\".txt"', 'a "b".txt'),
        ('; name="file"; filename="a %22b%22.txt"', 'a "b".txt'),
        ("; name=file; filename*=UTF-8''%E8%AF%B4.md", "说.md"),
        ("; filename=a.txt ; name=file", "a.txt"),
        ('; name="file"; filename="a;b.txt"', "a;b.txt"),
    ],
)
@shows(requirements.strict_multipart)
def test_a_file_name_has_no_folders(head: str, name: str) -> None:
    (file,) = read(FORM_TYPE, form((head, b"x")))
    assert (file.name, file.filename) == ("file", name)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form()),
        ("multipart/form-data; boundary=", form()),
        ("multipart/form-data; boundary=" + "x" * 71, form()),
        (FORM_TYPE, b""),
        (FORM_TYPE, b"--b0"),
        (FORM_TYPE, b"--b0\r\n"),
        (FORM_TYPE, form(('; name="a"', b"x"))[:-8]),
        (FORM_TYPE, form(("", b"x"))),
        (FORM_TYPE, form(('; name="a', b"x"))),
        (FORM_TYPE, b"--b0\r\n\r\nx\r\n--b0--\r\n"),
        (FORM_TYPE, b"--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n--b0--\r\n"),
        (FORM_TYPE, b"--b0\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b0--\r\n"),
        (FORM_TYPE, b"--b0\r\nContent-Disposition form-data; name=a\r\n\r\nx\r\n--b0--\r\n"),
        (FORM_TYPE, b"--b0\r\nContent-Disposition: form-data; name=\xff\r\n\r\nx\r\n--b0--\r\n"),
        (FORM_TYPE, form(('; name="a"\r\nX: ' + "x" * 20_000, b"x"))),
        (FORM_TYPE, form(*[("; name=a", b"")] * (MAX_PARTS + 1))),
    ],
)
@shows(requirements.strict_multipart)
def test_malformed_forms_are_rejected(content_type: str, body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read(content_type, body)
    assert caught.value.field == "multipart"


@shows(requirements.strict_multipart)
def test_other_media_types_have_no_parts_and_text_is_utf_8() -> None:
    assert read("application/json", b"{}") == []
    assert read("", b"") == []
    (field,) = read(FORM_TYPE, form(("; name=a", b"\xff")))
    with pytest.raises(Invalid):
        _ = field.text


@given(
    body=st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"--b0", b"\r\n", b"--", b" ", b"Content-Disposition: form-data; name=a", b"x"]), max_size=12
    ).map(b"".join)
)
@shows(requirements.strict_multipart)
def test_any_bytes_are_parsed_or_rejected(body: bytes) -> None:
    with suppress(Invalid):
        assert all(part.content in body for part in read(FORM_TYPE, body))


@given(
    contents=st.lists(
        st.binary(max_size=60).filter(lambda content: b"\r\n--b0" not in b"\r\n" + content + b"\r\n"),
        min_size=1,
        max_size=4,
    )
)
@shows(requirements.strict_multipart)
def test_the_standard_librarys_parser_agrees(contents: list[bytes]) -> None:
    body = form(
        *(
            (f'; name="f{at}"; filename="n"\r\nContent-Transfer-Encoding: binary', one)
            for at, one in enumerate(contents)
        )
    )
    assert [part.content for part in read(FORM_TYPE, body)] == contents
    head = f"Content-Type: {FORM_TYPE}\r\n\r\n".encode()
    message: Any = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    assert [part.get_param("name", header="content-disposition") for part in message.get_payload()] == [
        part.name for part in read(FORM_TYPE, body)
    ]


@shows(requirements.strict_multipart, requirements.idempotent_creation)
def test_a_digest_does_not_depend_on_the_boundary() -> None:
    fields = [('; name="file"; filename="a"', b"x"), ("; name=b", b"y")]
    one, two = (read(f"multipart/form-data; boundary={mark}", form(*fields, boundary=mark)) for mark in ("b1", "b2"))
    assert digest(one) == digest(two)
    for other in (
        [fields[0]],
        [fields[1], fields[0]],
        [fields[0], ("; name=b", b"z")],
        [('; name="file"', b"x"), fields[1]],
    ):
        if other != fields:
            other_parts = read(FORM_TYPE, form(*other))
            assert digest(other_parts) != digest(one) or len(other_parts) == len(one)
    assert digest(read(FORM_TYPE, form(fields[0], ("; name=b", b"z")))) != digest(one)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("items=0-1", None),
        ("bytes=0-0,2-3", None),
        ("bytes=0-3", (0, 4)),
        ("Bytes = 2-", (2, 8)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        ("bytes=5-99", (5, 5)),
        ("bytes= 9-9 ", (9, 1)),
    ],
)
@shows(requirements.ranges)
def test_a_range_is_start_and_length(header: str | None, span: tuple[int, int] | None) -> None:
    assert requested_range(header, 10) == span


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=5-4", "bytes=-0", "bytes=", "bytes=x", "bytes=1", "bytes=--1", "bytes=0-1,x"]
)
@shows(requirements.ranges)
def test_an_unsatisfiable_range(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range(header, 10)
