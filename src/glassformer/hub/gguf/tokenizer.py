"""Tokenizers out of the header of a GGUF file; `tokenizer_writing` is the way back.

tokenizer.ggml.model         gpt2: byte-level BPE          llama: SentencePiece's BPE, by scores
tokenizer.ggml.pre           how the text is cut before it is merged, by a name that llama.cpp knows
tokenizer.ggml.tokens        the text of every token, with its kind (token_type) and, of pieces, its score
tokenizer.ggml.merges        the merges of a byte-level BPE
tokenizer.chat_template      the Jinja template of a chat model

Where a key is missing, llama.cpp's default holds (`llama_vocab::impl::load`): see `_number` and `_begins`.
"""

from __future__ import annotations

import math
from typing import Any

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.alphabet import is_byte_token, unspell
from glassformer.processors.tokenizers.builders import character_library
from glassformer.processors.tokenizers.files import library_errors
from glassformer.processors.tokenizers.gpt2 import byte_level_bpe
from glassformer.processors.tokenizers.kinds import BPE_PATTERN, GPT2_PATTERN
from glassformer.processors.tokenizers.sentencepiece import SPACE, Pieces, library_from_pieces

ANOTHER = "take another file of this model"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3_PATTERN = BPE_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# The name of a way to cut: the expressions that cut one after the other. Names that cut alike share them.
CUTS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2_PATTERN,),
    "qwen2": (BPE_PATTERN,),
    "llama-bpe": (_LLAMA3_PATTERN,),
    "smollm": (r"\p{N}", GPT2_PATTERN),
    "default": (
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        r"[0-9][0-9][0-9]",
    ),
}
_OTHER_NAMES = {
    **dict.fromkeys(("phi-2", "jina-es", "jina-de", "mellum", "modern-bert", "olmo", "mpt", "jais"), "gpt-2"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"), "qwen2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone"), "smollm"),
}  # fmt: skip
# The names that keep a word whole if it is a token, despite its merges, and put the beginning before a text.
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2")
# A word for a token's part in tokenizer_config.json: the field with its number.
PARTS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# The ids of these in the vocabulary of `llama`, where the header does not name them.
_SPM_IDS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}


def tokenizer_from_gguf(fields: dict[str, Any]) -> Tokenizer:
    """The tokenizer that the header of a file describes. Raises `ModelFolderError` for one that is incomplete,
    contradicts itself or is of a kind that is not read."""
    tokens, kinds = _tokens(fields)
    model = fields.get("tokenizer.ggml.model")
    readers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if not isinstance(model, str) or model not in readers:
        raise ModelFolderError(f"its tokenizer is of the kind {model!r}; {did_you_mean(str(model), readers)}")
    with library_errors("its tokenizer cannot be put together"):
        named = {part: n for part in PARTS if (n := _number(fields, part, len(tokens))) is not None}
        # an end or a beginning is never text, despite its type (NORMAL in many files)
        for part in ("bos_token", "eos_token"):
            if part in named and kinds[named[part]] in (NORMAL, USER_DEFINED):
                kinds[named[part]] = CONTROL
        library = readers[model](fields, tokens, kinds)
        library.add_tokens([AddedToken(tokens[i], normalized=False) for i in _of(kinds, USER_DEFINED)])
    if moved := next(
        (tokens[i] for i in _of(kinds, CONTROL, USER_DEFINED) if library.token_to_id(tokens[i]) != i), None
    ):
        raise ModelFolderError(f"its tokenizer has another id for {moved[:40]!r} than the header; take another file")
    settings: dict[str, Any] = {"split_special_tokens": True}
    settings |= {part: tokens[number] for part, number in named.items() if kinds[number] != NORMAL}
    start = settings.get("bos_token") if _begins(fields) else None
    end = settings.get("eos_token") if fields.get("tokenizer.ggml.add_eos_token") is True else None
    if around := {token: library.token_to_id(token) for token in (start, end) if token is not None}:
        single = [token for token in (start, "$A", end) if token is not None]
        library.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(around.items()))
    template = fields.get("tokenizer.chat_template")
    return Tokenizer(
        library,
        end_of_text=settings.get("eos_token"),
        chat_template=template if isinstance(template, str) else None,
        settings=settings,
    )


def _number(fields: dict[str, Any], part: str, n_tokens: int) -> int | None:
    """The id of a token by its part; one that cannot be counts as missing, as in llama.cpp."""
    number = fields.get(f"tokenizer.ggml.{PARTS[part]}")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < n_tokens:
        number = _SPM_IDS.get(part) if fields.get("tokenizer.ggml.model") == "llama" else None
    return number if number is not None and number < n_tokens else None


def _begins(fields: dict[str, Any]) -> bool:
    """Whether the beginning stands before every text."""
    stated = fields.get("tokenizer.ggml.add_bos_token")
    if isinstance(stated, bool):
        return stated
    return fields.get("tokenizer.ggml.model") == "llama" or fields.get("tokenizer.ggml.pre") in _WHOLE_WORDS


def _tokens(fields: dict[str, Any]) -> tuple[list[str], list[int]]:
    """The text and the kind of every token, without the rows at the end that belong to no token."""
    tokens = _texts(fields, "tokens")
    kinds = fields.get("tokenizer.ggml.token_type") or _usual_kinds(fields, tokens)
    kinds = list(kinds) if isinstance(kinds, list) else kinds
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        what = "a token twice" if len(set(tokens)) != len(tokens) else "not one kind for every token"
        raise ModelFolderError(f"its tokenizer has {what}; {ANOTHER}")
    n = max((i for i, kind in enumerate(kinds) if kind != UNUSED), default=-1) + 1
    if not n:
        raise ModelFolderError(f"its tokenizer has no tokens; {ANOTHER}")
    return tokens[:n], kinds[:n]


def _usual_kinds(fields: dict[str, Any], tokens: list[str]) -> list[int]:
    """The kinds of a vocabulary that does not state them: text, and of `llama` bytes and special tokens too."""
    if fields.get("tokenizer.ggml.model") != "llama":
        return [NORMAL] * len(tokens)
    usual = [BYTE if is_byte_token(token) else NORMAL for token in tokens]
    for part, number in _SPM_IDS.items():
        if number < len(usual):
            usual[number] = UNKNOWN if part == "unk_token" else CONTROL
    return usual


def _of(kinds: list[int], *wanted: int) -> list[int]:
    """The numbers of the tokens of these kinds."""
    return [i for i, kind in enumerate(kinds) if kind in wanted]


def _byte_level(fields: dict[str, Any], tokens: list[str], kinds: list[int]) -> Library:
    specials = [tokens[i] for i in _of(kinds, CONTROL)]
    if (characters := _as_characters(tokens, kinds)) is not None:
        library = character_library(characters)
        library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        return library
    pre = fields.get("tokenizer.ggml.pre", "default")
    name = _OTHER_NAMES.get(pre, pre) if isinstance(pre, str) else pre
    if name not in CUTS:
        known = did_you_mean(str(pre), [*CUTS, *_OTHER_NAMES])
        raise ModelFolderError(f"its tokenizer cuts text in an unknown way, {pre!r}; {known}")
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
    scores = scores[: len(tokens)] if isinstance(scores, list) else []
    if len(scores) < len(tokens) or not all(isinstance(s, (int, float)) and math.isfinite(s) for s in scores):
        raise ModelFolderError(f"its tokenizer has not one number as a score for every token; {ANOTHER}")
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
        raise ModelFolderError(f"its tokenizer has no list of {name}; {ANOTHER}")
    return texts
