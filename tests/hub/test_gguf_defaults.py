"""Headers that leave out what llama.cpp has a default for, and fields that would change the numbers: the default of
llama.cpp, or one line."""

from __future__ import annotations

from typing import Any

import pytest
from gguf_standins import vocabulary
from tokenizers import Regex, pre_tokenizers

from glassformer.errors import ModelFolderError
from glassformer.generation.generate import prompt_ids
from glassformer.hub.gguf.architectures import ARCHITECTURES
from glassformer.hub.gguf.tokenizer import tokenizer_from_gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "▁t", "he", "▁the"]
KINDS = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 7]
SPM = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": PIECES,
    "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(7)],
    "tokenizer.ggml.token_type": KINDS,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def without(fields: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    kept = {name: value for name, value in fields.items() if name.removeprefix("tokenizer.ggml.") not in names}
    return kept | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        (without(SPM), 1),
        (without(SPM, add_bos_token=True), 1),
        (without(SPM, add_bos_token=False), None),
        (without(SPM, "bos_token_id", "eos_token_id"), 1),
        (without(SPM, bos_token_id=9_999_999, eos_token_id=4_294_967_295), 1),  # cannot be: as if it was missing
        (without(SPM, bos_token_id=7), 7),
    ],
)
def test_a_sentencepiece_vocabulary_begins_with_its_beginning(fields: dict[str, Any], start: int | None):
    tokenizer = tokenizer_from_gguf(fields)
    assert tokenizer.starts_with == start and tokenizer.end_of_text == 2
    assert prompt_ids(tokenizer, "the") == [*([start] if start is not None else []), PIECES.index("▁the")]


def test_kinds_that_are_not_stated():
    """Bytes and special tokens of a SentencePiece vocabulary are known by their names and places."""
    shown, unstated = tokenizer_from_gguf(SPM), tokenizer_from_gguf(without(SPM, "token_type"))
    for text in ("the", "the é", "</s>"):
        assert unstated.encode(text) == shown.encode(text)
    assert unstated.special_tokens == shown.special_tokens


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED])
def test_an_end_of_another_kind_is_an_end_and_no_text(kind: int):
    kinds = [*KINDS]
    kinds[2] = kind
    tokenizer = tokenizer_from_gguf(without(SPM, token_type=kinds))
    assert tokenizer.end_of_text == tokenizer.special_tokens["</s>"] == 2
    assert 2 not in tokenizer.encode("the</s>")
    assert kinds[2] == kind, "the header is as it was"


def test_an_end_behind_every_text():
    assert tokenizer_from_gguf(without(SPM, add_eos_token=True)).frame == ([1], [2])


@pytest.mark.parametrize(
    ("pre", "shown", "begins"),
    [
        *((pre, None, True) for pre in ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2")),
        *((pre, None, False) for pre in ("gpt-2", "qwen2", "smollm", "dbrx", "smaug-bpe", "default")),
        ("llama-bpe", False, False),
        ("gpt-2", True, True),
    ],
)
def test_byte_level_vocabularies_begin_as_in_llama_cpp(pre: str, shown: bool | None, begins: bool):
    fields = vocabulary()
    n = len(fields["tokenizer.ggml.tokens"])
    fields |= {"tokenizer.ggml.pre": pre, "tokenizer.ggml.bos_token_id": n - 1, "tokenizer.ggml.eos_token_id": n - 2}
    if shown is not None:
        fields["tokenizer.ggml.add_bos_token"] = shown
    assert tokenizer_from_gguf(fields).starts_with == (n - 1 if begins else None)


def test_a_pre_tokenizer_that_is_not_stated_is_the_default_one():
    """Marks are cut off first, and digits in threes."""
    fields = {name: value for name, value in vocabulary().items() if name != "tokenizer.ggml.pre"}
    spec = tokenizer_from_gguf(fields)._spec()["pre_tokenizer"]["pretokenizers"]
    stated = tokenizer_from_gguf({**fields, "tokenizer.ggml.pre": "default"})
    assert stated._spec()["pre_tokenizer"]["pretokenizers"] == spec
    cut = [
        pre_tokenizers.Split(Regex(part["pattern"]["Regex"]), "isolated") if part["type"] == "Split" else
        pre_tokenizers.Digits(individual_digits=True) for part in spec[:-1]
    ]  # fmt: skip
    pieces = [piece for piece, _ in pre_tokenizers.Sequence(cut).pre_tokenize_str("it's (2024567) a-b")]
    assert pieces == ["it", "'", "s", " ", "(", "202", "456", "7", ")", " a", "-", "b"]


HEADER = {
    "block_count": 2, "context_length": 13, "embedding_length": 24, "feed_forward_length": 29,
    "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
SHAPES = {"token_embd.weight": (61, 24)}


def config_of(name: str, **more: Any) -> Any:
    architecture = ARCHITECTURES[name]
    fields = {f"{name}.{field}": value for field, value in {**HEADER, **more}.items()}
    return architecture.family.read_config(architecture.words(fields, SHAPES))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3"])
def test_numbers_that_are_not_stated(name: str):
    config = config_of(name)
    assert (config.rotary_base, config.n_kv_head, config.head_width) == (10_000.0, 4, 6)
    assert config.rotary_scaling is None
    for shown in ({"rope.scaling.factor": 4.0}, {"rope.scale_linear": 4.0}, {"rope.scaling.type": "linear",
                 "rope.scaling.factor": 4.0}):  # fmt: skip
        scaling = config_of(name, **shown).rotary_scaling
        assert scaling is not None and (scaling.rope_type, scaling.factor) == ("linear", 4.0)
    assert config_of(name, **{"rope.scaling.type": "none", "rope.scaling.factor": 4.0}).rotary_scaling is None


def test_what_gemma3_encodes_in_its_number_of_layers():
    assert config_of("gemma3").attention_scale is None
    largest = config_of("gemma3", block_count=62, **{"attention.key_length": 8, "attention.value_length": 8})
    assert largest.attention_scale == pytest.approx((24 / 4) ** -0.5)
    assert config_of("gemma3", final_logit_softcapping=30.0).logit_softcap == 30.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope.dimension_count", 4), ("attention.value_length", 5), ("expert_count", 8), ("attention.clamp_kqv", 8.0),
        ("attention.causal", False), ("logit_scale", 0.5),
    ],
)  # fmt: skip
def test_a_field_that_changes_the_numbers_is_refused(field: str, value: Any):
    with pytest.raises(ModelFolderError, match=rf"llama\.{field}.*another file"):
        config_of("llama", **{field: value})
