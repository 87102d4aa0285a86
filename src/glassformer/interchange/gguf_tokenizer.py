"""Tokenizers in and out of the header of a GGUF file.

tokenizer.ggml.model         gpt2: byte-level BPE          llama: SentencePiece's BPE, by scores
tokenizer.ggml.pre           how the text is cut before it is merged, by a name that llama.cpp knows
tokenizer.ggml.tokens        the text of every token, with its kind (token_type) and, of pieces, its score
tokenizer.ggml.merges        the merges of a byte-level BPE
tokenizer.chat_template      the Jinja template of a chat model
"""

from __future__ import annotations

import json
import math
from typing import Any

from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.tokenizers import Tokenizer
from glassformer.tokenizers.alphabet import BYTE_TO_CHARACTER, unspell
from glassformer.tokenizers.builders import character_library
from glassformer.tokenizers.gpt2 import END_OF_TEXT, byte_level_bpe
from glassformer.tokenizers.kinds import BPE_PATTERN, GPT2_PATTERN, byte_level_pattern, merge_pairs
from glassformer.tokenizers.sentencepiece import SPACE, Pieces, library_from_pieces

_NEVER = f"{BYTE_TO_CHARACTER[255]} {BYTE_TO_CHARACTER[255]}"  # llama.cpp wants a merge: of bytes that no text has
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3_PATTERN = BPE_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# The name of a way to cut: the expressions that cut one after the other. Names that cut alike share them.
CUTS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2_PATTERN,),
    "qwen2": (BPE_PATTERN,),
    "llama-bpe": (_LLAMA3_PATTERN,),
    "smollm": (r"\p{N}", GPT2_PATTERN),
}
_OTHER_NAMES = {
    **dict.fromkeys(("phi-2", "jina-es", "jina-de", "mellum", "modern-bert", "olmo", "mpt", "jais"), "gpt-2"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"), "qwen2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone"), "smollm"),
}  # fmt: skip
# The names that take a word which is a token as it is, whatever its merges say.
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2")
# A word for a token's part in tokenizer_config.json: the field with its number.
_PARTS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def tokenizer_from_gguf(fields: dict[str, Any]) -> Tokenizer:
    """The tokenizer that the header of a file describes.

    Raises:
        ModelFolderError: it is incomplete, contradicts itself, or is of a kind that is not read.
    """
    tokens, kinds = _tokens(fields)
    model = fields.get("tokenizer.ggml.model")
    readers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if not isinstance(model, str) or model not in readers:
        raise ModelFolderError(f"its tokenizer is of the kind {model!r}; {did_you_mean(str(model), readers)}")
    try:
        library = readers[model](fields, tokens, kinds)
        library.add_tokens([AddedToken(tokens[i], normalized=False) for i in _of(kinds, USER_DEFINED)])
    except ModelFolderError:
        raise
    except BaseException as error:  # the library raises bare Exception, and panics (a BaseException) on some damage
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelFolderError(f"its tokenizer cannot be put together ({reason}); take another file") from None
    if moved := next(
        (tokens[i] for i in _of(kinds, CONTROL, USER_DEFINED) if library.token_to_id(tokens[i]) != i), None
    ):
        raise ModelFolderError(f"its tokenizer has another number for {moved[:40]!r} than it tells; take another file")
    settings: dict[str, Any] = {"split_special_tokens": True}
    for part, field in _PARTS.items():
        number = fields.get(f"tokenizer.ggml.{field}")
        if isinstance(number, int) and 0 <= number < len(tokens) and kinds[number] != NORMAL:
            settings[part] = tokens[number]
    template = fields.get("tokenizer.chat_template")
    return Tokenizer(
        library,
        end_of_text=settings.get("eos_token"),
        chat_template=template if isinstance(template, str) else None,
        settings=settings,
    )


def _tokens(fields: dict[str, Any]) -> tuple[list[str], list[int]]:
    """The text and the kind of every token, without the rows at the end that belong to no token."""
    tokens = _texts(fields, "tokens")
    kinds = fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        what = "a token twice" if len(set(tokens)) != len(tokens) else "not one kind for every token"
        raise ModelFolderError(f"its tokenizer has {what}; take another file of this model")
    n = max((i for i, kind in enumerate(kinds) if kind != UNUSED), default=-1) + 1
    if not n:
        raise ModelFolderError("its tokenizer has no tokens; take another file of this model")
    return tokens[:n], kinds[:n]


def _of(kinds: list[int], *wanted: int) -> list[int]:
    """The numbers of the tokens of these kinds."""
    return [i for i, kind in enumerate(kinds) if kind in wanted]


def _byte_level(fields: dict[str, Any], tokens: list[str], kinds: list[int]) -> Library:
    specials = [tokens[i] for i in _of(kinds, CONTROL)]
    if (characters := _as_characters(tokens, kinds)) is not None:
        library = character_library(characters)
        library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        return library
    pre = fields.get("tokenizer.ggml.pre", "gpt-2")
    name = _OTHER_NAMES.get(pre, pre) if isinstance(pre, str) else pre
    if name not in CUTS:
        known = did_you_mean(str(pre), [*CUTS, *_OTHER_NAMES])
        raise ModelFolderError(f"its tokenizer cuts text in a way called {pre!r}, which is not known here; {known}")
    merges = [tuple(merge.split(" ", 1)) for merge in _texts(fields, "merges")]
    if bad := next((merge for merge in merges if len(merge) != 2), None):
        raise ModelFolderError(f"its tokenizer has a merge that is no pair: {bad[0][:40]!r}")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    mergeable = [(a, b) for a, b in merges if a in vocabulary and b in vocabulary and a + b in vocabulary]
    cut = pre_tokenizer_of(CUTS[name]) if mergeable else pre_tokenizers.ByteLevel(False, use_regex=False)
    library = byte_level_bpe(vocabulary, mergeable, pre_tokenizer=cut, specials=specials)
    if pre in _WHOLE_WORDS:
        library.model.ignore_merges = True
    return library


def _as_characters(tokens: list[str], kinds: list[int]) -> dict[str, int] | None:
    """The characters that the tokens are, or None where one is no single character. Special tokens may follow.

    A merge needs both of its halves among the tokens in the `tokenizers` library (and not in llama.cpp), and half of
    an `é` is not; so such a vocabulary is taken for what it is.
    """
    n = len(_of(kinds, NORMAL))
    if kinds[:n] != [NORMAL] * n or any(kind != CONTROL for kind in kinds[n:]):
        return None
    characters = [unspell(token).decode("utf-8", "replace") for token in tokens[:n]]
    if not n or any(len(character) != 1 or character == "\ufffd" for character in characters):
        return None
    return {character: i for i, character in enumerate(characters)}


def pre_tokenizer_of(cuts: tuple[str, ...]) -> Any:
    """The `tokenizers` form of these expressions."""
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cuts[-1] == GPT2_PATTERN)
    split = cuts if cuts[-1] != GPT2_PATTERN else cuts[:-1]
    before = [
        pre_tokenizers.Digits(individual_digits=True)
        if pattern == r"\p{N}"
        else pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        for pattern in split
    ]
    return pre_tokenizers.Sequence([*before, bytes_of]) if before else bytes_of


def _sentencepiece(fields: dict[str, Any], tokens: list[str], kinds: list[int]) -> Library:
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) < len(tokens):
        raise ModelFolderError("its tokenizer has not one score for every token; take another file of this model")
    scores = scores[: len(tokens)]
    if not all(isinstance(score, (int, float)) and math.isfinite(score) for score in scores):
        raise ModelFolderError("its tokenizer has a score that is no number; take another file of this model")
    pieces = Pieces(
        texts=tokens,
        scores=scores,
        unknown=min(_of(kinds, UNKNOWN), default=0),
        control={*_of(kinds, CONTROL, UNKNOWN)},
        bytes={*_of(kinds, BYTE)},
        unused={*_of(kinds, UNUSED, USER_DEFINED)},
    )
    prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    return library_from_pieces(pieces, "bpe", normalizer, prefix)


def _texts(fields: dict[str, Any], name: str) -> list[str]:
    texts = fields.get(f"tokenizer.ggml.{name}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ModelFolderError(f"its tokenizer has no list of {name}; take another file of this model")
    return texts


def tokenizer_to_gguf(tokenizer: Tokenizer, n_rows: int) -> dict[str, Any]:
    """The fields of the header for a byte-level BPE or a character tokenizer, and its end of text among them.

    Args:
        n_rows: of the model's embedding; rows behind the last token get texts that nothing becomes. One of them ends
            texts where the tokenizer has no token for that (see `needs_end`).

    Raises:
        ModelFolderError: it is of another kind, cuts text in a way that llama.cpp has no name for, or has more tokens
            than there are rows.
    """
    if tokenizer.vocab_size > n_rows:
        raise ModelFolderError(
            f"{tokenizer.vocab_size:,} tokens in the tokenizer, {n_rows:,} logits in the model; they do not match"
        )
    spec = json.loads(tokenizer.to_json())
    if tokenizer.kind == "characters":
        texts, merges, pre = *_characters(tokenizer), "gpt-2"
    elif tokenizer.kind in ("bpe", "gpt2", "bytes"):
        pre = _name_of_cut(spec)
        texts = dict(spec["model"]["vocab"].items())
        texts |= {token["content"]: token["id"] for token in spec["added_tokens"]}
        merges = [" ".join(pair) for pair in merge_pairs(spec["model"])]
    else:
        raise ModelFolderError(
            f"a {tokenizer.kind} tokenizer is not written to GGUF; byte-level BPE, bytes and characters are"
        )
    special = {token["id"]: CONTROL if token["special"] else USER_DEFINED for token in spec["added_tokens"]}
    tokens, kinds = [f"[PAD{number}]" for number in range(n_rows)], [UNUSED] * n_rows
    for text, number in texts.items():
        tokens[number], kinds[number] = text, special.get(number, NORMAL)
    end = tokenizer.end_of_text
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
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    for part in ("bos_token", "pad_token", "unk_token"):
        if (its := tokenizer.special_tokens.get(str(tokenizer.settings.get(part)))) is not None:
            fields[f"tokenizer.ggml.{_PARTS[part]}"] = its
    return {name: value for name, value in fields.items() if value is not None}


def needs_end(tokenizer: Tokenizer) -> bool:
    """Whether an end of text must be made up: llama.cpp takes token 11 where none is told, and stops at every comma
    or whatever stands there."""
    return tokenizer.end_of_text is None


def _characters(tokenizer: Tokenizer) -> tuple[dict[str, int], list[str]]:
    """The characters as byte-level tokens, and the merges that put together those of several bytes."""
    texts: dict[str, int] = {}
    merges: list[str] = []
    for number in range(tokenizer.vocab_size):
        spelled = "".join(BYTE_TO_CHARACTER[byte] for byte in tokenizer.token_bytes(number))
        texts[spelled] = number
        merges += [f"{spelled[:cut]} {spelled[cut]}" for cut in range(1, len(spelled))]
    return texts, list(dict.fromkeys(sorted(merges, key=len)))


def _name_of_cut(spec: dict[str, Any]) -> str:
    pattern, pre = byte_level_pattern(spec), spec.get("pre_tokenizer")
    if not spec["model"]["merges"]:
        return "gpt-2"  # nothing is merged, however it is cut
    for name, cuts in CUTS.items():
        if (pattern == cuts[0] and len(cuts) == 1) or pre == json.loads(_as_json(pre_tokenizer_of(cuts))):
            return name
    raise ModelFolderError("this tokenizer cuts text in a way that llama.cpp has no name for; it cannot be written")


def _as_json(pre_tokenizer: Any) -> str:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizer
    return json.dumps(json.loads(library.to_str())["pre_tokenizer"])
