"""From text to a token store: read, split, encode on all cores, write; in bounded memory, and only once.

    pieces (4 MiB) --split--> parts --pool of threads--> ids --in order--> shards + meta.json

At most `2 * workers` jobs are in flight, so memory does not grow with the text. The result is kept in the cache under a
key made of the text's identity, the tokenizer's hash and the split, and found there the next time.

An end-of-text token follows each document when the tokenizer has one, which marks where a new document
begins. A source of one document needs none.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glassformer.data.corpora import CORPORA
from glassformer.data.readers import HASHED_BYTES, TextSource, open_source
from glassformer.data.splits import Part, Plan, plan_split
from glassformer.data.token_store import FORMAT_VERSION, TokenStore
from glassformer.data.token_writer import TokenStoreWriter
from glassformer.errors import DataError, GlassformerError, UsageError
from glassformer.files import cache_folder
from glassformer.progress import Progress

JOB_BYTES = 2 << 20  # text encoded at a time by one thread
Encoded = tuple[list[Part], list[np.ndarray]]


def prepare(
    source: str,
    tokenizer: Any,
    *,
    out: str | Path | None = None,
    validation_fraction: float = 0.1,
    text_field: str = "text",
    progress: bool = True,
    max_tokens: int | None = None,
) -> TokenStore:
    """Encode a source (see `readers`) with a tokenizer and return the store, out of the cache when it is there.

    Args:
        out: a folder of your own; the default is one in the cache folder.
        validation_fraction: of the bytes, 0 <= f < 1; `tinyshakespeare` has the lecture's split whatever is given here.
        max_tokens: stop after so many tokens, both splits together.

    Raises:
        UsageError: an impossible fraction or max_tokens.
        DataError: what is wrong with the source; `out` holds something else.
    """
    if not 0 <= validation_fraction < 1:
        raise UsageError(f"validation_fraction={validation_fraction} is outside 0 <= f < 1; try 0.1")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"max_tokens={max_tokens} is less than 1; leave it out to take everything")
    text = open_source(source, text_field=text_field)
    settings = [FORMAT_VERSION, text.identity(), tokenizer.hash, validation_fraction, max_tokens]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    folder = Path(out) if out else cache_folder() / "stores" / key
    if found := _find(folder, key, own=out is not None):
        return found
    plan = plan_split(text, validation_fraction)
    mark = tokenizer.end_of_text if plan.documents != 1 else None
    about: dict[str, Any] = {
        "source": text.name,
        "split_rule": plan.describe(),
        "end_of_text": mark,
        "license": text.corpus.license if text.corpus else None,
    }
    bar = Progress(f"preparing {text.name}", plan.bytes, enabled=progress)
    try:
        with bar, TokenStoreWriter(folder, tokenizer, key=key, **about) as writer:
            if hasattr(tokenizer, "save"):
                tokenizer.save(writer.place / "tokenizer")  # so that a store can be read aloud
            _write(writer, plan, text, tokenizer, mark, max_tokens, bar)
            if not writer.tokens:
                raise DataError(f"{text.name}: empty; give a source with some text in it")
    except (OSError, GlassformerError):
        if found := _find(folder, key, own=out is not None):  # by another process or thread, at the same time
            return found
        raise
    return TokenStore.open(folder)


def _find(folder: Path, key: str, *, own: bool) -> TokenStore | None:
    """The store in `folder` if it is the one that is wanted; a damaged one in the cache is cleared away.

    Small stores are read and compared with their SHA-256: that is quick, and a flipped bit would train unnoticed."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    try:
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        store = TokenStore.open(folder, verify=size <= HASHED_BYTES)
        if store.meta["key"] == key:
            return store
        problem = f"holds a token store of {store.meta['source']}, prepared otherwise"
    except DataError as error:
        if not own:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        problem = f"is in the way ({error})"
    raise DataError(f"{folder}: {problem}; delete it or choose another folder")


def _jobs(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Parts in bundles of about JOB_BYTES, so that a million small documents do not mean a million jobs."""
    bundle: list[Part] = []
    size = 0
    for part in parts:
        bundle.append(part)
        size += part.bytes + 64
        if size >= JOB_BYTES:
            yield bundle
            bundle, size = [], 0
    if bundle:
        yield bundle


def _write(
    writer: TokenStoreWriter, plan: Plan, text: TextSource, tokenizer: Any, mark: int | None, limit: int | None, bar
) -> None:
    def encode(parts: list[Part]) -> list[np.ndarray]:
        return tokenizer.encode_documents([part.text for part in parts])

    encode([])  # lets the tokenizer build its tables before several threads ask for them
    jobs = _jobs(plan.split(text.pieces()))
    with contextlib.closing(_in_order(encode, jobs, plan.bytes)) as results:
        for parts, encoded in results:
            for part, ids in zip(parts, encoded, strict=True):
                if part.last and mark is not None:
                    ids = np.append(ids, np.asarray([mark], dtype=ids.dtype))
                size = part.bytes
                if limit is not None and writer.tokens + len(ids) > limit:
                    left = limit - writer.tokens
                    size, ids = round(size * left / len(ids)), ids[:left]
                if len(ids):
                    writer.append(part.split, ids, bytes=size, end_of_document=part.last)
                bar.advance(part.bytes)
                if writer.tokens == limit:
                    return


def _in_order(
    encode, jobs: Iterator[list[Part]], size: int | None
) -> Generator[tuple[list[Part], list[np.ndarray]], None, None]:
    """(job, encode(job)) in the order of the jobs, encoded by threads ahead of the reader; small texts by this one."""
    workers = max(1, min(os.cpu_count() or 1, 8))
    if workers == 1 or (size is not None and size < 2 * JOB_BYTES):
        yield from ((job, encode(job)) for job in jobs)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode")
    waiting: collections.deque = collections.deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(encode, job)))
            if len(waiting) >= 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class SourceInfo(NamedTuple):
    """The result of `describe`; None where everything would have to be read.

    Attributes:
        bytes: UTF-8 bytes of text (an estimate for a hub corpus).
        first: the first characters, for looking at; "" for a hub dataset.
    """

    name: str
    kind: str
    bytes: int | None
    characters: int | None
    documents: int | None
    split_rule: str
    license: str | None
    origin: str
    first: str


def describe(source: str, *, text_field: str = "text", validation_fraction: float = 0.1) -> SourceInfo:
    """Sizes, split and license of a source, without encoding it; a hub dataset is not even opened.

    Raises:
        DataError: as `open_source`; what is wrong with its first piece.
    """
    text = open_source(source, text_field=text_field)
    plan = plan_split(text, validation_fraction)
    corpus = text.corpus or CORPORA.get(source)
    first, characters = "", None
    if not text.hub:
        small = (plan.bytes or 0) <= 64 << 20
        pieces = list(text.pieces()) if small else [next(text.pieces())]
        first = pieces[0].text[:500]
        characters = sum(len(piece.text) for piece in pieces) if small else None
    return SourceInfo(
        name=text.name,
        kind=text.kind,
        bytes=plan.bytes if plan.bytes is not None else text.bytes(),
        characters=characters,
        documents=plan.documents,
        split_rule=plan.describe(),
        license=corpus.license if corpus else None,
        origin=corpus.origin if corpus else (f"dataset hub: {text.hub}" if text.hub else str(text.files[0].parent)),
        first=first,
    )
