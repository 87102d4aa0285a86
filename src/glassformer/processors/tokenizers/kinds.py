"""What kind of tokenizer a `tokenizer.json` describes, read off its structure (never off a name).

characters     WordLevel over single characters, every character split off; special tokens aside
words          WordLevel over what stands between spaces
plain-words    WordLevel over words in lower case, marks and numbers dropped
smiles         WordLevel over atoms, bonds, brackets and rings of molecules
bytes          byte-level BPE with no merges
gpt2           byte-level BPE with exactly OpenAI's 50,000 merges
bpe            any other byte-level BPE
sentencepiece  Unigram, or BPE over text with `▁` for spaces
wordpiece      WordPiece (BERT)
huggingface    anything else that the `tokenizers` library can run
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from glassformer.processors.tokenizers.alphabet import CHARACTER_TO_BYTE

BYTE_KINDS = ("characters", "bytes", "bpe", "gpt2", "smiles")
"""Kinds of tokenizers where a text is the bytes of its tokens put together."""

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""How GPT-2 cuts text before merging; `ByteLevel(use_regex=True)` of the `tokenizers` library does the same."""

BPE_PATTERN = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How our own BPE cuts text: the GPT-4 pattern with single digits, which is Qwen's.

Against GPT-2's it keeps line ends apart from indentation, lets a word take the mark before it (`(word`), and reads 'S
as 's. Single digits: runs of up to three would spend most of a small vocabulary on numbers. [sS], because (?i:s)
also matches the long s (U+017F); written as llama.cpp's `qwen2` pre-tokenizer, so that a GGUF export can name it.
"""

CHARACTER_PATTERN = r"[\s\S]"  # a dot would not match a newline

PLAIN_WORD_PATTERN = r"\p{L}+(?:'\p{L}+)*"  # letters, with apostrophes inside

SMILES_PATTERN = r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>|\*|\$|%[0-9]{2}|[0-9]"
"""Each atom of a SMILES with all that its brackets hold, each bond, branch and ring (Schwaller et al. 2019,
https://arxiv.org/abs/1811.02633, section 4.1)."""

_GPT2_MERGES_SHA256 = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"


def recognise(spec: dict[str, Any]) -> str:
    """The kind of tokenizer that a parsed tokenizer.json describes; see the table above."""
    model, kind = spec["model"], spec["model"].get("type")
    if kind == "WordPiece":
        return "wordpiece"
    if kind == "Unigram":
        return "sentencepiece"
    if kind == "WordLevel" and _is_characters(spec):
        return "characters"
    if kind == "WordLevel" and not spec.get("normalizer") and spec.get("pre_tokenizer") == {"type": "WhitespaceSplit"}:
        return "words"
    if kind == "WordLevel" and spec.get("normalizer") == {"type": "Lowercase"}:
        found = {"type": "Split", "pattern": {"Regex": PLAIN_WORD_PATTERN}, "behavior": "Removed", "invert": True}
        return "plain-words" if spec.get("pre_tokenizer") == found else "huggingface"
    if kind == "WordLevel" and not spec.get("normalizer"):
        found = {"type": "Split", "pattern": {"Regex": SMILES_PATTERN}, "behavior": "Isolated", "invert": False}
        fused = spec.get("decoder") == {"type": "Fuse"}
        return "smiles" if fused and spec.get("pre_tokenizer") == found else "huggingface"
    if kind == "BPE" and byte_level_pattern(spec) is not None:
        if not model["merges"]:
            return "bytes" if CHARACTER_TO_BYTE.keys() <= model["vocab"].keys() else "bpe"
        lines = "\n".join(map(" ".join, merge_pairs(model)))
        return "gpt2" if hashlib.sha256(lines.encode("utf-8")).hexdigest() == _GPT2_MERGES_SHA256 else "bpe"
    if kind == "BPE":
        parts = json.dumps([spec.get("pre_tokenizer"), spec.get("normalizer")])
        if "ByteLevel" in parts:
            return "bpe"
        return "sentencepiece" if model.get("byte_fallback") or "\\u2581" in parts else "huggingface"
    return "huggingface"


def byte_level_pattern(spec: dict[str, Any]) -> str | None:
    """The regular expression that cuts the text of a plain byte-level tokenizer ("" when nothing cuts it).

    None when there is more to it (a normalizer, a space put before the text, added tokens that match inside ordinary
    text, several cuts), so that bytes alone do not decide the ids.
    """
    if spec.get("normalizer") or any(not token["special"] for token in spec["added_tokens"]):
        return None
    match spec.get("pre_tokenizer"):
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}:
            return GPT2_PATTERN if use_regex else ""
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def merge_pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model in order; older files write a pair as one string with a space between."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def canonical_hash(spec: dict[str, Any]) -> str:
    """SHA-256 of what decides the ids: without settings of a single call (truncation, padding), fields at their null or
    false default, added tokens that stand in a BPE's vocabulary as well, and empty prefixes, in which files of equal
    tokenizers differ."""
    kept = {key: value for key, value in spec.items() if key not in ("truncation", "padding", "version")}
    if kept["model"].get("type") == "BPE":
        added = {token["content"]: token["id"] for token in kept["added_tokens"]}
        model = {name: value for name, value in kept["model"].items() if value != ""}
        model["vocab"] = {token: i for token, i in model["vocab"].items() if added.get(token) != i}
        kept["model"] = model | {"merges": merge_pairs(model)}
    text = json.dumps(_without_defaults(kept), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_defaults(v) for k, v in value.items() if v is not None and v is not False}
    if isinstance(value, list):
        return [_without_defaults(v) for v in value]
    if isinstance(value, float):
        return f"{value:.6g}"  # the library's JSON reader is off by a last digit now and then
    return value


def _is_characters(spec: dict[str, Any]) -> bool:
    split = {"type": "Split", "pattern": {"Regex": CHARACTER_PATTERN}, "behavior": "Isolated", "invert": False}
    return (
        not spec.get("normalizer")
        and all(token["special"] for token in spec["added_tokens"])
        and spec.get("pre_tokenizer") == split
        and all(len(token) == 1 for token in spec["model"]["vocab"])
        and spec["model"].get("unk_token") in spec["model"]["vocab"]
    )
