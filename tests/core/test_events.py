"""fold and unfold are each other's inverse, from every cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.core.events import Draft, Event, PartAdded, PartStarted, Piece, TextDelta, fold, join, unfold
from palaver.core.problems import Internal
from palaver.core.types import (
    AnyPart,
    File,
    RunEnded,
    Status,
    StreamedPart,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
)

words = st.text(max_size=30)
pockets = st.none() | st.dictionaries(words, st.integers(), max_size=2)
growing: st.SearchStrategy[StreamedPart] = st.builds(
    Text, text=words, provider_data=pockets, final_data=pockets
) | st.builds(Thinking, text=words, provider_data=pockets, final_data=pockets)
whole: st.SearchStrategy[AnyPart] = (
    st.builds(ToolCall, call_id=words, name=words, arguments=st.dictionaries(words, words, max_size=2))
    | st.builds(ToolResult, call_id=words, name=words, content=words, error=st.booleans())
    | st.builds(File, ref=words, name=words)
)
parts = st.lists(growing | whole, max_size=6).map(tuple)
ends = st.none() | st.builds(
    RunEnded,
    status=st.sampled_from(Status),
    reason=words,
    usage=st.builds(Usage, prompt=st.none() | st.integers(0, 10**9)),
    problem=st.none() | st.just(Internal(reason="interrupted")),
)
contents = st.tuples(parts, ends)


def cut(events: list[Event], data: st.DataObject) -> list[Event]:
    """The same events with their text cut elsewhere."""
    pieces: list[Event] = []
    for event in events:
        if isinstance(event, TextDelta) and len(event.text) > 1:
            at = data.draw(st.integers(1, len(event.text) - 1))
            pieces += [TextDelta(text=event.text[:at]), TextDelta(text=event.text[at:])]
        else:
            pieces.append(event)
    return pieces


@given(contents)
def test_what_unfold_tells_fold_writes(content: tuple[tuple[AnyPart, ...], RunEnded | None]) -> None:
    assert fold(unfold(content)) == content


@given(contents, st.data())
def test_how_text_is_cut_changes_nothing(
    content: tuple[tuple[AnyPart, ...], RunEnded | None], data: st.DataObject
) -> None:
    assert fold(cut(unfold(content), data)) == content


@given(contents, st.data())
def test_a_reader_cut_off_at_any_cursor_ends_with_the_same_message(
    content: tuple[tuple[AnyPart, ...], RunEnded | None], data: st.DataObject
) -> None:
    whole_draft = Draft(*content)
    cursor = data.draw(st.integers(0, whole_draft.steps + 2))
    seen = Draft()
    for event in cut(unfold(content), data):
        before = seen.steps
        size = len(event.text) if isinstance(event, TextDelta) else 1
        if before + size > cursor:
            if isinstance(event, TextDelta) and cursor > before:
                seen.apply(TextDelta(text=event.text[: cursor - before]))
            break
        seen.apply(event)
    assert seen.steps == min(cursor, whole_draft.steps)
    for event in unfold(content, after=cursor):
        seen.apply(event)
    assert seen.content() == content


@given(contents, st.data())
def test_readers_at_any_pace_see_the_same(
    content: tuple[tuple[AnyPart, ...], RunEnded | None], data: st.DataObject
) -> None:
    events = cut(unfold(content), data)
    draft, place, events_read = Draft(), Draft().cursor(0), list[Event]()
    for event in events:
        draft.apply(event)
        if data.draw(st.booleans()):
            events_read += draft.read(place)
            assert place.steps == draft.steps
    events_read += draft.read(place)
    assert draft.at_end(place) is (content[1] is not None)
    assert fold(events_read) == content
    assert draft.read(place) == []


@given(contents)
def test_every_step_is_a_cursor_that_can_be_taken_up(content: tuple[tuple[AnyPart, ...], RunEnded | None]) -> None:
    draft = Draft(*content)
    for cursor in range(draft.steps + 1):
        place = draft.cursor(cursor)
        assert place.steps == cursor
        rest = draft.read(place)
        assert place.steps == draft.steps
        assert sum(len(event.text) if isinstance(event, TextDelta) else 1 for event in rest) == draft.steps - cursor


def test_text_keeps_every_line_ending() -> None:
    text = "a\r\nb\rc\nd\u2028e\x85f"
    draft = Draft()
    draft.apply(PartStarted(part=Text()))
    for char in text:
        draft.apply(TextDelta(text=char))
    assert draft.parts() == (Text(text=text),)


def test_a_growing_part_at_the_end_is_taken_up_where_it_stands() -> None:
    draft = Draft([Text(text="Hel")])
    place = draft.cursor(99)
    draft.apply(TextDelta(text="lo"))
    assert draft.read(place) == [TextDelta(text="lo")]


@pytest.mark.parametrize("event", [TextDelta(text="x"), PartStarted(part=Text()), PartAdded(part=File(ref="f"))])
def test_nothing_follows_the_end(event: Event) -> None:
    draft = Draft([Text(text="a")], RunEnded(status=Status.COMPLETE))
    with pytest.raises(ValueError, match="after the end"):
        draft.apply(event)


def test_text_without_a_part_to_stand_in_is_refused() -> None:
    with pytest.raises(ValueError, match="without an open part"):
        Draft().apply(TextDelta(text="x"))


@given(contents, st.integers(1, 40))
def test_a_reader_gets_as_much_as_it_takes_at_a_time_and_all_of_it(
    content: tuple[tuple[AnyPart, ...], RunEnded | None], most: int
) -> None:
    draft = Draft(*content)
    place, events = draft.cursor(0), list[Event]()
    while taken := draft.read(place, most):
        assert sum(len(event.text) for event in taken if isinstance(event, TextDelta)) <= most * len(content[0])
        assert all(len(event.text) <= most for event in taken if isinstance(event, TextDelta))
        events += taken
    assert fold(events) == content
    assert place.steps == draft.steps


@given(contents, st.data(), st.integers(1, 40))
def test_pieces_saved_at_any_pace_make_the_message(
    content: tuple[tuple[AnyPart, ...], RunEnded | None], data: st.DataObject, limit: int
) -> None:
    draft = Draft()
    saved, read = draft.cursor(0), draft.cursor(0)
    pieces: list[Piece] = []
    events: list[Event] = []

    def save() -> None:
        while saved.steps < draft.steps:
            pieces.append(draft.growth(saved, limit))

    for event in unfold((content[0], None)):
        draft.apply(event)
        if data.draw(st.booleans()):
            save()
            events += draft.read(read)
    save()
    events += draft.read(read)
    assert join((), pieces) == content[0]
    assert [piece.start for piece in pieces] == sorted({piece.start for piece in pieces})
    told = [event for piece in pieces for event in piece.events()]
    assert fold(told) == fold(events) == (content[0], None)
    known = data.draw(st.integers(0, len(pieces)))
    assert join(join((), pieces[:known]), pieces[known:]) == content[0]
