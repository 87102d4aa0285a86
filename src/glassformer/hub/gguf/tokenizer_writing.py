"""Tokenizers into the header of a GGUF file; see `tokenizer`."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import models

from glassformer.errors import ModelFolderError
from glassformer.hub.gguf.tokenizer import CONTROL, CUTS, NORMAL, PARTS, UNUSED, USER_DEFINED, pre_tokenizer_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.alphabet import BYTE_TO_CHARACTER
from glassformer.processors.tokenizers.gpt2 import END_OF_TEXT
from glassformer.processors.tokenizers.kinds import BPE_PATTERN, merge_pairs

_NEVER = f"{BYTE_TO_CHARACTER[255]} {BYTE_TO_CHARACTER[255]}"  # llama.cpp wants a merge: of bytes that no text has
# The same as the hub's files spell it, but for the long s, which is an s there.
_ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CONTRACTIONS = BPE_PATTERN[: BPE_PATTERN.index(")") + 1]


def tokenizer_to_gguf(tokenizer: Tokenizer, n_rows: int) -> dict[str, Any]:
    """The fields of the header for a byte-level BPE or a character tokenizer, and its end of text among them.

    Args:
        n_rows: of the model's embedding; rows behind the last token get texts that nothing becomes. One of them ends
            texts where the tokenizer has no token for that (see `needs_end`).

    Raises:
        ModelFolderError: it is of another kind, cuts text in an unknown way, or has more tokens than rows.
    """
    if tokenizer.vocab_size > n_rows:
        raise ModelFolderError(f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {n_rows:,} logits")
    spec = json.loads(tokenizer.to_json())
    if tokenizer.kind == "characters":
        texts, merges, pre = *_characters(tokenizer), "gpt-2"
    elif tokenizer.kind in ("bpe", "gpt2", "bytes"):
        pre = _name_of_cut(spec)
        texts = {**spec["model"]["vocab"]}
        texts |= {token["content"]: token["id"] for token in spec["added_tokens"]}
        merges = [" ".join(pair) for pair in merge_pairs(spec["model"])]
    else:
        raise ModelFolderError(f"a {tokenizer.kind} tokenizer is not written to GGUF; bpe, bytes and characters are")
    special = {token["id"]: CONTROL if token["special"] else USER_DEFINED for token in spec["added_tokens"]}
    tokens, kinds = [f"[PAD{number}]" for number in range(n_rows)], [UNUSED] * n_rows
    for text, number in texts.items():
        tokens[number], kinds[number] = text, special.get(number, NORMAL)
    end = _end_of(tokenizer)
    if end is None:
        end = tokenizer.vocab_size
        tokens[end], kinds[end] = END_OF_TEXT, CONTROL
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges or [_NEVER],
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_bos_token": tokenizer.starts_with is not None,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    for part in ("bos_token", "pad_token", "unk_token"):
        if (its := tokenizer.special_tokens.get(str(tokenizer.settings.get(part)))) is not None:
            fields[f"tokenizer.ggml.{PARTS[part]}"] = its
    return {name: value for name, value in fields.items() if value is not None}


def needs_end(tokenizer: Tokenizer) -> bool:
    """Whether an end of text must be made up: llama.cpp takes token 11 where none is named, and stops at every comma
    or whatever stands there."""
    return _end_of(tokenizer) is None


def _end_of(tokenizer: Tokenizer) -> int | None:
    return tokenizer.special_tokens.get(END_OF_TEXT) if tokenizer.end_of_text is None else tokenizer.end_of_text


def _characters(tokenizer: Tokenizer) -> tuple[dict[str, int], list[str]]:
    """The characters as byte-level tokens, and the merges that put together those of several bytes."""
    texts = dict(tokenizer.special_tokens)
    merges: list[str] = []
    for number in sorted({*range(tokenizer.vocab_size)} - {*texts.values()}):
        spelled = "".join(BYTE_TO_CHARACTER[byte] for byte in tokenizer.token_bytes(number))
        texts[spelled] = number
        merges += [f"{spelled[:cut]} {spelled[cut]}" for cut in range(1, len(spelled))]
    return texts, list(dict.fromkeys(sorted(merges, key=len)))


def _name_of_cut(spec: dict[str, Any]) -> str:
    changes = (spec.get("normalizer") or {}).get("type")
    if changes not in (None, "NFC"):  # Qwen's; llama.cpp does not join a letter and its accent
        raise ModelFolderError(f"llama.cpp does not change text before it is cut, as this tokenizer does ({changes})")
    if not spec["model"]["merges"]:
        return "gpt-2"  # nothing is merged, however it is cut
    cut = _essence(spec.get("pre_tokenizer"))
    for name, cuts in CUTS.items():
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizer_of(cuts)
        if cut == _essence(json.loads(library.to_str())["pre_tokenizer"]):
            return name
    raise ModelFolderError("llama.cpp has no name for the way in which this tokenizer cuts text; export --to hf")


def _essence(pre_tokenizer: Any) -> Any:
    """What decides where text is cut: without the offsets, and with one spelling for one expression."""
    text = json.dumps(pre_tokenizer).replace(json.dumps(_ANY_CASE)[1:-1], json.dumps(_CONTRACTIONS)[1:-1])
    return json.loads(text, object_hook=lambda part: {k: v for k, v in part.items() if k != "trim_offsets"})
