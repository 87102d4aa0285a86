"""Text to arrays of ids at the speed of data preparation, for each kind of vocabulary the fastest way that gives the
same ids as `Tokenizer.encode`.

    characters   one NumPy table over the code points                          (hundreds of MB/s)
    bytes        the bytes themselves, through the same kind of table
    bpe, gpt2    tiktoken over our own merges, on all threads                  (3-4 times the `tokenizers` library)
    the rest     the `tokenizers` library, on all threads
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from glassformer.processors.tokenizers.alphabet import BYTE_TO_CHARACTER, unspell, whole_characters
from glassformer.processors.tokenizers.kinds import BPE_PATTERN, GPT2_PATTERN, byte_level_pattern, merge_pairs

_TABLE_STEP = 1 << 16  # look-ups go in steps that stay in the processor's cache: 430 MB/s against 230 in one go
_SEGMENT = 1 << 18  # characters of a long document given to one thread at a time
_SAFE_CUT = re.compile(r"(?<=\S\n)(?=\S)")
_CUT_PATTERNS = (GPT2_PATTERN, BPE_PATTERN)  # the patterns for which _SAFE_CUT is known to be safe


Encode = Callable[[Sequence["str | bytes"]], "tuple[list[np.ndarray], set[str]]"]
"""Texts to (their ids, the characters that were unknown)."""


def bulk_encoder(kind: str, library: tokenizers.Tokenizer, spec: dict[str, Any]) -> Encode:
    """The fastest encoder for a vocabulary that gives the ids of `library`; see the table above."""
    vocabulary = library.get_vocab(with_added_tokens=True)
    dtype = id_dtype(max(vocabulary.values()) + 1)
    if kind == "characters":
        characters = library.get_vocab(with_added_tokens=False)  # typed text never becomes a special token
        return CharacterTable(characters, characters[spec["model"]["unk_token"]]).encode
    if kind == "bytes":
        id_of_byte = np.array([vocabulary[BYTE_TO_CHARACTER[byte]] for byte in range(256)], dtype=dtype)

        def encode_bytes(texts: Sequence[str | bytes]) -> tuple[list[np.ndarray], set[str]]:
            raw = (t if isinstance(t, bytes) else whole_characters(t).encode("utf-8") for t in texts)
            return [look_up(id_of_byte, np.frombuffer(r, dtype=np.uint8)) for r in raw], set()

        return encode_bytes
    merges = merges_encoder(library, spec, dtype) if kind in ("bpe", "gpt2") else None

    def encode(texts: Sequence[str | bytes]) -> tuple[list[np.ndarray], set[str]]:
        strings = [whole_characters(t.decode("utf-8", "replace") if isinstance(t, bytes) else t) for t in texts]
        if merges is not None:
            return merges.encode_documents(strings), set()
        batch = library.encode_batch_fast(strings, add_special_tokens=False)  # fast: without offsets
        return [np.array(encoding.ids, dtype=dtype) for encoding in batch], set()

    return encode


def id_dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits, uint32 otherwise: what token stores hold."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class CharacterTable:
    """A table with an entry for every code point up to the vocabulary's largest, and one more for all others."""

    def __init__(self, vocabulary: dict[str, int], replacement: int):
        self.replacement = replacement
        self._unknown = max(vocabulary.values()) + 1  # stands in the table where the vocabulary has nothing
        self.dtype = id_dtype(self._unknown)
        last = max(map(ord, vocabulary)) + 1
        self._table = np.full(last + 1, self._unknown, dtype=id_dtype(self._unknown + 1))
        for character, i in vocabulary.items():
            self._table[ord(character)] = i

    def encode(self, texts: Sequence[str | bytes]) -> tuple[list[np.ndarray], set[str]]:
        """Their ids, and the characters that the vocabulary lacks; those got the replacement's id."""
        arrays: list[np.ndarray] = []
        unknown: set[str] = set()
        for text in texts:
            codes = _code_points(text)
            ids = look_up(self._table, codes)
            missing = ids == self._unknown
            if missing.any():
                unknown |= {chr(code) for code in np.unique(codes[missing])}
                ids[missing] = self.replacement
            arrays.append(ids.astype(self.dtype, copy=False))
        return arrays, unknown


def _code_points(text: str | bytes) -> np.ndarray:
    if text.isascii():
        return np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), dtype=np.uint8)
    whole = text.decode("utf-8", "replace") if isinstance(text, bytes) else whole_characters(text)
    return np.frombuffer(whole.encode("utf-32-le"), dtype=np.uint32)


def look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`table[codes]`, where a code beyond the table takes its last entry."""
    out = np.empty(len(codes), dtype=table.dtype)
    for start in range(0, len(codes), _TABLE_STEP):
        part = slice(start, start + _TABLE_STEP)
        np.take(table, codes[part], out=out[part], mode="clip")
    return out


class MergesEncoder:
    """tiktoken over a byte-level BPE vocabulary of the `tokenizers` library."""

    def __init__(self, encoding: tiktoken.Encoding, library: tokenizers.Tokenizer, dtype: np.dtype):
        self._encoding, self._library, self._dtype = encoding, library, dtype

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of every text, in order. Long texts are cut where that changes nothing, so that one text keeps all
        threads busy; short texts share a job."""
        jobs: list[list[tuple[int, str]]] = [[]]
        size = 0
        for number, text in enumerate(texts):
            for segment in self._segments(text):
                if size > _SEGMENT:
                    jobs.append([])
                    size = 0
                jobs[-1].append((number, segment))
                size += len(segment) + 16
        if len(jobs) == 1:
            encoded = [self._encode_job(jobs[0])]
        else:
            with ThreadPoolExecutor(threads()) as pool:  # tiktoken lets go of the interpreter's lock
                encoded = list(pool.map(self._encode_job, jobs))
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        for job, arrays in zip(jobs, encoded, strict=True):
            for (number, _), array in zip(job, arrays, strict=True):
                parts[number].append(array)
        return [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]

    def _encode_job(self, job: list[tuple[int, str]]) -> list[np.ndarray]:
        return [self._encode(segment) for _, segment in job]

    def _encode(self, text: str) -> np.ndarray:
        try:
            ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError:  # its regex engine gives up on runs of about a million spaces; the library's does not
            ids = np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.uint32)
        return ids.astype(self._dtype)

    def _segments(self, text: str) -> Iterator[str]:
        """Cut after a line end that has something other than white space on both sides: both patterns always cut
        there, and neither looks across (their only look-ahead asks whether white space continues)."""
        start = 0
        while len(text) - start > _SEGMENT:
            cut = _SAFE_CUT.search(text, start + _SEGMENT)
            if cut is None:
                break
            yield text[start : cut.start()]
            start = cut.start()
        yield text[start:] if start else text


def merges_encoder(library: tokenizers.Tokenizer, spec: dict[str, Any], dtype: np.dtype) -> MergesEncoder | None:
    """A tiktoken encoder with the same ids as `library`, or None when tiktoken cannot express this vocabulary.

    The two differ in one thing: the library merges the pairs of a list in their order, tiktoken merges whichever
    neighbours spell the token of the lowest id. That is the same exactly when ids follow the order of the merges and
    every token is what its own bytes merge to, which is true of what a trainer made, and checked here.
    """
    model, pattern = spec["model"], byte_level_pattern(spec)
    awkward = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if pattern not in _CUT_PATTERNS or any(model.get(key) for key in awkward):
        return None
    vocabulary: dict[str, int] = model["vocab"]
    products = ["".join(pair) for pair in merge_pairs(model)]
    order = [vocabulary[product] for product in products]
    mergeable = set(BYTE_TO_CHARACTER.values()) | set(products)
    if order != sorted(set(order)) or not mergeable <= vocabulary.keys():
        return None
    if any(len(library.model.tokenize(product)) != 1 for product in products):
        return None
    ranks = {unspell(token): vocabulary[token] for token in mergeable}
    # A special token that is never allowed: with none at all, tiktoken's array path looks for an empty one at every
    # character and runs at half the speed.
    never = {"<|endoftext|>": max(vocabulary.values()) + 1}
    encoding = tiktoken.Encoding("glassformer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=never)
    return MergesEncoder(encoding, library, dtype)


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
