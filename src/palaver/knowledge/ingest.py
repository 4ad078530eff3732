"""Ingests files into a knowledge base."""

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
"""The documents already in the base: (folder, source) to digest."""

MAX_NAME = 200
AHEAD = 2
"""Number of files to read ahead while another one is being stored."""


class IndexedDocument(Value, frozen=True, kw_only=True):
    """A document ready to be stored."""

    source: DocumentSource
    digest: bytes
    prepared: PreparedDocument


async def ingest(
    repository: KnowledgeRepository,
    app_id: int,
    name: str,
    paths: Sequence[Path],
    progress: Callable[[IngestProgress], None] | None = None,
    *,
    prune: bool = False,
    lost: bool = False,
) -> IngestReport:
    """Read the files and folders ``paths`` into the base called ``name``, created if missing.

    A document whose file has not changed is skipped, a changed one is replaced. A moved folder is recognized. With
    ``prune``, documents that no longer exist in the folders they came from are removed; with ``lost``, also those whose
    folder no longer exists. Can be cancelled at any point: files reported as done are stored. Raises
    ``Invalid(field="name")`` for a name that is blank or too long, and errors of the store.
    """
    name = _checked(name)
    files, roots = await asyncio.to_thread(_survey, paths)
    base = await repository.get_or_create(app_id, name)
    known = await _known(repository, app_id, base, files)
    names: dict[FileOutcome, list[str]] = {"added": [], "replaced": [], "unchanged": [], "skipped": []}
    skipped: list[SkippedFile] = []
    passages = 0
    async with _readers() as readers, aclosing(_prepared(readers, files, known)) as results:
        async for result in results:
            match result:
                case SkippedFile():
                    skipped.append(result)
                case IndexedDocument():
                    await _store(repository, app_id, base, result)
                    passages += len(result.prepared.texts)
                case DocumentSource():
                    pass
            source, outcome = _outcome(result, known)
            names[outcome].append(source)
            if progress is not None:
                done = sum(map(len, names.values()))
                reason = result.reason if isinstance(result, SkippedFile) else ""
                progress(IngestProgress(done=done, total=len(files), name=source, outcome=outcome, reason=reason))
    if passages:
        await repository.merge_index()
    removed = await repository.delete_documents(app_id, base, _removed(known, files, roots, lost=lost)) if prune else ()
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
    """Read, split and index one file. Returns ``source`` itself if the file is unchanged."""
    raw = await asyncio.to_thread(load, source)
    if isinstance(raw, SkippedFile):
        return raw
    current = digest(source, raw)
    if known.get(source.key) == current:
        return source

    async def job() -> PrepareDocument:
        return PrepareDocument(name=source.name, kind=source.kind, content=raw)

    try:
        prepared = await readers.read((0, 0), job)
        assert isinstance(prepared, PreparedDocument)
    except UnreadableDocument as unreadable:
        note = "; the text it had before stays" if source.key in known else ""
        return SkippedFile(name=source.name, reason=f"{unreadable.reason}{note}", root=source.root)
    return IndexedDocument(source=source, digest=current, prepared=prepared)


def _checked(name: str) -> str:
    name = clean(name).strip()
    if not name:
        raise Invalid(field="name", rule="required", detail="a knowledge base needs a name")
    if len(name) > MAX_NAME:
        raise Invalid(field="name", rule="length", detail=f"at most {MAX_NAME} characters")
    return name


def _survey(paths: Sequence[Path]) -> tuple[list[DocumentSource | SkippedFile], frozenset[str]]:
    """All files below ``paths``, and the folders among ``paths``."""
    return list(walk(paths)), frozenset(clean(str(path.resolve())) for path in paths if path.is_dir())


async def _prepared(
    readers: ReaderPool, files: Iterable[DocumentSource | SkippedFile], known: Known
) -> AsyncGenerator[IndexedDocument | DocumentSource | SkippedFile, None]:
    """Yield the prepared files in order, reading ``AHEAD`` files in advance."""
    rest = iter(files)
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


async def _store(repository: KnowledgeRepository, app_id: int, base: int, ready: IndexedDocument) -> None:
    source, prepared = ready.source, ready.prepared
    await repository.put_document(
        app_id,
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


# Moved folders, deleted files --------------------------------------------------------------------------------------


async def _known(
    repository: KnowledgeRepository, app_id: int, base: int, files: Sequence[DocumentSource | SkippedFile]
) -> Known:
    """The documents of the base, after updating the folders of those that were moved."""
    known = await repository.get_digests(app_id, base)
    moves = await asyncio.to_thread(_moves, known, [one for one in files if isinstance(one, DocumentSource)])
    for old, new, sources in moves:
        await repository.change_folder(app_id, base, sources, old, new)
    return await repository.get_digests(app_id, base) if moves else known


def _moves(known: Known, files: Sequence[DocumentSource]) -> list[tuple[str, str, list[str]]]:
    """(old folder, new folder, sources) of every move. A folder was moved if it no longer exists and another one has at
    least one of its files unchanged. Files that were added without a folder are matched by name alone."""
    by_root: dict[str, dict[str, DocumentSource]] = {}
    for source in files:
        by_root.setdefault(source.root, {})[source.name] = source
    moves: list[tuple[str, str, list[str]]] = []
    taken = set(known)
    for old in sorted({root for root, _ in known if root not in by_root and _is_lost(root)}):
        for new, by_name in by_root.items():
            sources = [name for root, name in known if root == old and (new, name) not in taken]
            common = [name for name in sources if name in by_name]
            if old and not any(_is_same(by_name[name], known[old, name]) for name in common):
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
    known: Known, files: Sequence[DocumentSource | SkippedFile], roots: frozenset[str], *, lost: bool
) -> list[tuple[str, str]]:
    """The documents to remove: those from ``roots`` that are not among ``files`` nor below an unreadable folder, and
    with ``lost``, those of folders that no longer exist."""
    existing = {(one.root, one.name) for one in files}
    unreadable = tuple((one.root, one.name) for one in files if isinstance(one, SkippedFile) and one.folder)
    return [
        (root, source)
        for root, source in known
        if (root in roots and (root, source) not in existing and not _is_below(root, source, unreadable))
        or (lost and root not in roots and _is_lost(root))
    ]


def _is_below(root: str, source: str, folders: Sequence[tuple[str, str]]) -> bool:
    return any(root == other and source.startswith(prefix) for other, prefix in folders)
