"""Chat templates as well-known models have them, and small vocabularies with the special tokens that they need."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizer_texts import SPOKEN
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer
from glassformer.processors.tokenizers.sentencepiece import pieces_decoder


def published(name: str) -> str:
    """A template as its model has it."""
    return (Path(__file__).parent / "templates" / f"{name.replace(' ', '-')}.jinja").read_text(encoding="utf-8")


TEMPLATES = {
    # its special tokens, those that have a name, what ends a turn
    "smollm2": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>"}, ["<|im_end|>"]),
    "llama 3": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        ["<|end_of_text|>", "<|eot_id|>"],
    ),
    "llama 2": (["<unk>", "<s>", "</s>"], {"bos_token": "<s>", "eos_token": "</s>"}, ["</s>"]),
    "gemma 3": (
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        {"bos_token": "<bos>", "eos_token": "<eos>"},
        ["<eos>", "<end_of_turn>"],
    ),
    "phi 4": (  # its markers are put together from the role
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|/tool|>", "<|end|>"],
        {"eos_token": "<|endoftext|>"},
        ["<|endoftext|>", "<|end|>"],
    ),
    "qwen 3": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>"}, ["<|im_end|>"]),
}


def dressed(library: tokenizers.Tokenizer, name: str) -> Tokenizer:
    """A tokenizer with the template of that name; the library has its special tokens already."""
    _, named, _ = TEMPLATES[name]
    return Tokenizer(library, end_of_text=named["eos_token"], chat_template=published(name), settings=dict(named))


def byte_level(name: str) -> Tokenizer:
    """A small byte-level BPE; `<think>` and `</think>` are added tokens that are not special, as in Qwen 3."""
    specials = TEMPLATES[name][0]
    library = TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=400, specials=specials)._library
    if name == "qwen 3":
        library.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>", "<tool_call>")])
    return dressed(library, name)


def space_in_front(name: str, how: str) -> Tokenizer:
    """A vocabulary with `▁` for spaces that puts one in front: of every stretch between special tokens (`prepend`, the
    older Llama 2), or of the text alone (`first`, the newer)."""
    specials = TEMPLATES[name][0]
    library = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        special_tokens=["<unk>", *(s for s in specials if s != "<unk>"), *(f"<0x{byte:02X}>" for byte in range(256))],
    )
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    library.train_from_iterator([SPOKEN * 3], trainer)
    spec = json.loads(library.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    if how == "prepend":
        library.pre_tokenizer = None  # type: ignore[assignment]
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    library.decoder = pieces_decoder(prefix=True)
    return dressed(library, name)


def unigram(name: str) -> Tokenizer:
    """A Unigram vocabulary that holds its special tokens among the pieces that text is cut into."""
    specials = TEMPLATES[name][0]
    letters = sorted(set(SPOKEN.replace(" ", "▁") + "".join(specials)))
    pieces = [("<unk>", 0.0), *((s, -1.0) for s in specials if s != "<unk>"), *((c, -5.0) for c in letters)]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram([*pieces, ("▁the", -3.0), ("ing", -3.0)], unk_id=0))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    library.decoder = tokenizers.decoders.Metaspace(prepend_scheme="always")
    library.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ["<unk>", *specials]])
    return dressed(library, name)


def with_flags(name: str) -> Tokenizer:
    """A byte-level BPE whose special tokens remove white space beside them, as Phi 3's do, or are looked for only after
    the text was folded to lower case."""
    library = TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=400)._library
    library.normalizer = normalizers.Lowercase()
    flags = [{"rstrip": True}, {"lstrip": True}, {"normalized": True}]
    for i, text in enumerate(TEMPLATES[name][0]):
        library.add_special_tokens([AddedToken(text, special=True, **{"normalized": False, **flags[i % 3]})])
    return dressed(library, name)


VOCABULARIES = {
    **{name: byte_level(name) for name in TEMPLATES},
    "llama 2, a space before every stretch": space_in_front("llama 2", "prepend"),
    "llama 2, a space before the first": space_in_front("llama 2", "first"),
    "gemma 3, a space before the first": space_in_front("gemma 3", "first"),
    "llama 2, unigram": unigram("llama 2"),
    "smollm2, flags": with_flags("smollm2"),
    "phi 4, flags": with_flags("phi 4"),
}


def template_of(name: str) -> str:
    return name.split(",")[0]


def theirs(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same vocabulary and template in `transformers`."""
    library = tokenizers.Tokenizer.from_str(tokenizer._library.to_str())
    return PreTrainedTokenizerFast(
        tokenizer_object=library, chat_template=tokenizer.chat_template, **tokenizer.settings
    )
