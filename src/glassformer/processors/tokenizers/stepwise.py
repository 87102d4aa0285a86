"""How a tokenizer comes from a text to its ids, step by step: the pieces it cuts, the merges one by one, the places.

`bpe_twin.py` is the algorithm to be read; this one lists its steps, from the merges of any tokenizer that has some.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import tokenizers

from glassformer.processors.tokenizers.alphabet import display, unspell, whole_characters
from glassformer.processors.tokenizers.bpe_twin import merge
from glassformer.processors.tokenizers.kinds import BYTE_KINDS, merge_pairs
from glassformer.processors.tokenizers.tokenizer import Tokenizer

LONGEST_CHUNK = 64  # symbols of a chunk whose merges are listed; states grow with the square


@dataclass
class Merge:
    """One step: of the pairs that are there the one learned first becomes one symbol, wherever it stands.

    rank: which merge of the tokenizer's list it is (0 was learned first). left, right, result: as text. state: all
    symbols after it.
    """

    rank: int
    left: str
    right: str
    result: str
    state: list[str]


@dataclass
class Chunk:
    """A piece of a text, cut off before anything is merged, so that no token reaches over its ends.

    start: its first character in the text. symbols: what the merges start from. merges: the steps. ids: its tokens.
    """

    text: str
    start: int
    symbols: list[str]
    merges: list[Merge]
    ids: list[int]


def merge_by_merge(tokenizer: Tokenizer, text: str, *, most: int = 32) -> list[Chunk] | None:
    """The first `most` chunks of a text, each with its merges; their ids are checked to be those of `encode`.

    None: the tokenizer has no merges, or does more than merge (its own ids of this text are others), or a chunk is
    longer than `LONGEST_CHUNK` symbols.
    """
    spec = json.loads(tokenizer.to_json())
    model = spec["model"]
    awkward = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if model.get("type") != "BPE" or not model["merges"] or any(model.get(key) for key in awkward):
        return None
    library = tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": [], "post_processor": None}))
    pieces = _cut(library, whole_characters(text))
    if not pieces or any(len(piece) > LONGEST_CHUNK for piece, _ in pieces[:most]):
        return None
    ranks = {pair: rank for rank, pair in enumerate(merge_pairs(model))}
    shown = _shower(spec)
    chunks: list[Chunk] = []
    for piece, start in pieces[:most]:
        chunk = _merged(piece, start, model, ranks, shown)
        if chunk is None:
            return None
        chunks.append(chunk)
    encoded, ids = tokenizer.encode(text), [i for chunk in chunks for i in chunk.ids]
    return chunks if encoded[: len(ids)] == ids and (len(pieces) > most or len(encoded) == len(ids)) else None


def _cut(library: tokenizers.Tokenizer, text: str) -> list[tuple[str, int]]:
    """(piece, where it starts in the text as it was normalised) before any merge, in the alphabet of the merges."""
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    if library.pre_tokenizer is None:
        return [(text, 0)] if text else []
    return [(piece, start) for piece, (start, _) in library.pre_tokenizer.pre_tokenize_str(text)]


def _shower(spec: dict[str, Any]) -> Callable[[str], str]:
    """How a symbol is shown: what it stands for."""
    if "ByteLevel" in json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")]):
        return lambda symbol: display(unspell(symbol))
    return lambda symbol: display(symbol.replace("\u2581", " ").encode("utf-8"))


def _merged(
    piece: str, start: int, model: dict[str, Any], ranks: dict[tuple[str, str], int], shown: Callable[[str], str]
) -> Chunk | None:
    vocabulary: dict[str, int] = model["vocab"]
    symbols = _symbols(piece, model)
    chunk = Chunk(shown(piece), start, list(map(shown, symbols)), [], [])
    if model.get("ignore_merges") and piece in vocabulary:  # a whole word that is a token stays whole
        symbols = [piece]
    while len(symbols) > 1:
        left, right = min(pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks)))
        if (left, right) not in ranks:
            break
        symbols = merge(symbols, (left, right), left + right)
        state = list(map(shown, symbols))
        chunk.merges.append(Merge(ranks[left, right], shown(left), shown(right), shown(left + right), state))
    if any(symbol not in vocabulary for symbol in symbols):
        return None
    chunk.ids = [vocabulary[symbol] for symbol in symbols]
    return chunk


def _symbols(piece: str, model: dict[str, Any]) -> list[str]:
    """Characters of the alphabet; one that the vocabulary lacks is its bytes, where the model has bytes."""
    symbols: list[str] = []
    for character in piece:
        if character in model["vocab"] or not model.get("byte_fallback"):
            symbols.append(character)
        else:
            symbols += [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
    return symbols


def token_starts(tokenizer: Tokenizer, text: str) -> list[int]:
    """Where each token of `tokenizer.encode(text)` begins in the text, in characters; of one that begins inside a
    character, where that character begins. Empty where the tokenizer changes the text so much that tokens and places
    do not match."""
    text = whole_characters(text)
    ids = tokenizer.encode(text)
    if tokenizer.kind in BYTE_KINDS:
        starts = [0, *accumulate(len(tokenizer.token_bytes(i)) for i in ids)]  # in bytes
        character = [i for i, c in enumerate(text) for _ in c.encode("utf-8")] + [len(text)]
        if starts[-1] == len(character) - 1:
            return [character[at] for at in starts[:-1]]
    encoding = tokenizer._library.encode(text, add_special_tokens=False)
    return [start for start, _ in encoding.offsets] if encoding.ids == ids else []
