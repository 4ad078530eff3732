"""Text to lexemes, for indexing passages and for queries. Pure.

Every text is folded (NFKC, case, accents) and split into tokens of two kinds. Chinese, Japanese and Korean are written
without spaces: a run of n characters yields its n characters and its n - 1 pairs, so every word of two characters is
found without a dictionary. Everything else is words; one with signs inside (``openai:gpt-4o``, ``max_body_bytes``,
``maxBodyBytes``) yields its pieces and the whole without the signs, so that every spelling of it finds every other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal, Protocol, cast

import snowballstemmer  # pyright: ignore[reportMissingTypeStubs]

from palaver.core.stopwords import CHINESE, ENGLISH, PARTICLES, STRONG_PARTICLES
from palaver.core.types import Value, clean

INDEX_VERSION = 1
"""Increment it whenever reading, splitting or indexing changes: documents added again are then indexed again."""

Label = Literal["A", "B", "C", "D"]
"""The part that contains a word: A title, B heading, C the file's name, D text. PostgreSQL's four weights."""

MAX_LEXEME = 120
"""Maximum characters of a lexeme (PostgreSQL: 2,046 bytes). Longer words are truncated, in texts and questions."""
MAX_POSITION = 16_383
MAX_POSITIONS = 255
MAX_INDEX = 900_000
"""Maximum bytes of a tsvector's words and positions (PostgreSQL: 1 MB)."""
MAX_QUERY_LEXEMES = 64
"""Maximum distinct lexemes of a question."""
MAX_QUESTION = 8_000
"""Maximum characters of a question that are used: half from its beginning, half from its end."""
MAX_CACHED = 40
"""Maximum characters of a word that is cached, which limits the size of the cache."""
MAX_PIECES = 8
"""Maximum pieces of a word with signs inside that is also indexed as a whole; URLs have more."""

_PAIRED = (
    "\u1100-\u11ff\u3005\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3100-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, kana, bopomofo, Hangul: scripts without spaces, or with inflections for which pairs work better."""
_LETTER = rf"[^\W_{_PAIRED}]"
_TOKEN = re.compile(
    rf"(?P<run>[{_PAIRED}](?:[ \t]*\n[ \t]*(?=[{_PAIRED}])|[{_PAIRED}])*)"
    rf"|(?P<word>{_LETTER}+(?:[-_.:/@\\'’]{{1,3}}{_LETTER}+)*(?:[+#]{{1,2}}(?!\w))?)"
)
_PAIR = re.compile(rf"[{_PAIRED}]{{2}}")
_BREAK = re.compile(r"[ \t]*\n[ \t]*")
_JOINTS = re.compile(r"[:/@\\]+")
_SIGNS = re.compile(r"[-_.]+")
_SPELLED = re.compile(r"(?<!\d)[-_.:/@\\]+|[-_.:/@\\]+(?!\d)")
"""Signs to ignore, except between digits: 3.11 is not 311."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ACCENTS = dict.fromkeys(range(0x300, 0x370))
_HUMPS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_KANA = re.compile(r"[\u3041-\u309f]{2}")
_STOPS = re.compile("|".join(sorted(CHINESE, key=len, reverse=True)))


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str: ...  # noqa: N802  snowball's name


class PassageIndex(Value, frozen=True, kw_only=True):
    """The index of a passage. ``literal`` is a ``tsvector`` literal; ``length`` is the number of words with label D,
    where every character of a run counts as one."""

    literal: str
    length: int


class QueryLexeme(Value, frozen=True, kw_only=True):
    """A lexeme of a question. ``weight`` (0 to 1) is its weight if the index contains it, ``missed`` if it does not.

    An unknown word adds two or three unknown pairs, including those across its borders, so a pair counts half when
    missed; so does a piece of a word. ``beside`` has the positions (in the question's list) of two other lexemes that
    cover the same characters. If the index contains both of them, this lexeme is not a word but a pair across the
    border of two words, or one of several spellings; it then does not count as missed.
    """

    lexeme: str
    weight: float
    missed: float
    beside: tuple[int, int] | None = None


class _Word(Value, frozen=True, kw_only=True):
    """The lexemes of a word: consecutive ``pieces``, and ``wholes``, each with the first and last piece it spans."""

    pieces: tuple[str, ...]
    wholes: tuple[tuple[str, int, int], ...] = ()


def index(parts: Iterable[tuple[str, Label]]) -> PassageIndex:
    """Index the texts ``parts``, each with its label."""
    places: dict[str, list[str]] = {}
    position = 0
    length = 0
    for text, label in parts:
        mark = "" if label == "D" else label
        for lexemes in _stations(text):
            position += 1
            length += label == "D"
            for lexeme in lexemes:
                positions = places.setdefault(lexeme, [])
                if len(positions) < MAX_POSITIONS and position <= MAX_POSITION:
                    positions.append(f"{position}{mark}")
    return PassageIndex(literal=_literal(places), length=length)


def _literal(places: dict[str, list[str]]) -> str:
    written: list[str] = []
    room = MAX_INDEX
    for lexeme, positions in places.items():
        room -= len(lexeme.encode()) + 2 * len(positions) + 4
        if room < 0:
            break
        quoted = lexeme.replace("\\", "\\\\").replace("'", "''")
        written.append(f"'{quoted}':{','.join(positions)}" if positions else f"'{quoted}'")
    return " ".join(written)


def _stations(text: str) -> Iterator[list[str]]:
    """The lexemes at each position of ``text``."""
    for token in tokenize(text):
        if isinstance(token, str):
            for place, character in enumerate(token):
                pair = token[place : place + 2]
                yield [character, pair] if len(pair) == 2 else [character]
        else:
            stations = [[piece] for piece in token.pieces]
            for whole, first, _ in token.wholes:
                stations[first].append(whole)
            yield from stations


def tokenize(text: str) -> Iterator[str | _Word]:
    """Runs of characters without spaces as ``str``, words as ``_Word``, in the order of ``text``."""
    text = unicodedata.normalize("NFKC", clean(text))
    for match in _TOKEN.finditer(_THOUSANDS.sub("", text)):
        if match.lastgroup == "run":
            yield _BREAK.sub("", match.group())
        else:
            yield _word(match.group())


def _word(written: str) -> _Word:
    return _cached_word(written) if len(written) <= MAX_CACHED else _new_word(written)


@lru_cache(maxsize=65_536)
def _cached_word(written: str) -> _Word:
    return _new_word(written)


def _new_word(written: str) -> _Word:
    written = written.replace("’", "'")
    bare = written.rstrip("+#")
    pieces: list[str] = []
    wholes: list[tuple[str, int, int]] = []
    parts = _JOINTS.split(bare)
    for part in parts:
        first = len(pieces)
        pieces += [_lexeme(piece) for sign in _SIGNS.split(part) for piece in _humps(sign.strip("'")) if piece]
        if 1 < len(pieces) - first <= MAX_PIECES:
            wholes.append((_lexeme(_SPELLED.sub("", part)), first, len(pieces) - 1))
    if 1 < len(parts) <= len(pieces) <= MAX_PIECES:
        wholes.append((_lexeme(_SPELLED.sub("", bare)), 0, len(pieces) - 1))
    if bare != written:
        wholes.append((_fold(written)[:MAX_LEXEME], 0, len(pieces) - 1))
    return _Word(pieces=tuple(pieces), wholes=tuple(wholes))


def _humps(word: str) -> list[str]:
    """Split ``maxBodyBytes``. A name like GitHub or JavaScript stays whole: "java" must not find it."""
    humps = _HUMPS.findall(word)
    if "".join(humps) != word or len(humps) < (2 if word[:1].islower() else 3) or min(map(len, humps)) < 2:
        return [word]
    return humps


def _lexeme(word: str) -> str:
    folded = _fold(word)
    return _stem(folded) if folded.isascii() and folded.replace("'", "").isalpha() else folded[:MAX_LEXEME]


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFD", word.casefold()).translate(_ACCENTS)) or word


def _stem(word: str) -> str:
    # Stemmers have state and are not thread-safe; creating one per word costs next to nothing.
    english = cast("_Stemmer", cast("Any", snowballstemmer).stemmer("english"))
    return english.stemWord(word[:MAX_LEXEME]).strip("'") or word[:MAX_LEXEME]


def _shortened(question: str) -> str:
    if len(question) <= MAX_QUESTION:
        return question
    return f"{question[: MAX_QUESTION // 2]}\n{question[-MAX_QUESTION // 2 :]}"


def query_lexemes(question: str) -> list[QueryLexeme]:
    """The lexemes to search for, at most ``MAX_QUERY_LEXEMES``. Stop words ("how", 怎么) are omitted, unless one is
    the whole question."""
    # A single character may become eighteen when it is normalized.
    question = _shortened(unicodedata.normalize("NFKC", clean(_shortened(question))))
    tokens = list(tokenize(question))
    query = _Question()
    for token in tokens:
        if isinstance(token, str):
            query.run(token)
        else:
            query.word(token)
    if not query.weights and len(tokens) == 1:
        query.verbatim(tokens[0])
    return query.lexemes()


class _Question:
    """Collects the distinct lexemes of a question in order."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self._beside: dict[str, tuple[str, str]] = {}
        self._parts: set[str] = set()

    def run(self, run: str) -> None:
        """Add a run of characters: the pairs between stop words."""
        for segment in _STOPS.split(run):
            if len(segment) == 1 and (segment == run or segment not in PARTICLES):
                self.weights.setdefault(segment, 1 if segment == run else 0.5)
            pairs = [segment[place : place + 2] for place in range(len(segment) - 1)]
            for pair in pairs:
                self.weights.setdefault(pair, _pair_weight(pair))
            for before, pair, after in zip(pairs, pairs[1:], pairs[2:], strict=False):
                self._beside.setdefault(pair, (before, after))

    def word(self, word: _Word) -> None:
        """Add a word: its wholes with full weight, its pieces with half."""
        for piece in word.pieces:
            if piece not in _ENGLISH_STEMS:
                self.weights.setdefault(piece, 0.5 if word.wholes else 1)
        if word.wholes:
            self._parts.update(word.pieces)
        for whole, first, last in word.wholes:
            self.weights.setdefault(whole, 1)
            self._beside.setdefault(whole, (word.pieces[first], word.pieces[last]))

    def verbatim(self, token: str | _Word) -> None:
        """Add a stop word that is the whole question."""
        if isinstance(token, str) and token not in CHINESE:
            return
        lexemes = (
            token.pieces if isinstance(token, _Word) else [token[place : place + 2] for place in range(len(token) - 1)]
        )
        self.weights.update(dict.fromkeys(lexemes, 1))

    def lexemes(self) -> list[QueryLexeme]:
        """The lexemes; if there are too many, the first and the last: the point of a long question is at one end."""
        selected = list(self.weights)
        if len(selected) > MAX_QUERY_LEXEMES:
            selected = [*selected[: MAX_QUERY_LEXEMES // 2], *selected[-MAX_QUERY_LEXEMES // 2 :]]
        places = {lexeme: place for place, lexeme in enumerate(selected)}
        result: list[QueryLexeme] = []
        for lexeme in selected:
            before, after = self._beside.get(lexeme, ("", ""))
            beside = (places[before], places[after]) if before in places and after in places else None
            weight = self.weights[lexeme]
            missed = weight / 2 if lexeme in self._parts or _PAIR.fullmatch(lexeme) else weight
            result.append(QueryLexeme(lexeme=lexeme, weight=weight, missed=missed, beside=beside))
        return result


def _pair_weight(pair: str) -> float:
    if not STRONG_PARTICLES.isdisjoint(pair):
        return 0.1
    return 0.3 if _KANA.fullmatch(pair) or not PARTICLES.isdisjoint(pair) else 1.0


_ENGLISH_STEMS = frozenset(_lexeme(word) for word in ENGLISH)
