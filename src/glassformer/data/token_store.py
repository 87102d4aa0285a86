"""The token store: a text as numbers on disk, read by memory map, written as a stream.

    my-store/
      meta.json                  what it is, counts, SHA-256 of every other file
      train-00000.bin            token ids, little-endian uint16 (uint32 when the vocabulary is larger), nothing else
      train-00001.bin            the next shard
      train-documents.bin        where each document starts, uint64
      validation-00000.bin ...

Reads go through a memory map, so a store may be larger than the machine's memory.
`token_writer` writes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, did_you_mean
from glassformer.files import sha256_file

FORMAT_VERSION = 1
SPLITS = ("train", "validation")
_DTYPES: dict[str, np.dtype] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}  # on disk always little-endian


class TokenView:
    """One split, as if it were one long array of N token ids.

    Attributes:
        bytes: UTF-8 bytes of the split's text: loss in nats * tokens / bytes / ln 2 is bits per byte.
        documents: number of documents.
    """

    def __init__(self, name: str, arrays: list[np.ndarray], offsets: np.ndarray, bytes: int):
        self.name, self.bytes, self.documents = name, bytes, len(offsets)
        self.document_starts = offsets
        self._arrays = arrays
        self._slidings: dict[int, np.ndarray] = {}  # views, not copies
        self._ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __repr__(self) -> str:
        return f"TokenView({self.name!r}, {len(self):,} tokens, {self.documents:,} documents)"

    def read(self, start: int, length: int) -> np.ndarray:
        """Ids start ... start + length - 1 as int64, also across shards.

        Raises:
            IndexError: that reaches outside the split.
        """
        if start < 0 or length < 0 or start + length > len(self):
            raise IndexError(f"{self.name}: tokens {start} to {start + length} of {len(self)}")
        out = np.empty(length, dtype=np.int64)
        filled = 0
        while filled < length:
            shard = int(np.searchsorted(self._ends, start + filled, side="right"))
            inside = start + filled - (int(self._ends[shard]) - len(self._arrays[shard]))
            piece = self._arrays[shard][inside : inside + length - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        return out

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Rows of `length` ids from each of the B starts, (B, length), in the stored integer type.

        One shard is one fancy index over a sliding view: each row is a single copy out of the map.
        """
        if len(self._arrays) == 1:
            if length not in self._slidings:
                self._slidings[length] = np.lib.stride_tricks.sliding_window_view(self._arrays[0], length)
            return self._slidings[length][starts]
        return np.stack([self.read(int(start), length) for start in starts])


class TokenStore:
    """A prepared text. `TokenStore.open(folder)`, then `store.split("train")`.

    Attributes:
        folder: its path.
        meta: `meta.json` as it was read.
    """

    def __init__(self, folder: Path, meta: dict[str, Any]):
        self.folder, self.meta = folder, meta

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> TokenStore:
        """Read `meta.json` and compare every file's length with it; with `verify` also its SHA-256 (reads everything).

        Raises:
            DataError: not a token store, or one that is truncated, damaged or from another version.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{folder}: no meta.json, so not a token store; run: glassformer data prepare") from error
        except (ValueError, OSError) as error:
            raise DataError(f"{folder / 'meta.json'}: damaged ({error}); run prepare again") from error
        if not isinstance(meta, dict) or "glassformer_token_store" not in meta:
            raise DataError(f"{folder / 'meta.json'}: not a token store's; run prepare again into another folder")
        if meta["glassformer_token_store"] != FORMAT_VERSION:
            version = meta["glassformer_token_store"]
            raise DataError(f"{folder}: format {version}, and this program reads {FORMAT_VERSION}; run prepare again")
        try:
            for path, size, sha256 in _files(folder, meta):
                if not path.is_file() or path.stat().st_size != size:
                    found = f"{path.stat().st_size:,}" if path.is_file() else "no"
                    raise DataError(f"{path}: truncated ({found} bytes of {size:,}); run prepare again")
                if verify and sha256_file(path) != sha256:
                    raise DataError(f"{path}: damaged (its SHA-256 differs from meta.json); run prepare again")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / 'meta.json'}: damaged (no {error}); run prepare again") from error
        return cls(folder, meta)

    def __repr__(self) -> str:
        return f"TokenStore({str(self.folder)!r}, {self.meta['tokenizer']['kind']}, {self.meta['source']!r})"

    @property
    def vocab_size(self) -> int:
        return self.meta["tokenizer"]["vocab_size"]

    def split(self, name: str) -> TokenView:
        """The `train` or `validation` tokens.

        Raises:
            DataError: no such split.
        """
        if name not in self.meta["splits"]:
            raise DataError(f"{self.folder}: no split {name!r}; {did_you_mean(name, self.meta['splits'])}")
        split = self.meta["splits"][name]
        arrays = [self._map(shard["file"], _DTYPES[self.meta["dtype"]]) for shard in split["shards"]]
        return TokenView(name, arrays, self._map(split["document_starts"]["file"], np.dtype("<u8")), split["bytes"])

    def decode(self, split: str, start: int, length: int) -> str | None:
        """Some tokens decoded by the tokenizer saved in the store; None if there is none."""
        if not (self.folder / "tokenizer").is_dir():
            return None
        from glassformer.processors.tokenizers import load_tokenizer

        view = self.split(split)
        ids = view.read(start, min(length, len(view) - start))
        return load_tokenizer(self.folder / "tokenizer").decode(ids.tolist())

    def _map(self, name: str, dtype: np.dtype) -> np.ndarray:
        path = self.folder / name
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.empty(0, dtype)
        return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _files(folder: Path, meta: dict[str, Any]) -> Iterator[tuple[Path, int, str]]:
    """(path, bytes, SHA-256) of each file of a store, by its meta. Names are plain: a store cannot point outside."""
    width = _DTYPES[meta["dtype"]].itemsize
    for split in meta["splits"].values():
        starts = split["document_starts"]
        rows = [(shard["file"], shard["tokens"] * width, shard["sha256"]) for shard in split["shards"]]
        for name, size, sha256 in [*rows, (starts["file"], split["documents"] * 8, starts["sha256"])]:
            if Path(name).name != name:
                raise DataError(f"{folder / 'meta.json'}: damaged (the file name {name!r}); run prepare again")
            yield folder / name, size, sha256
