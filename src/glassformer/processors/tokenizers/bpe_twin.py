"""Byte-level BPE in plain Python: the readable twin of the fast tokenizer, held equal to it by tests.

Start from bytes, so that any text in any language is 256 symbols and nothing is ever unknown. Then shorten: find the
pair of neighbours that occurs most often, give it a new id, replace it everywhere, and again, until the vocabulary is
as large as you like. Those merges, in their order, *are* the tokenizer:

    merges = train(text, 300)        # [(71, 68), ...]: 44 pairs; the first becomes id 256, the next 257
    ids = encode("the theatre", merges)
    decode(ids, merges)

Ids below 256 are bytes in GPT-2's order (printable ones first: `!` is 0, `a` is 64, a space 220), so that these
functions, given GPT-2's merges, return GPT-2's ids. End-of-text has no merge and no bytes: the fast tokenizer gives it
the id after the last.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TypeVar

import regex  # the standard library's `re` has no \p{L}; tiktoken brings this one along

from glassformer.processors.tokenizers.alphabet import BYTE_ORDER
from glassformer.processors.tokenizers.kinds import BPE_PATTERN

Pair = tuple[int, int]
Symbol = TypeVar("Symbol", int, str)

BYTE_TO_ID = {byte: i for i, byte in enumerate(BYTE_ORDER)}


def train(text: str, vocab_size: int, pattern: str = BPE_PATTERN) -> list[Pair]:
    """Learn `vocab_size - 256` merges, or fewer when no pair is left that occurs twice.

    Ties go to the pair with the lower ids, which makes the result the same on every machine.
    """
    # Cut the text first, so that no token ever spans "dog" and the full stop after it; equal chunks count together.
    chunks = Counter(regex.findall(pattern, text))
    words = [(bytes_to_ids(chunk), count) for chunk, count in chunks.items()]
    merges: list[Pair] = []
    while 256 + len(merges) < vocab_size:
        counts = count_pairs(words)
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        words = [(merge(ids, best, 256 + len(merges)), count) for ids, count in words]
        merges.append(best)
    return merges


def encode(text: str, merges: list[Pair], pattern: str = BPE_PATTERN) -> list[int]:
    """Ids of a text: in every chunk the pair that was learned *first* is merged first, until none is left."""
    new_id = {pair: 256 + i for i, pair in enumerate(merges)}
    out: list[int] = []
    for chunk in regex.findall(pattern, text):
        ids = bytes_to_ids(chunk)
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: new_id.get(pair, len(merges) + 256))
            if pair not in new_id:
                break  # nothing here was ever merged in training
            ids = merge(ids, pair, new_id[pair])
        out.extend(ids)
    return out


def decode(ids: list[int], merges: list[Pair]) -> str:
    """The text of some ids; bytes that are not UTF-8 (a token may end inside a character) show as U+FFFD."""
    raw = [bytes([byte]) for byte in BYTE_ORDER]
    for left, right in merges:
        raw.append(raw[left] + raw[right])
    return b"".join(raw[i] for i in ids).decode("utf-8", "replace")


def bytes_to_ids(chunk: str) -> list[int]:
    return [BYTE_TO_ID[byte] for byte in chunk.encode("utf-8")]


def count_pairs(words: list[tuple[list[int], int]]) -> Counter[Pair]:
    """How often each pair of neighbours occurs: `aaa` holds (a, a) twice."""
    counts: Counter[Pair] = Counter()
    for ids, count in words:
        for pair in pairwise(ids):
            counts[pair] += count
    return counts


def merge(ids: list[Symbol], pair: tuple[Symbol, Symbol], new: Symbol) -> list[Symbol]:
    """Replace every `pair` by `new`, from the left, without overlap: (a, a) in `aaa` leaves [new, a]."""
    out: list[Symbol] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out
