"""Models of `transformers` at toy size, one for each way in which a family can differ, and how to ask both the same.

Sizes are prime or all different; every parameter is random and counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from toys import shaken, toy_ids
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

V, PAD, START, END = 61, 3, 5, 7
LENGTHS = torch.tensor([11, 7, 1])
THERE = torch.arange(11) < LENGTHS[:, None]  # (B, T): what is no padding


@dataclass
class Case:
    """What `transformers` builds, and the logits (N, classes) that each side gives to the same question.

    made: names in the file of what is no parameter there and so has no gradient.
    written_as: another family that it may be written as.
    own_head: T5 1.1 has a head of its own, which transformers 5 gives it only when a file holds one.
    """

    model: Callable[..., nn.Module]
    config: Any
    ours: Callable[[Any], Tensor]
    theirs: Callable[[Any], Tensor]
    made: tuple[str, ...] = field(default=())
    own_head: bool = False
    written_as: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Their model with large random weights in every parameter, and in the bias of logits, which is none."""
        model = self.model(copy.deepcopy(self.config))
        if self.own_head:
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
            model.config.tie_word_embeddings = False
        frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
        shaken(model)
        with torch.no_grad():
            for name, tensor in frozen.items():
                model.get_parameter(name).copy_(tensor)
            for name, buffer in model.named_buffers():
                if name == "final_logits_bias":
                    buffer.normal_(generator=torch.Generator().manual_seed(1))
        return plainly(model)


def plainly(model: Any) -> Any:
    """In eval mode, and experts one by one: their kernel takes widths that are multiples of 4 alone."""
    if hasattr(model.config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")
    return model.eval()


# Questions


def continues(model: Any) -> Tensor:
    return model(toy_ids(3, 11)).flatten(0, 1)


def their_continues(model: Any) -> Tensor:
    return model(toy_ids(3, 11)).logits.flatten(0, 1)


def padded() -> Tensor:
    """(B, T) ids with padding behind."""
    return torch.where(THERE, toy_ids(3, 11), PAD)


def segments() -> Tensor:
    return toy_ids(3, 11, vocab_size=2, seed=1)


def tokens(model: Any) -> Tensor:
    return model.token_logits(model(padded(), LENGTHS, segments())[THERE])


def sequences(model: Any) -> Tensor:
    return model.sequence_logits(model(padded(), LENGTHS, segments()), LENGTHS)


def both(model: Any) -> Tensor:
    return torch.cat((tokens(model).flatten(), sequences(model).flatten()))[None]


def vectors(model: Any) -> Tensor:
    found = model(padded(), LENGTHS, segments())
    return torch.cat((found[THERE], model.pool(found, LENGTHS)))


def asked(model: Any) -> Any:
    return model(padded(), attention_mask=THERE.long(), token_type_ids=segments())


def their_both(model: Any) -> Tensor:
    answer = asked(model)
    return torch.cat((answer.prediction_logits[THERE].flatten(), answer.seq_relationship_logits.flatten()))[None]


def their_vectors(model: Any) -> Tensor:
    answer = asked(model)
    return torch.cat((answer.last_hidden_state[THERE], answer.pooler_output))


def target() -> Tensor:
    """(B, T) of another length than the source; without padding, whose row gets no gradient there."""
    ids = toy_ids(3, 5, seed=2)
    return torch.where(ids == PAD, START, ids)


def translates(model: Any) -> Tensor:
    return model(padded(), target(), LENGTHS).flatten(0, 1)


def their_translates(model: Any) -> Tensor:
    answer = model(input_ids=padded(), attention_mask=THERE.long(), decoder_input_ids=target())
    return answer.logits.flatten(0, 1)


def pixels(channels: int, size: int) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(0))


def frames() -> Tensor:
    return torch.randn(3, 7, 26, generator=torch.Generator().manual_seed(0))


# Configurations

SPECIAL = {"pad_token_id": PAD, "decoder_start_token_id": START, "eos_token_id": END}
GPT2 = {"vocab_size": V, "n_positions": 13, "n_embd": 15, "n_layer": 2, "n_head": 3, "n_inner": 23}
LLAMA = {
    "vocab_size": V,
    "max_position_embeddings": 13,
    "hidden_size": 42,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 29,
}
FULL_HEADS = {**{k: v for k, v in LLAMA.items() if k != "head_dim"}, "hidden_size": 60}  # heads that fill the width
WINDOWS = {"use_sliding_window": True, "sliding_window": 4}
NEOX = {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 23, "num_hidden_layers": 2}
NEOX |= {"vocab_size": V, "max_position_embeddings": 13}
NEO = {"vocab_size": V, "max_position_embeddings": 13, "hidden_size": 15, "num_heads": 3, "intermediate_size": 23}
QUARTER = {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.4}
PHI3 = {**FULL_HEADS, "pad_token_id": None}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.3, 1.9, 2.5, 3.1],
    "long_factor": [2.0, 3.0, 5.0, 7.0, 11.0],
}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 3}
GEMMA3 = {**LLAMA, "num_hidden_layers": 3, "sliding_window": 4, "pad_token_id": None}  # a row of padding learns nothing
ROTARY = {
    "full_attention": {"rope_type": "default", "rope_theta": 50.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
}
BERT = {
    "vocab_size": V,
    "max_position_embeddings": 13,
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 23,
    "pad_token_id": None,
    "layer_norm_eps": 1e-3,
}
T5 = {"vocab_size": V, "d_model": 14, "d_kv": 5, "d_ff": 23, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3}
DISTANCES = {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 9}
SEQ2SEQ = {
    "vocab_size": V,
    "d_model": 18,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 9,
    "encoder_ffn_dim": 23,
    "decoder_ffn_dim": 29,
}
VIT = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 2,
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 23,
    "num_labels": 7,
}


def _lm(model: Any, config: Any, *written_as: str) -> Case:
    return Case(model, config, continues, their_continues, written_as=written_as)


def _gemma3(layers: str, scaling: Mapping[str, Any] | None = None, **fields: Any) -> Case:
    """layers: L for a window, G for one that sees all."""
    types = [{"L": "sliding_attention", "G": "full_attention"}[kind] for kind in layers]
    rope = {**ROTARY, "full_attention": {**ROTARY["full_attention"], **(scaling or {})}}
    sizes = {**GEMMA3, "num_hidden_layers": len(layers), "layer_types": types, "rope_parameters": rope}
    return _lm(Gemma3ForCausalLM, Gemma3TextConfig(**{**sizes, **fields}))


def _gemma2(layers: str, **fields: Any) -> Case:
    types = [{"L": "sliding_attention", "G": "full_attention"}[kind] for kind in layers]
    sizes = {**GEMMA3, "num_hidden_layers": len(layers), "layer_types": types}
    return _lm(Gemma2ForCausalLM, Gemma2Config(**{**sizes, **fields}, attn_implementation="eager"))


def _marian(**fields: Any) -> Case:
    config = MarianConfig(**{**SEQ2SEQ, **SPECIAL, "max_position_embeddings": 13, **fields})
    return Case(MarianMTModel, config, translates, their_translates, ("final_logits_bias",))


def _bart(**fields: Any) -> Case:
    config = BartConfig(**{**SEQ2SEQ, **SPECIAL, "max_position_embeddings": 13, **fields})
    return Case(BartForConditionalGeneration, config, translates, their_translates, ("final_logits_bias",))


def _t5(own_head: bool = False, **fields: Any) -> Case:
    config = T5Config(**T5, **DISTANCES, **SPECIAL, **fields)
    return Case(T5ForConditionalGeneration, config, translates, their_translates, own_head=own_head)


def _bert(model: Any, ours: Any = tokens, theirs: Any = lambda m: asked(m).logits[THERE], **fields: Any) -> Case:
    return Case(model, BertConfig(**{**BERT, **fields}), ours, theirs)


def all_cases() -> Iterator[tuple[str, Case]]:
    yield "gpt2", _lm(GPT2LMHeadModel, GPT2Config(**GPT2))
    yield "gpt2, own head", _lm(GPT2LMHeadModel, GPT2Config(**GPT2, tie_word_embeddings=False))
    yield "llama", _lm(LlamaForCausalLM, LlamaConfig(**LLAMA))
    yield "llama, biases", _lm(LlamaForCausalLM, LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True))
    yield "llama, biases of attention", _lm(LlamaForCausalLM, LlamaConfig(**LLAMA, attention_bias=True))
    yield (
        "qwen3, biases and windows",
        _lm(Qwen3ForCausalLM, Qwen3Config(**LLAMA, **WINDOWS, max_window_layers=1, attention_bias=True)),
    )
    yield "qwen2", _lm(Qwen2ForCausalLM, Qwen2Config(**FULL_HEADS, rms_norm_eps=0.1))
    yield (
        "qwen2, last layers windowed",
        _lm(
            Qwen2ForCausalLM,
            Qwen2Config(
                **{**FULL_HEADS, **WINDOWS, "num_hidden_layers": 3}, max_window_layers=1, tie_word_embeddings=True
            ),
        ),
    )
    yield "mistral", _lm(MistralForCausalLM, MistralConfig(**LLAMA, sliding_window=4))
    yield (
        "mistral, no windows",
        _lm(MistralForCausalLM, MistralConfig(**LLAMA, sliding_window=None, hidden_act="gelu"), "llama"),
    )
    yield "gpt_neox", _lm(GPTNeoXForCausalLM, GPTNeoXConfig(**NEOX, rope_parameters=QUARTER))
    yield (
        "gpt_neox, one after the other",
        _lm(
            GPTNeoXForCausalLM,
            GPTNeoXConfig(
                **NEOX,
                rope_parameters={**QUARTER, "rope_type": "linear", "factor": 2.5},
                use_parallel_residual=False,
                attention_bias=False,
                tie_word_embeddings=True,
                hidden_act="gelu_new",
            ),
        ),
    )
    yield (
        "gpt_neo",
        _lm(
            GPTNeoForCausalLM,
            GPTNeoConfig(**NEO, num_layers=4, attention_types=[[["global", "local"], 2]], window_size=3),
        ),
    )
    yield (
        "gpt_neo, in no order, own head",
        _lm(
            GPTNeoForCausalLM,
            GPTNeoConfig(
                **NEO,
                num_layers=3,
                attention_types=[[["local"], 2], [["global"], 1]],
                window_size=4,
                tie_word_embeddings=False,
                activation_function="relu",
            ),
        ),
    )
    yield "phi3", _lm(Phi3ForCausalLM, Phi3Config(**PHI3, sliding_window=5), "mistral")
    yield (
        "phi3, longrope, in part",
        _lm(
            Phi3ForCausalLM,
            Phi3Config(
                **{**PHI3, "hidden_size": 72, "max_position_embeddings": 52},
                original_max_position_embeddings=13,
                rope_parameters={**LONGROPE, "partial_rotary_factor": 0.84},
                tie_word_embeddings=True,
            ),
        ),
    )
    yield "olmo2", _lm(Olmo2ForCausalLM, Olmo2Config(**LLAMA, pad_token_id=None))
    yield (
        "olmo2, biases, stretched",
        _lm(
            Olmo2ForCausalLM,
            Olmo2Config(
                **LLAMA,
                pad_token_id=None,
                attention_bias=True,
                tie_word_embeddings=True,
                rope_parameters={
                    "rope_type": "yarn",
                    "factor": 3.0,
                    "original_max_position_embeddings": 5,
                    "rope_theta": 50.0,
                },
            ),
        ),
    )
    layers = {"num_hidden_layers": 5, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    yield "smollm3", _lm(SmolLM3ForCausalLM, SmolLM3Config(**{**LLAMA, **layers}, no_rope_layer_interval=3))
    yield (
        "smollm3, windows, biases, own head",
        _lm(
            SmolLM3ForCausalLM,
            SmolLM3Config(
                **{**LLAMA, **layers, **WINDOWS},
                no_rope_layers=[1, 0, 0, 1, 1],
                attention_bias=True,
                mlp_bias=True,
                tie_word_embeddings=False,
            ),
        ),
    )
    yield "mixtral", _lm(MixtralForCausalLM, MixtralConfig(**LLAMA, **EXPERTS, sliding_window=4))
    qwen3_moe = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 11}
    yield "qwen3_moe", _lm(Qwen3MoeForCausalLM, Qwen3MoeConfig(**LLAMA, **qwen3_moe))
    yield (
        "qwen3_moe, shares of the active, windows, biases",
        _lm(
            Qwen3MoeForCausalLM,
            Qwen3MoeConfig(
                **LLAMA, **qwen3_moe, **WINDOWS, norm_topk_prob=True, attention_bias=True, tie_word_embeddings=True
            ),
        ),
    )
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 7, "truncate": False}
    yield (
        "gpt_oss",
        _lm(
            GptOssForCausalLM,
            GptOssConfig(
                **LLAMA, **EXPERTS, sliding_window=4, swiglu_limit=0.7, rope_parameters={**yarn, "rope_theta": 50.0}
            ),
        ),
    )
    yield (
        "gpt_oss, no biases of attention",
        _lm(GptOssForCausalLM, GptOssConfig(**LLAMA, **EXPERTS, sliding_window=3, attention_bias=False)),
    )
    yield "gemma2", _gemma2("LGL", query_pre_attn_scalar=7, final_logit_softcapping=3.0, attn_logit_softcapping=2.0)
    yield (
        "gemma2, own head, uncapped",
        _gemma2("GL", tie_word_embeddings=False, final_logit_softcapping=None, attn_logit_softcapping=None),
    )
    yield "qwen3", _lm(Qwen3ForCausalLM, Qwen3Config(**LLAMA, tie_word_embeddings=True))
    yield "gemma3", _gemma3("LLG", query_pre_attn_scalar=7)
    yield "gemma3, own head, capped logits", _gemma3("LG", tie_word_embeddings=False, final_logit_softcapping=3.0)
    yield "gemma3, in no order, relu", _gemma3("GLLGL", hidden_activation="relu", rms_norm_eps=0.1)
    yield "gemma3, windows alone", _gemma3("LL", sliding_window=3)
    yield "gemma3, no windows", _gemma3("GGG")
    yield "gemma3, one base", _gemma3("LG", rope_parameters=dict.fromkeys(ROTARY, ROTARY["full_attention"]))
    yield "gemma3, stretched", _gemma3("LLG", {"rope_type": "linear", "factor": 2.5}, head_dim=22)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 5, "beta_fast": 3.0}
    yield "gemma3, yarn", _gemma3("LGL", yarn)
    yield "bert, masked tokens", _bert(BertForMaskedLM)
    yield "bert, pre-training", _bert(BertForPreTraining, both, their_both)
    yield "bert, classes", _bert(BertForSequenceClassification, sequences, lambda m: asked(m).logits, num_labels=5)
    yield "bert, classes of tokens", _bert(BertForTokenClassification, num_labels=5, hidden_act="relu")
    yield "bert, vectors", _bert(BertModel, vectors, their_vectors, type_vocab_size=3)
    yield "t5", _t5()
    yield "t5 1.1", _t5(True, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    yield "t5, gated with silu", _t5(feed_forward_proj="gated-silu")
    yield "marian", _marian(scale_embedding=True, activation_function="swish")
    yield "marian, relu, unscaled", _marian(activation_function="relu")
    yield "marian, two vocabularies", _marian(decoder_vocab_size=67, share_encoder_decoder_embeddings=False)
    yield "bart", _bart()
    yield "bart, scaled", _bart(scale_embedding=True, activation_function="gelu_new")
    yield (
        "vit",
        Case(
            ViTForImageClassification,
            ViTConfig(**VIT),
            lambda m: m.sequence_logits(m(pixels(2, 8))),
            lambda m: m(pixels(2, 8)).logits,
        ),
    )
    yield (
        "whisper",
        Case(
            WhisperForConditionalGeneration,
            WhisperConfig(
                **{**SEQ2SEQ, **SPECIAL, "bos_token_id": None},
                num_mel_bins=7,
                max_source_positions=13,
                max_target_positions=11,
                begin_suppress_tokens=None,
            ),
            lambda m: m(frames(), target()).flatten(0, 1),
            lambda m: m(input_features=frames(), decoder_input_ids=target()).logits.flatten(0, 1),
            ("model.encoder.embed_positions.weight",),
        ),
    )


CASES = dict(all_cases())
