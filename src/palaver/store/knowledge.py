"""Knowledge bases: their documents, and the search. Implements what ``palaver.knowledge`` needs of a store.

The search is BM25 in one statement over the full-text index. What the words of a text are is not decided here: they
come as ``tsvector`` literals and lexemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from palaver.core.ports.admin import Document, KnowledgeBase
from palaver.core.types import MAX_ID, Passage, Ref, as_number, as_uid, clean, new_uid
from palaver.store.database import Database, Row

BATCH = 200
"""Passages written by one statement, each of which has a few seconds."""

_BASES = """
SELECT k.*, coalesce(d.documents, 0) AS documents, coalesce(d.passages, 0) AS passages
FROM knowledge k LEFT JOIN (
    SELECT knowledge, count(*) AS documents, sum(passages)::bigint AS passages
    FROM document WHERE app = $1 GROUP BY knowledge
) d ON d.knowledge = k.id
WHERE k.app = $1"""

_PUT_DOCUMENT = """
INSERT INTO document AS d (app, uid, knowledge, source, root, title, kind, digest, passages, length)
VALUES ($1, $5, $2, $3, $4, $6, $7, $8, $9, $10)
ON CONFLICT (app, knowledge, root, source) DO UPDATE SET title = excluded.title, kind = excluded.kind,
    digest = excluded.digest, passages = excluded.passages, length = excluded.length, modified = now()"""
_DOCUMENT = "(SELECT id FROM document WHERE app = $1 AND knowledge = $2 AND source = $3 AND root = $4)"
_FORGET_PASSAGES = f"DELETE FROM passage WHERE app = $1 AND document = {_DOCUMENT}"
_PUT_PASSAGES = f"""
INSERT INTO passage (app, knowledge, document, place, heading, text, length, words)
SELECT $1, $2::bigint, {_DOCUMENT}, $5 + p.place, p.heading, p.text, p.length,
    p.words::tsvector || ('''@' || $2 || '''')::tsvector
FROM unnest($6::text[], $7::text[], $8::integer[], $9::text[])
    WITH ORDINALITY AS p (heading, text, length, words, place)"""

K1, B = 1.2, 0.75
"""BM25: how soon more of the same word stops to matter, and how much a long passage is held back."""
UNSEEN = 10
"""Passages imagined beside those there are. With three passages, a word in all of them still says something."""
CEILING = 5.3
"""What a word can be worth: as much as one that is in every 200th passage. Above that, rarity is chance."""
FLOOR = 0.3
"""The part of a question's worth that a passage has to have; a question of many words counts its best ``COUNTED``."""
COUNTED = 10
ROUGH = 2000
"""Passages of the most worth, which are then put in order roughly, by ``ts_rank`` …"""
CLOSE = 100
"""… so that the words of the best few can be counted, which takes thirty times as long."""

# ``hit`` asks the index for each lexeme and brings home row numbers only (``OFFSET 0`` keeps the planner from reading
# the whole table once instead); what a lexeme is worth follows from how many there are. Then the best few are read
# whole. A place weighs by what it is in: title (A), heading (B), the file's name (C), text (D).
_SEARCH = f"""
WITH base AS MATERIALIZED (
    SELECT id FROM knowledge WHERE app = $1 AND name = ANY ($2::text[])
), scope AS MATERIALIZED (
    SELECT string_agg('''@' || id || '''', '|')::tsquery AS query, array_agg(id) AS bases FROM base
), size AS MATERIALIZED (
    SELECT coalesce(sum(passages), 0)::float8 AS passages, greatest(sum(length)::float8 / nullif(sum(passages), 0), 1)
        AS length
    FROM document WHERE app = $1 AND knowledge IN (SELECT id FROM base)
), asked AS MATERIALIZED (
    SELECT place, lexeme, weight, missed, before, after,
        ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query
    FROM unnest($3::text[], $4::float8[], $5::float8[], $6::bigint[], $7::bigint[])
        WITH ORDINALITY AS a (lexeme, weight, missed, before, after, place)
), question AS MATERIALIZED (
    SELECT string_agg(query::text, '|')::tsquery AS query FROM asked
), hit AS MATERIALIZED (
    SELECT a.place, p.id
    FROM scope s CROSS JOIN asked a CROSS JOIN LATERAL (
        SELECT id FROM passage
        WHERE app = $1 AND words @@ (a.query && s.query) AND knowledge = ANY (s.bases) OFFSET 0
    ) p
), frequency AS MATERIALIZED (
    SELECT place, count(*)::float8 AS passages FROM hit GROUP BY place
), worth AS MATERIALIZED (
    SELECT a.place, a.lexeme, CASE WHEN f.place IS NULL THEN a.missed ELSE a.weight END * least({CEILING},
        ln(1 + greatest(s.passages + {UNSEEN} - n.passages + 0.5, 0.5) / (n.passages + 0.5))) AS worth
    FROM size s, asked a LEFT JOIN frequency f ON f.place = a.place
    CROSS JOIN LATERAL (SELECT coalesce(f.passages, 1) AS passages) n
    WHERE f.place IS NOT NULL OR a.before IS NULL
        OR NOT (EXISTS (SELECT FROM frequency b WHERE b.place = a.before)
            AND EXISTS (SELECT FROM frequency b WHERE b.place = a.after))
), needed AS MATERIALIZED (
    SELECT sum(worth) AS counted FROM (SELECT worth FROM worth ORDER BY worth DESC LIMIT {COUNTED}) w
), rough AS MATERIALIZED (
    SELECT h.id, sum(w.worth) AS worth FROM hit h JOIN worth w ON w.place = h.place GROUP BY h.id
    HAVING sum(w.worth) >= {FLOOR} * (SELECT counted FROM needed)
    ORDER BY worth DESC, h.id LIMIT {ROUGH}
), candidate AS MATERIALIZED (
    SELECT r.id FROM rough r JOIN passage p ON p.app = $1 AND p.id = r.id
    ORDER BY r.worth * (0.5 + ts_rank('{{0.5, 0.3, 1, 0.8}}', p.words, (SELECT query FROM question), 1)) DESC, r.id
    LIMIT greatest({CLOSE}, 2 * $8)
), found AS MATERIALIZED (
    SELECT c.id, sum(w.worth * t.often / (t.often + {K1} * (1 - {B} + {B} * p.length / s.length))) AS score
    FROM size s, candidate c
    JOIN passage p ON p.app = $1 AND p.id = c.id
    CROSS JOIN LATERAL unnest(p.words) AS u (lexeme, positions, weights)
    JOIN worth w ON w.lexeme = u.lexeme
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(CASE label WHEN 'A' THEN 1.5 WHEN 'B' THEN 2 WHEN 'C' THEN 0.5 ELSE 1 END), 1) AS often
        FROM unnest(u.weights) label
    ) t
    GROUP BY c.id ORDER BY score DESC, c.id LIMIT $8
)
SELECT p.id, p.text, p.heading, d.id AS document, d.source, d.title, f.score / (SELECT sum(worth) FROM worth) AS score
FROM found f
JOIN passage p ON p.app = $1 AND p.id = f.id
JOIN document d ON d.app = $1 AND d.id = p.document
ORDER BY f.score DESC, p.id"""


class KnowledgeTable:
    def __init__(self, db: Database) -> None:
        self._db = db

    # The bases ------------------------------------------------------------------------------------------------------

    async def open(self, app: int, name: str) -> int:
        """The id of the base of that name, made when there is none."""
        base: int = await self._db.fetchval(
            "INSERT INTO knowledge (app, uid, name) VALUES ($1, $2, $3)"
            " ON CONFLICT (app, name) DO UPDATE SET modified = now() RETURNING id",
            app,
            new_uid(),
            clean(name),
        )
        return base

    async def get(self, app: int, ref: Ref) -> KnowledgeBase | None:
        """By number, uid or name. A text is a name first."""
        text = clean(ref) if isinstance(ref, str) else None
        number = ref if isinstance(ref, int) else as_number(ref) if isinstance(ref, str) else None
        row = await self._db.fetchrow(
            f"{_BASES} AND (k.name = $2 OR k.uid = $3 OR k.id = $4) ORDER BY (k.name = $2) IS TRUE DESC LIMIT 1",
            app,
            text,
            ref if isinstance(ref, UUID) else as_uid(text) if text is not None else None,
            number if number is not None and 0 < number <= MAX_ID else None,
        )
        return None if row is None else _base(row)

    async def bases(self, app: int) -> list[KnowledgeBase]:
        """Every base of the application, by name."""
        return [_base(row) for row in await self._db.fetch(f"{_BASES} ORDER BY k.name", app)]

    async def drop(self, app: int, base: int) -> bool:
        """Remove the base with its documents; whether there was one."""
        return await self._db.execute("DELETE FROM knowledge WHERE app = $1 AND id = $2", app, base) != "DELETE 0"

    # Their documents ------------------------------------------------------------------------------------------------

    async def documents(self, app: int, base: int) -> list[Document]:
        """The base's documents, by source and folder."""
        rows = await self._db.fetch(
            "SELECT * FROM document WHERE app = $1 AND knowledge = $2 ORDER BY source, root", app, base
        )
        return [_document(row) for row in rows]

    async def digests(self, app: int, base: int) -> dict[tuple[str, str], bytes]:
        """The digest of every document of the base, by folder and source."""
        rows = await self._db.fetch(
            "SELECT source, root, digest FROM document WHERE app = $1 AND knowledge = $2", app, base
        )
        return {(row["root"], row["source"]): row["digest"] for row in rows}

    async def put(
        self,
        app: int,
        base: int,
        *,
        source: str,
        root: str,
        title: str,
        kind: str,
        digest: bytes,
        headings: Sequence[str],
        texts: Sequence[str],
        lengths: Sequence[int],
        words: Sequence[str],
    ) -> None:
        """Store a document in place of the one of the same ``root`` and ``source``, in one transaction. The sequences
        have an entry for each passage, ``words`` a ``tsvector`` literal."""
        key = (app, base, source, root)
        document = (new_uid(), title, kind, digest, len(texts), sum(lengths))
        inserts = [
            (_PUT_PASSAGES, (*key, start, *(list(column[start : start + BATCH]) for column in (headings, texts)),
                list(lengths[start : start + BATCH]), list(words[start : start + BATCH])))
            for start in range(0, len(texts), BATCH)
        ]  # fmt: skip
        await self._db.together([(_PUT_DOCUMENT, (*key, *document)), (_FORGET_PASSAGES, key), *inserts])

    async def move(self, app: int, base: int, sources: Sequence[str], old: str, new: str) -> None:
        """The documents of these sources from the folder ``old`` are known by the folder ``new`` from now on."""
        await self._db.execute(
            "UPDATE document d SET root = $5 WHERE app = $1 AND knowledge = $2 AND source = ANY ($3) AND root = $4"
            " AND NOT EXISTS (SELECT FROM document o WHERE o.app = $1 AND o.knowledge = $2 AND o.root = $5"
            " AND o.source = d.source)",
            app,
            base,
            list(sources),
            old,
            new,
        )

    async def remove(self, app: int, base: int, documents: Sequence[tuple[str, str]]) -> list[str]:
        """Remove documents, named by folder and source; the sources of those there were."""
        rows = await self._db.fetch(
            "DELETE FROM document WHERE app = $1 AND knowledge = $2"
            " AND (root, source) IN (SELECT * FROM unnest($3::text[], $4::text[])) RETURNING source",
            app,
            base,
            [root for root, _ in documents],
            [source for _, source in documents],
        )
        return sorted(row["source"] for row in rows)

    async def settle(self) -> None:
        """After many documents: merge what is new into the index."""
        await self._db.execute("SELECT gin_clean_pending_list('passage_words')")

    # The search -----------------------------------------------------------------------------------------------------

    async def search(
        self,
        app: int,
        names: Sequence[str],
        *,
        lexemes: Sequence[str],
        weights: Sequence[float],
        missed: Sequence[float],
        beside: Sequence[tuple[int, int] | None],
        limit: int,
    ) -> list[Passage]:
        """The best passages of the bases called ``names``, best first. ``score`` lies between 0 and 1.

        A lexeme counts ``weights`` where it is in the bases at all, else ``missed``, and nothing when ``beside`` has
        places in ``lexemes`` of two that are.
        """
        rows = await self._db.fetch(
            _SEARCH,
            app,
            [clean(name) for name in names],
            list(lexemes),
            list(weights),
            list(missed),
            [None if pair is None else pair[0] + 1 for pair in beside],
            [None if pair is None else pair[1] + 1 for pair in beside],
            limit,
        )
        return [_passage(row) for row in rows]


def _base(row: Row) -> KnowledgeBase:
    return KnowledgeBase(**{name: row[name] for name in KnowledgeBase.__struct_fields__})


def _document(row: Row) -> Document:
    return Document(**{name: row[name] for name in Document.__struct_fields__})


def _passage(row: Row) -> Passage:
    return Passage(
        text=row["text"],
        source=row["source"],
        title=row["title"],
        heading=row["heading"],
        score=row["score"],
        document=row["document"],
        chunk=row["id"],
    )
