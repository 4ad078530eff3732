"""Files into a knowledge base."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from palaver.core.ports.admin import FileOutcome, IngestProgress, IngestReport, SkippedFile
from palaver.core.ports.documents import UnreadableDocument
from palaver.core.problems import Invalid
from palaver.core.types import Value, clean
from palaver.knowledge.files import DocumentSource, digest, load, walk
from palaver.knowledge.pool import INGESTED, ReaderPool
from palaver.knowledge.protocol import PreparedDocument, PrepareDocument
from palaver.knowledge.repository import KnowledgeRepository

Known = Mapping[tuple[str, str], bytes]
"""What the base has already: (folder, source) to digest."""

MAX_NAME = 200
AHEAD = 2
"""Files that are read while another one is being stored."""


class IndexedDocument(Value, frozen=True, kw_only=True):
    """A document ready to be stored."""

    source: DocumentSource
    digest: bytes
    prepared: PreparedDocument


async def ingest(
    repository: KnowledgeRepository,
    app: int,
    name: str,
    paths: Sequence[Path],
    progress: Callable[[IngestProgress], None] | None = None,
    *,
    prune: bool = False,
    lost: bool = False,
) -> IngestReport:
    """Put the files and folders ``paths`` into the base called ``name``, which is made when there is none.

    A document that is there already is left alone when its file has not changed, and replaced at once when it has. A
    folder that was moved is the folder it was. With ``prune``, documents that came from one of the folders earlier and
    are no longer in it are removed; with ``lost``, also those whose folder is no longer there. May be cancelled at any
    point: what was reported is stored. Raises ``Invalid(field="name")`` for a name that is blank or too long, and what
    the store raises.
    """
    name = _checked(name)
    found, roots = await asyncio.to_thread(_survey, paths)
    base = await repository.get_or_create(app, name)
    known = await _known(repository, app, base, found)
    names: dict[FileOutcome, list[str]] = {"added": [], "replaced": [], "unchanged": [], "skipped": []}
    skipped: list[SkippedFile] = []
    passages = 0
    async with _readers() as readers, aclosing(_prepared(readers, found, known)) as results:
        async for result in results:
            match result:
                case SkippedFile():
                    skipped.append(result)
                case IndexedDocument():
                    await _store(repository, app, base, result)
                    passages += len(result.prepared.texts)
                case DocumentSource():
                    pass
            source, outcome = _outcome(result, known)
            names[outcome].append(source)
            if progress is not None:
                done = sum(map(len, names.values()))
                reason = result.reason if isinstance(result, SkippedFile) else ""
                progress(IngestProgress(done=done, total=len(found), name=source, outcome=outcome, reason=reason))
    if passages:
        await repository.merge_index()
    removed = await repository.delete_documents(app, base, _removed(known, found, roots, lost=lost)) if prune else ()
    return IngestReport(
        base=base,
        added=tuple(names["added"]),
        replaced=tuple(names["replaced"]),
        unchanged=tuple(names["unchanged"]),
        removed=tuple(removed),
        skipped=tuple(skipped),
        passages=passages,
    )


@asynccontextmanager
async def _readers() -> AsyncGenerator[ReaderPool]:
    readers = ReaderPool(INGESTED, processes=AHEAD, each=AHEAD)
    try:
        yield readers
    finally:
        await readers.close()


async def _prepare(
    readers: ReaderPool, source: DocumentSource, known: Known
) -> IndexedDocument | DocumentSource | SkippedFile:
    """Read, split and index one file; ``source`` itself where ``known`` has it just so."""
    raw = await asyncio.to_thread(load, source)
    if isinstance(raw, SkippedFile):
        return raw
    now = digest(source, raw)
    if known.get(source.key) == now:
        return source

    async def job() -> PrepareDocument:
        return PrepareDocument(name=source.name, kind=source.kind, content=raw)

    try:
        prepared = await readers.read((0, 0), job)
        assert isinstance(prepared, PreparedDocument)
    except UnreadableDocument as unreadable:
        kept = "; the text it had before stays" if source.key in known else ""
        return SkippedFile(name=source.name, reason=f"{unreadable.reason}{kept}", root=source.root)
    return IndexedDocument(source=source, digest=now, prepared=prepared)


def _checked(name: str) -> str:
    name = clean(name).strip()
    if not name:
        raise Invalid(field="name", rule="required", detail="a knowledge base needs a name")
    if len(name) > MAX_NAME:
        raise Invalid(field="name", rule="length", detail=f"at most {MAX_NAME} characters")
    return name


def _survey(paths: Sequence[Path]) -> tuple[list[DocumentSource | SkippedFile], frozenset[str]]:
    """The files, and the folders that were given."""
    return list(walk(paths)), frozenset(clean(str(path.resolve())) for path in paths if path.is_dir())


async def _prepared(
    readers: ReaderPool, found: Iterable[DocumentSource | SkippedFile], known: Known
) -> AsyncGenerator[IndexedDocument | DocumentSource | SkippedFile, None]:
    """What ``prepare`` makes of ``found``, in its order. Works a little ahead of who reads."""
    rest = iter(found)
    waiting: deque[asyncio.Task[IndexedDocument | DocumentSource | SkippedFile] | SkippedFile] = deque()
    try:
        while True:
            while len(waiting) <= AHEAD and (source := next(rest, None)) is not None:
                waiting.append(
                    source if isinstance(source, SkippedFile) else asyncio.create_task(_prepare(readers, source, known))
                )
            if not waiting:
                return
            result = waiting.popleft()
            yield result if isinstance(result, SkippedFile) else await result
    finally:
        tasks = [task for task in waiting if isinstance(task, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _store(repository: KnowledgeRepository, app: int, base: int, ready: IndexedDocument) -> None:
    source, prepared = ready.source, ready.prepared
    await repository.put_document(
        app,
        base,
        source=source.name,
        root=source.root,
        title=prepared.title,
        kind=source.kind,
        digest=ready.digest,
        headings=prepared.headings,
        texts=prepared.texts,
        lengths=prepared.lengths,
        words=prepared.words,
    )


def _outcome(result: IndexedDocument | DocumentSource | SkippedFile, known: Known) -> tuple[str, FileOutcome]:
    match result:
        case SkippedFile(name=name):
            return name, "skipped"
        case DocumentSource(name=name):
            return name, "unchanged"
        case IndexedDocument(source=source):
            return source.name, "replaced" if source.key in known else "added"


# Folders that moved, files that are gone ---------------------------------------------------------------------------


async def _known(
    repository: KnowledgeRepository, app: int, base: int, found: Sequence[DocumentSource | SkippedFile]
) -> Known:
    """What the base has, after the documents of folders that were moved are known by where those are now."""
    known = await repository.get_digests(app, base)
    moves = await asyncio.to_thread(_moves, known, [one for one in found if isinstance(one, DocumentSource)])
    for old, new, sources in moves:
        await repository.move_documents(app, base, sources, old, new)
    return await repository.get_digests(app, base) if moves else known


def _moves(known: Known, found: Sequence[DocumentSource]) -> list[tuple[str, str, list[str]]]:
    """(old folder, new folder, sources). A folder was moved when it is no longer there and another one has at least
    one of its files unchanged. Files that were once added without their folder are found by their name alone."""
    here: dict[str, dict[str, DocumentSource]] = {}
    for source in found:
        here.setdefault(source.root, {})[source.name] = source
    moves: list[tuple[str, str, list[str]]] = []
    taken = set(known)
    for old in sorted({root for root, _ in known if root not in here and _is_lost(root)}):
        for new, files in here.items():
            sources = [name for root, name in known if root == old and (new, name) not in taken]
            common = [name for name in sources if name in files]
            if old and not any(_is_same(files[name], known[old, name]) for name in common):
                continue
            moving = sources if old else common
            if moving:
                moves.append((old, new, moving))
                taken.update((new, name) for name in moving)
            if old:
                break
    return moves


def _is_lost(root: str) -> bool:
    return not root or not Path(root).is_dir()


def _is_same(source: DocumentSource, earlier: bytes) -> bool:
    raw = load(source)
    return not isinstance(raw, SkippedFile) and digest(source, raw) == earlier


def _removed(
    known: Known, found: Sequence[DocumentSource | SkippedFile], roots: frozenset[str], *, lost: bool
) -> list[tuple[str, str]]:
    """The documents that came from ``roots`` and are not among ``found``, nor below a folder that nobody could read;
    with ``lost``, also those of folders that are no longer there."""
    there = {(one.root, one.name) for one in found}
    shut = tuple((one.root, one.name) for one in found if isinstance(one, SkippedFile) and one.folder)
    return [
        (root, source)
        for root, source in known
        if (root in roots and (root, source) not in there and not _is_below(root, source, shut))
        or (lost and root not in roots and _is_lost(root))
    ]


def _is_below(root: str, source: str, folders: Sequence[tuple[str, str]]) -> bool:
    return any(root == other and source.startswith(prefix) for other, prefix in folders)
