"""Event streams, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.models.sse import LineSplitter, SseEvent, SseParser, SseTooLong


def read(*pieces: bytes) -> list[SseEvent]:
    events = SseParser()
    return [event for piece in pieces for event in events.feed(piece)]


def data(*pieces: bytes) -> list[bytes]:
    return [event.data for event in read(*pieces)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_ends_with_a_blank_line_of_any_kind(end: bytes) -> None:
    assert data(end.join([b"data: one", b"", b"data: two", b"", b""])) == [b"one", b"two"]


def test_a_cr_and_an_lf_in_two_reads_end_one_line() -> None:
    assert data(b"data: a\r", b"\n", b"data: b\r", b"\n\r", b"\n") == [b"a\nb"]


def test_an_lf_after_a_whole_crlf_in_pieces_is_a_line_end_of_its_own() -> None:
    assert data(b"data: a\r", b"\n", b"", b"\n") == [b"a"]


def test_one_space_after_the_colon_is_not_data_and_a_second_one_is() -> None:
    assert data(b"data:a\n\ndata: a\n\ndata:  a\n\n") == [b"a", b"a", b" a"]


def test_several_data_lines_are_joined_by_lf() -> None:
    assert data(b"data: {\ndata: }\ndata\n\n") == [b"{\n}\n"]


def test_comments_ids_and_events_without_data_are_passed_over() -> None:
    assert data(b": keep-alive\n\nid: 1\nretry: 5\n\nevent: ping\n\ndata: x\nid: 2\n\n") == [b"x"]


def test_the_name_belongs_to_its_event_alone() -> None:
    assert read(b"event: error\ndata: a\n\ndata: b\n\n") == [SseEvent(b"error", b"a"), SseEvent(b"", b"b")]


def test_a_name_without_data_is_forgotten() -> None:
    assert read(b"event: error\n\ndata: b\n\n") == [SseEvent(b"", b"b")]


def test_a_byte_order_mark_is_passed_over_even_when_it_comes_in_pieces() -> None:
    assert data(b"\xef", b"\xbb", b"\xbfdata: a\n\n", b"data: \xef\xbb\xbf\n\n") == [b"a", b"\xef\xbb\xbf"]


def test_the_end_completes_an_event_without_its_blank_line() -> None:
    for rest in (b"data: a", b"data: a\n", b"data: a\r", b"data: a\r\n"):
        events = SseParser()
        assert not events.feed(rest)
        assert [event.data for event in events.end()] == [b"a"]
        assert not events.end()


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 5] * 2 + [b"x"], [b"a\n" + b"x" * 11], [b"x" * 11 + b"\n"]])
def test_a_line_over_the_limit_is_refused_whether_it_comes_whole_or_in_pieces(pieces: list[bytes]) -> None:
    lines = LineSplitter(limit=10)
    for piece in pieces[:-1]:
        lines.feed(piece)
    with pytest.raises(SseTooLong, match="10 bytes"):
        lines.feed(pieces[-1])


def test_an_event_of_many_short_lines_has_a_limit_too() -> None:
    events = SseParser(limit=30)
    with pytest.raises(SseTooLong):
        events.feed(b"data: 1234\n" * 5)


def test_a_limit_counts_each_event_for_itself() -> None:
    events = SseParser(limit=12)
    assert len(events.feed(b"data: 1234\n\n" * 5)) == 5


LINE = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"event: error", b": x", b"id: 7", b"", b"", "data: é中".encode()]
)


@given(
    lines=st.lists(st.tuples(LINE, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 150), max_size=12),
)
def test_where_a_stream_is_cut_changes_nothing(lines: list[tuple[bytes, bytes]], bom: bool, cuts: list[int]) -> None:
    whole = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines)
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(places)]
    one, many = SseParser(), SseParser()
    expected = one.feed(whole) + one.end()
    assert [event for piece in pieces for event in many.feed(piece)] + many.end() == expected
