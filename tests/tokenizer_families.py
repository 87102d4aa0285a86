"""A small tokenizer of every family: how each writes spaces, bytes and the ends of words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

SPOKEN = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak; you're resolved?\n"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXT = SPOKEN * 3 + "café naïve — 東京 🎉"


def trained(library: tokenizers.Tokenizer, trainer: Any, **options: Any) -> Tokenizer:
    library.train_from_iterator([TEXT], trainer)
    return Tokenizer(library, **options)


def llama(*, strip: bool = True, fallback: bool = True) -> Tokenizer:
    """As Llama 2 (with `strip`) and Gemma have it: spaces are part of the next word, bytes where a character lacks."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, fuse_unk=True))
    first = [normalizers.Prepend("▁")] if strip else []
    library.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    library.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_together = [decoders.ByteFallback(), decoders.Fuse()] if fallback else [decoders.Fuse()]
    last = [decoders.Strip(" ", 1, 0)] if strip else []
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), *bytes_together, *last])
    special = ["<unk>", "<s>", "</s>", *(BYTES if fallback else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 83, special_tokens=special, limit_alphabet=40, show_progress=False
    )
    library.train_from_iterator([TEXT], trainer)
    spec = json.loads(library.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]  # bytes are pieces like others
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), end_of_text="</s>")


def metaspace() -> Tokenizer:
    """As T5 and Marian have it."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=97, special_tokens=special, unk_token="<unk>", show_progress=False)
    return trained(library, trainer, end_of_text="</s>")


def wordpiece() -> Tokenizer:
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer, library.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return trained(
        library, trainers.WordPieceTrainer(vocab_size=113, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    )


def ends_of_words() -> Tokenizer:
    """As the first GPT and CLIP have it: what ends a word says so."""
    library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=101, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    return trained(library, trainer)


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "characters": lambda: TOKENIZERS["characters"]([TEXT]),
    "bytes": lambda: TOKENIZERS["bytes"](),
    "bpe": lambda: TOKENIZERS["bpe"]([TEXT], vocab_size=300),
    "words": lambda: TOKENIZERS["words"]([TEXT]),
    "smiles": lambda: TOKENIZERS["smiles"]([r"C[C@H](Cl)N.F/C=C\F", "c1cc(Br)ccc1"]),
    "plain words": lambda: TOKENIZERS["plain-words"]([TEXT * 5]),
    "llama": llama,
    "gemma": lambda: llama(strip=False),
    "without bytes": lambda: llama(fallback=False),
    "metaspace": metaspace,
    "wordpiece": wordpiece,
    "ends of words": ends_of_words,
}
