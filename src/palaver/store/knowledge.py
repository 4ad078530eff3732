"""The tables of knowledge bases, documents and passages, and the search in them.

The search ranks passages by BM25, in one statement on the full-text index. Tokenizing is up to the caller, which
passes ``tsvector`` literals and lexemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from palaver.core.ports.admin import Document, KnowledgeBase
from palaver.core.types import MAX_ID, Passage, Ref, clean, new_uid, parse_id, parse_uid
from palaver.store.database import Database, Row

BATCH_PASSAGES = 200
"""Maximum number of passages inserted by one statement, which has a timeout of a few seconds."""

_SELECT_BASES = """
SELECT k.*, coalesce(d.documents, 0) AS documents, coalesce(d.passages, 0) AS passages
FROM knowledge k LEFT JOIN (
    SELECT knowledge, count(*) AS documents, sum(passages)::bigint AS passages
    FROM document WHERE app = $1 GROUP BY knowledge
) d ON d.knowledge = k.id
WHERE k.app = $1"""

_UPSERT_DOCUMENT = """
INSERT INTO document (app, uid, knowledge, source, root, title, kind, digest, passages, length, modified)
VALUES ($1, $5, $2, $3, $4, $6, $7, $8, $9, $10, now())
ON CONFLICT (app, knowledge, root, source) DO UPDATE SET title = excluded.title, kind = excluded.kind,
    digest = excluded.digest, passages = excluded.passages, length = excluded.length,
    modified = excluded.modified"""
_DOCUMENT_ID = "(SELECT id FROM document WHERE app = $1 AND knowledge = $2 AND source = $3 AND root = $4)"
_DELETE_PASSAGES = f"DELETE FROM passage WHERE app = $1 AND document = {_DOCUMENT_ID}"
_INSERT_PASSAGES = f"""
INSERT INTO passage (app, knowledge, document, place, heading, text, length, words)
SELECT $1, $2::bigint, {_DOCUMENT_ID}, $5 + p.place, p.heading, p.text, p.length,
    p.words::tsvector || ('''@' || $2 || '''')::tsvector
FROM unnest($6::text[], $7::text[], $8::integer[], $9::text[])
    WITH ORDINALITY AS p (heading, text, length, words, place)"""

BM25_K1, BM25_B = 1.2, 0.75
"""BM25's parameters: saturation of the term frequency, and normalization by the passage's length."""
IDF_EXTRA_PASSAGES = 10
"""Added to the number of passages for the IDF, so that in tiny bases a word in every passage still counts."""
MAX_IDF = 5.3
"""Maximum IDF of a lexeme, that of one in every 200th passage; rarer ones are rare by chance."""
MIN_MATCH_SHARE = 0.3
"""Minimum share of the query's weight that a passage must match; of a long query, only the ``MAX_SUMMED_LEXEMES``
heaviest lexemes are summed for it."""
MAX_SUMMED_LEXEMES = 10
APPROXIMATE_CANDIDATES = 2000
"""Number of passages with the highest matching weight that are ranked approximately, by ``ts_rank``."""
EXACT_CANDIDATES = 100
"""Minimum number of the best of those that are ranked by BM25, which takes thirty times as long."""

# ``hit`` queries the index for each lexeme and returns only ids (``OFFSET 0`` keeps the planner from scanning the whole
# table instead); a lexeme's weight follows from its number of hits. Only the best candidates are read completely.
# Occurrences are weighted by their tsvector label: title (A), heading (B), file name (C), text (D).
_SEARCH = f"""
WITH base AS MATERIALIZED (
    SELECT id FROM knowledge WHERE app = $1 AND name = ANY ($2::text[])
), scope AS MATERIALIZED (
    SELECT string_agg('''@' || id || '''', '|')::tsquery AS query, array_agg(id) AS bases FROM base
), corpus AS MATERIALIZED (
    SELECT coalesce(sum(passages), 0)::float8 AS passages, greatest(sum(length)::float8 / nullif(sum(passages), 0), 1)
        AS length
    FROM document WHERE app = $1 AND knowledge IN (SELECT id FROM base)
), term AS MATERIALIZED (
    SELECT place, lexeme, weight, missed, before, after,
        ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query
    FROM unnest($3::text[], $4::float8[], $5::float8[], $6::bigint[], $7::bigint[])
        WITH ORDINALITY AS a (lexeme, weight, missed, before, after, place)
), question AS MATERIALIZED (
    SELECT string_agg(query::text, '|')::tsquery AS query FROM term
), hit AS MATERIALIZED (
    SELECT a.place, p.id
    FROM scope s CROSS JOIN term a CROSS JOIN LATERAL (
        SELECT id FROM passage
        WHERE app = $1 AND words @@ (a.query && s.query) AND knowledge = ANY (s.bases) OFFSET 0
    ) p
), frequency AS MATERIALIZED (
    SELECT place, count(*)::float8 AS passages FROM hit GROUP BY place
), weighted AS MATERIALIZED (
    SELECT a.place, a.lexeme, CASE WHEN f.place IS NULL THEN a.missed ELSE a.weight END * least({MAX_IDF},
        ln(1 + greatest(s.passages + {IDF_EXTRA_PASSAGES} - n.passages + 0.5, 0.5) / (n.passages + 0.5))) AS idf_weight
    FROM corpus s, term a LEFT JOIN frequency f ON f.place = a.place
    CROSS JOIN LATERAL (SELECT coalesce(f.passages, 1) AS passages) n
    WHERE f.place IS NOT NULL OR a.before IS NULL
        OR NOT (a.before IN (SELECT place FROM frequency) AND a.after IN (SELECT place FROM frequency))
), query_weight AS MATERIALIZED (
    SELECT sum(idf_weight) AS weight FROM (
        SELECT idf_weight FROM weighted ORDER BY idf_weight DESC LIMIT {MAX_SUMMED_LEXEMES}
    ) w
), matching AS MATERIALIZED (
    SELECT h.id, sum(w.idf_weight) AS idf_weight FROM hit h JOIN weighted w ON w.place = h.place GROUP BY h.id
    HAVING sum(w.idf_weight) >= {MIN_MATCH_SHARE} * (SELECT weight FROM query_weight)
    ORDER BY idf_weight DESC, h.id LIMIT {APPROXIMATE_CANDIDATES}
), candidate AS MATERIALIZED (
    SELECT r.id FROM matching r JOIN passage p ON p.app = $1 AND p.id = r.id
    ORDER BY r.idf_weight * (0.5 + ts_rank('{{0.5, 0.3, 1, 0.8}}', p.words, (SELECT query FROM question), 1)) DESC, r.id
    LIMIT greatest({EXACT_CANDIDATES}, 2 * $8)
), ranked AS MATERIALIZED (
    SELECT c.id, sum(w.idf_weight * t.occurrences
        / (t.occurrences + {BM25_K1} * (1 - {BM25_B} + {BM25_B} * p.length / s.length))) AS score
    FROM corpus s, candidate c
    JOIN passage p ON p.app = $1 AND p.id = c.id
    CROSS JOIN LATERAL unnest(p.words) AS u (lexeme, positions, weights)
    JOIN weighted w ON w.lexeme = u.lexeme
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(CASE label WHEN 'A' THEN 1.5 WHEN 'B' THEN 2 WHEN 'C' THEN 0.5 ELSE 1 END), 1)
            AS occurrences
        FROM unnest(u.weights) label
    ) t
    GROUP BY c.id ORDER BY score DESC, c.id LIMIT $8
)
SELECT p.id, p.text, p.heading, d.id AS document, d.source, d.title,
    f.score / (SELECT sum(idf_weight) FROM weighted) AS score
FROM ranked f
JOIN passage p ON p.app = $1 AND p.id = f.id
JOIN document d ON d.app = $1 AND d.id = p.document
ORDER BY f.score DESC, p.id"""


class KnowledgeTable:
    """Knowledge bases by id (``base``), and their documents. Implements ``knowledge.repository``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Bases ----------------------------------------------------------------------------------------------------------

    async def get_or_create(self, app_id: int, name: str) -> int:
        """The id of the base with that name, created if missing."""
        base: int = await self._db.fetchval(
            "INSERT INTO knowledge (app, uid, name, modified) VALUES ($1, $2, $3, now())"
            " ON CONFLICT (app, name) DO UPDATE SET modified = excluded.modified RETURNING id",
            app_id,
            new_uid(),
            clean(name),
        )
        return base

    async def get(self, app_id: int, ref: Ref) -> KnowledgeBase | None:
        """The base with that name, id or uid, or ``None``. A text is tried as a name first."""
        text = clean(ref) if isinstance(ref, str) else None
        number = ref if isinstance(ref, int) else parse_id(ref) if isinstance(ref, str) else None
        row = await self._db.fetchrow(
            f"{_SELECT_BASES} AND (k.name = $2 OR k.uid = $3 OR k.id = $4) ORDER BY (k.name = $2) IS TRUE DESC LIMIT 1",
            app_id,
            text,
            ref if isinstance(ref, UUID) else parse_uid(text) if text is not None else None,
            number if number is not None and 0 < number <= MAX_ID else None,
        )
        return None if row is None else _base(row)

    async def list_bases(self, app_id: int) -> list[KnowledgeBase]:
        """Every base of the application, sorted by name."""
        return [_base(row) for row in await self._db.fetch(f"{_SELECT_BASES} ORDER BY k.name", app_id)]

    async def delete(self, app_id: int, base: int) -> bool:
        """Delete the base and its documents. Returns whether it existed."""
        return await self._db.execute("DELETE FROM knowledge WHERE app = $1 AND id = $2", app_id, base) != "DELETE 0"

    # Documents ------------------------------------------------------------------------------------------------------

    async def list_documents(self, app_id: int, base: int) -> list[Document]:
        """The base's documents, sorted by source, then folder."""
        rows = await self._db.fetch(
            "SELECT * FROM document WHERE app = $1 AND knowledge = $2 ORDER BY source, root", app_id, base
        )
        return [_document(row) for row in rows]

    async def get_digests(self, app_id: int, base: int) -> dict[tuple[str, str], bytes]:
        """The digest of every document of the base, by (folder, source)."""
        rows = await self._db.fetch(
            "SELECT source, root, digest FROM document WHERE app = $1 AND knowledge = $2", app_id, base
        )
        return {(row["root"], row["source"]): row["digest"] for row in rows}

    async def put_document(
        self,
        app_id: int,
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
        """Store a document, replacing the one with the same ``root`` and ``source``, in one transaction. The sequences
        have an entry per passage: heading, text, length in words and ``tsvector`` literal."""
        key = (app_id, base, source, root)
        document = (new_uid(), title, kind, digest, len(texts), sum(lengths))
        columns = (headings, texts, lengths, words)
        inserts = [
            (_INSERT_PASSAGES, (*key, start, *(list(column[start : start + BATCH_PASSAGES]) for column in columns)))
            for start in range(0, len(texts), BATCH_PASSAGES)
        ]
        await self._db.transaction([(_UPSERT_DOCUMENT, (*key, *document)), (_DELETE_PASSAGES, key), *inserts])

    async def change_folder(self, app_id: int, base: int, sources: Sequence[str], old: str, new: str) -> None:
        """Change the folder of the documents with these sources from ``old`` to ``new``, unless one exists there."""
        await self._db.execute(
            "UPDATE document d SET root = $5 WHERE app = $1 AND knowledge = $2 AND source = ANY ($3) AND root = $4"
            " AND NOT EXISTS (SELECT FROM document o WHERE o.app = $1 AND o.knowledge = $2 AND o.root = $5"
            " AND o.source = d.source)",
            app_id,
            base,
            list(sources),
            old,
            new,
        )

    async def delete_documents(self, app_id: int, base: int, documents: Sequence[tuple[str, str]]) -> list[str]:
        """Delete the documents with these (folder, source). Returns the sources of those that existed, sorted."""
        rows = await self._db.fetch(
            "DELETE FROM document WHERE app = $1 AND knowledge = $2"
            " AND (root, source) IN (SELECT * FROM unnest($3::text[], $4::text[])) RETURNING source",
            app_id,
            base,
            [root for root, _ in documents],
            [source for _, source in documents],
        )
        return sorted(row["source"] for row in rows)

    async def merge_index(self) -> None:
        """Merge the pending entries into the full-text index; call it after storing many documents."""
        await self._db.execute("SELECT gin_clean_pending_list('passage_words')")

    # Search ---------------------------------------------------------------------------------------------------------

    async def search(
        self,
        app_id: int,
        names: Sequence[str],
        *,
        lexemes: Sequence[str],
        weights: Sequence[float],
        missed: Sequence[float],
        beside: Sequence[tuple[int, int] | None],
        limit: int,
    ) -> list[Passage]:
        """The best passages of the bases called ``names``, best first, with scores between 0 and 1.

        The other sequences have an entry per lexeme: its weight if the bases contain it; its weight if they do not
        (``missed``); and the indices of two lexemes (``beside``), or ``None``: if the bases contain both, a lexeme
        that they do not contain is ignored.
        """
        rows = await self._db.fetch(
            _SEARCH,
            app_id,
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
