"""Write a token store: as a stream, one buffer in memory; the folder appears under its name when it is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.data.token_store import FORMAT_VERSION, SPLITS
from glassformer.files import atomic_folder, write_json

SHARD_TOKENS = 100_000_000


@dataclasses.dataclass
class _SplitWriter:
    """The growing files of one split."""

    folder: Path
    name: str
    dtype: str
    shards: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    starts: array[int] = dataclasses.field(default_factory=lambda: array("Q"))
    tokens: int = 0
    bytes: int = 0
    inside: bool = False  # a document has begun and not ended
    file: Any = None
    digest: Any = None

    def append(self, ids: np.ndarray, shard_tokens: int) -> None:
        while len(ids):
            if self.file is None:
                name = f"{self.name}-{len(self.shards):05d}.bin"
                self.shards.append({"file": name, "tokens": 0, "sha256": ""})
                self.file, self.digest = open(self.folder / name, "wb"), hashlib.sha256()  # noqa: SIM115 (closed by `close`)
            part, ids = np.split(ids, [shard_tokens - self.shards[-1]["tokens"]])
            data = np.ascontiguousarray(part, dtype=np.dtype(self.dtype).newbyteorder("<")).data.cast("B")
            self.file.write(data)
            self.digest.update(data)
            self.shards[-1]["tokens"] += len(part)
            self.tokens += len(part)
            if self.shards[-1]["tokens"] == shard_tokens:
                self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file, self.shards[-1]["sha256"] = None, self.digest.hexdigest()

    def meta(self) -> dict[str, Any]:
        self.close()
        data = np.array(self.starts, dtype="<u8").tobytes()
        name = f"{self.name}-documents.bin"
        (self.folder / name).write_bytes(data)
        starts = {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
        sizes = {"tokens": self.tokens, "bytes": self.bytes, "documents": len(self.starts)}
        return {**sizes, "shards": self.shards, "document_starts": starts}


class TokenStoreWriter:
    """Write a store as a stream: `append` as often as there is text; the folder appears when the block ends well.

        with TokenStoreWriter(folder, tokenizer, source="my.txt", split_rule="...") as writer:
            writer.append("train", ids, bytes=123, end_of_document=True)
        store = TokenStore.open(folder)

    Raises:
        GlassformerError: the folder exists already, is not writable, or the disk is full; nothing is left behind.
    """

    def __init__(
        self, folder: str | Path, tokenizer: Any, *, shard_tokens: int = SHARD_TOKENS, key: str = "", **about: Any
    ):
        self.folder, self.shard_tokens = Path(folder), shard_tokens
        dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        made_with = {"hash": tokenizer.hash, "kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
        self._meta: dict[str, Any] = {"glassformer_token_store": FORMAT_VERSION, "key": key, **about}
        self._meta |= {"dtype": dtype, "tokenizer": made_with}
        self._stack = contextlib.ExitStack()
        self._splits: dict[str, _SplitWriter] = {}

    def __enter__(self) -> TokenStoreWriter:
        self.place = self._stack.enter_context(atomic_folder(self.folder))
        self._splits = {name: _SplitWriter(self.place, name, self._meta["dtype"]) for name in SPLITS}
        return self

    @property
    def tokens(self) -> int:
        """Tokens written so far, both splits together."""
        return sum(split.tokens for split in self._splits.values())

    def append(self, split: str, ids: np.ndarray, *, bytes: int, end_of_document: bool) -> None:
        """Add ids (a stretch of one document) and the number of UTF-8 bytes of their text."""
        writer = self._splits[split]
        if not writer.inside:
            writer.starts.append(writer.tokens)
        writer.inside = not end_of_document
        writer.bytes += bytes
        writer.append(ids, self.shard_tokens)

    def __exit__(self, kind, error, trace) -> bool | None:
        try:
            if kind is None:
                splits = {name: split.meta() for name, split in self._splits.items()}
                write_json(self.place / "meta.json", {**self._meta, "splits": splits})
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        finally:
            for split in self._splits.values():
                split.close()
        return self._stack.__exit__(kind, error, trace)
