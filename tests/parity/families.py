"""Models of `transformers` at toy size, one for each way in which a family can differ, and how to ask both the same.

Sizes are prime or all different; every parameter is random and counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from toys import shaken, toy_ids

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


def unpadded_inside() -> Tensor:
    """The same, with no token of padding in the text: transformers takes the last that is none."""
    ids = padded()
    return torch.where(THERE & (ids == PAD), START, ids)


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
TEXT = {"vocab_size": V, "max_position_embeddings": 13}
STACK = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 23}
GPT2 = {"vocab_size": V, "n_positions": 13, "n_embd": 15, "n_layer": 2, "n_head": 3, "n_inner": 23}
FULL_HEADS = {**TEXT, **STACK, "hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 2}
FULL_HEADS |= {"intermediate_size": 29}  # heads that fill the width
LLAMA = {**FULL_HEADS, "hidden_size": 42, "head_dim": 10}
UNPADDED = {**LLAMA, "pad_token_id": None}  # a row of padding learns nothing
WINDOWS = {"use_sliding_window": True, "sliding_window": 4}
NEOX = {**TEXT, **STACK, "hidden_size": 30}
NEO = {**TEXT, "hidden_size": 15, "num_heads": 3, "intermediate_size": 23}
QUARTER = {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.4}
PHI3 = {**FULL_HEADS, "pad_token_id": None}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.3, 1.9, 2.5, 3.1],
    "long_factor": [2.0, 3.0, 5.0, 7.0, 11.0],
}
YARN = {"rope_type": "yarn", "original_max_position_embeddings": 5}
SMOLLM3 = {**UNPADDED, "num_hidden_layers": 5, "bos_token_id": None, "eos_token_id": None}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 3}
QWEN3_MOE = {**LLAMA, "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 11}
GEMMA3 = {**UNPADDED, "num_hidden_layers": 3, "sliding_window": 4}
ROTARY = {
    "full_attention": {"rope_type": "default", "rope_theta": 50.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
}
BERT = {**TEXT, **STACK, "hidden_size": 15, "pad_token_id": None, "layer_norm_eps": 1e-3}
T5 = {"vocab_size": V, "d_model": 14, "d_kv": 5, "d_ff": 23, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3}
DISTANCES = {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 9}
SEQ2SEQ = {"vocab_size": V, "d_model": 18, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3}
SEQ2SEQ |= {"decoder_attention_heads": 9, "encoder_ffn_dim": 23, "decoder_ffn_dim": 29}
VIT = {**STACK, "image_size": 8, "patch_size": 4, "num_channels": 2, "hidden_size": 15, "num_labels": 7}


def _lm(name: str, *written_as: str, **fields: Any) -> Case:
    config = getattr(transformers, f"{name}TextConfig", None) or getattr(transformers, f"{name}Config")
    model = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}LMHeadModel")
    return Case(model, config(**fields), continues, their_continues, written_as=written_as)


def _classes(name: str, **fields: Any) -> Case:
    """A decoder with a head over classes; one class is a reward."""
    return Case(
        getattr(transformers, f"{name}ForSequenceClassification"),
        getattr(transformers, f"{name}Config")(**{**fields, "pad_token_id": PAD}),
        lambda model: model.sequence_logits(model(unpadded_inside(), LENGTHS), LENGTHS).flatten()[None],
        lambda model: model(unpadded_inside(), attention_mask=THERE.long()).logits.flatten()[None],
    )


def _gemma(name: str, layers: str, **fields: Any) -> Case:
    """layers: L for a window, G for one that sees all."""
    types = [{"L": "sliding_attention", "G": "full_attention"}[kind] for kind in layers]
    return _lm(name, **{**GEMMA3, "num_hidden_layers": len(layers), "layer_types": types, **fields})


def _gemma2(layers: str, **fields: Any) -> Case:
    return _gemma("Gemma2", layers, attn_implementation="eager", **fields)


def _gemma3(layers: str, scaling: Mapping[str, Any] | None = None, **fields: Any) -> Case:
    rope = {**ROTARY, "full_attention": {**ROTARY["full_attention"], **(scaling or {})}}
    return _gemma("Gemma3", layers, **{"rope_parameters": rope, **fields})


def _seq2seq(model: Any, config: Any, **options: Any) -> Case:
    return Case(model, config, translates, their_translates, **options)


def _marian(**fields: Any) -> Case:
    config = transformers.MarianConfig(**{**SEQ2SEQ, **SPECIAL, "max_position_embeddings": 13, **fields})
    return _seq2seq(transformers.MarianMTModel, config, made=("final_logits_bias",))


def _bart(**fields: Any) -> Case:
    config = transformers.BartConfig(**{**SEQ2SEQ, **SPECIAL, "max_position_embeddings": 13, **fields})
    return _seq2seq(transformers.BartForConditionalGeneration, config, made=("final_logits_bias",))


def _t5(own_head: bool = False, **fields: Any) -> Case:
    config = transformers.T5Config(**T5, **DISTANCES, **SPECIAL, **fields)
    return _seq2seq(transformers.T5ForConditionalGeneration, config, own_head=own_head)


def _bert(model: str, ours: Any = tokens, theirs: Any = lambda m: asked(m).logits[THERE], **fields: Any) -> Case:
    return Case(getattr(transformers, model), transformers.BertConfig(**{**BERT, **fields}), ours, theirs)


def _vit(name: str = "ViTForImageClassification") -> Case:
    return Case(
        getattr(transformers, name),
        getattr(transformers, f"{name.partition('For')[0]}Config")(**VIT),
        lambda model: model.sequence_logits(model(pixels(2, 8))),
        lambda model: model(pixels(2, 8)).logits,
    )


def captions() -> Tensor:
    """Texts of 9, 5 and 3 tokens with their end, and others behind it."""
    ids = toy_ids(3, 11)
    ids = torch.where(ids == END, END + 1, ids)
    ids[torch.arange(3), torch.tensor([8, 4, 2])] = END
    ids[1, 9] = END  # the first one counts
    return ids


def _clip(**fields: Any) -> Case:
    text = {**STACK, "vocab_size": V, "hidden_size": 18, "max_position_embeddings": 13, "eos_token_id": END}
    image = {**STACK, "image_size": 8, "patch_size": 4, "num_channels": 2, "hidden_size": 15, "num_hidden_layers": 3}
    return Case(
        transformers.CLIPModel,
        transformers.CLIPConfig(text_config={**text, **fields}, vision_config={**image, **fields}, projection_dim=7),
        lambda model: model(pixels(2, 8), captions()),
        lambda model: model(captions(), pixels(2, 8)).logits_per_image,
    )


def steps() -> tuple[Tensor, ...]:
    """Returns, states, actions and timesteps of two episodes of 4 steps."""
    return toy_ids(2, 4) / 31, toy_ids(2, 4, 5) / 31, toy_ids(2, 4, 3) / 31, toy_ids(2, 4, vocab_size=9)


def their_steps() -> dict[str, Tensor]:
    returns, states, actions, timesteps = steps()
    return {"returns_to_go": returns[..., None], "states": states, "actions": actions, "timesteps": timesteps}


def _decision(**fields: Any) -> Case:
    sizes = {"state_dim": 5, "act_dim": 3, "max_ep_len": 9, "n_positions": 12, "n_head": 3, "n_layer": 2}
    heads = (f"predict_{head}.{part}" for head in ("state", "return") for part in ("weight", "bias"))
    return Case(
        transformers.DecisionTransformerModel,
        transformers.DecisionTransformerConfig(hidden_size=18, **sizes, **fields),
        lambda model: model(*steps()).flatten(0, 1),
        lambda model: model(**their_steps()).action_preds.flatten(0, 1),
        ("encoder.wte.weight", "encoder.wpe.weight", *heads),
    )


def _whisper() -> Case:
    sizes = {"num_mel_bins": 7, "max_source_positions": 13, "max_target_positions": 11}
    own = {"bos_token_id": None, "begin_suppress_tokens": None}
    return Case(
        transformers.WhisperForConditionalGeneration,
        transformers.WhisperConfig(**{**SEQ2SEQ, **SPECIAL, **sizes, **own}),
        lambda model: model(frames(), target()).flatten(0, 1),
        lambda model: model(input_features=frames(), decoder_input_ids=target()).logits.flatten(0, 1),
        ("model.encoder.embed_positions.weight",),
    )


TIED, OWN_HEAD, BIASED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, {"attention_bias": True}

CASES = {
    "gpt2": _lm("GPT2", **GPT2),
    "gpt2, own head": _lm("GPT2", **GPT2, **OWN_HEAD),
    "llama": _lm("Llama", **LLAMA),
    "llama, a reward": _classes("Llama", **LLAMA, num_labels=1),
    "llama, biases": _lm("Llama", **LLAMA, **BIASED, mlp_bias=True),
    "llama, biases of attention": _lm("Llama", **LLAMA, **BIASED),
    "qwen3, biases and windows": _lm("Qwen3", **LLAMA, **WINDOWS, **BIASED, max_window_layers=1),
    "qwen2": _lm("Qwen2", **FULL_HEADS, rms_norm_eps=0.1),
    "qwen2, classes": _classes("Qwen2", **FULL_HEADS, **TIED, num_labels=5),
    "qwen2, last layers windowed": _lm(
        "Qwen2", **{**FULL_HEADS, **WINDOWS, "num_hidden_layers": 3}, **TIED, max_window_layers=1
    ),
    "mistral": _lm("Mistral", **LLAMA, sliding_window=4),
    "mistral, a reward": _classes("Mistral", **LLAMA, sliding_window=4, num_labels=1),
    "mistral, no windows": _lm("Mistral", "llama", **LLAMA, sliding_window=None, hidden_act="gelu"),
    "gpt_neox": _lm("GPTNeoX", **NEOX, rope_parameters=QUARTER),
    "gpt_neox, one after the other": _lm(
        "GPTNeoX",
        **{**NEOX, **TIED, "attention_bias": False, "use_parallel_residual": False, "hidden_act": "gelu_new"},
        rope_parameters={**QUARTER, "rope_type": "linear", "factor": 2.5},
    ),
    "gpt_neo": _lm("GPTNeo", **NEO, num_layers=4, attention_types=[[["global", "local"], 2]], window_size=3),
    "gpt_neo, in no order, own head": _lm(
        "GPTNeo",
        **{**NEO, **OWN_HEAD, "num_layers": 3, "window_size": 4, "activation_function": "relu"},
        attention_types=[[["local"], 2], [["global"], 1]],
    ),
    "phi3": _lm("Phi3", "mistral", **PHI3, sliding_window=5),
    "phi3, longrope, in part": _lm(
        "Phi3",
        **{**PHI3, **TIED, "hidden_size": 72, "max_position_embeddings": 52},
        original_max_position_embeddings=13,
        rope_parameters={**LONGROPE, "partial_rotary_factor": 0.84},
    ),
    "olmo2": _lm("Olmo2", **UNPADDED),
    "olmo2, biases, stretched": _lm(
        "Olmo2", **UNPADDED, **BIASED, **TIED, rope_parameters={**YARN, "factor": 3.0, "rope_theta": 50.0}
    ),
    "smollm3": _lm("SmolLM3", **SMOLLM3, no_rope_layer_interval=3),
    "smollm3, windows, biases, own head": _lm(
        "SmolLM3", **SMOLLM3, **WINDOWS, **BIASED, **OWN_HEAD, mlp_bias=True, no_rope_layers=[1, 0, 0, 1, 1]
    ),
    "mixtral": _lm("Mixtral", **LLAMA, **EXPERTS, sliding_window=4),
    "qwen3_moe": _lm("Qwen3Moe", **QWEN3_MOE),
    "qwen3_moe, shares of the active, windows, biases": _lm(
        "Qwen3Moe", **QWEN3_MOE, **WINDOWS, **BIASED, **TIED, norm_topk_prob=True
    ),
    "qwen3, a reward": _classes("Qwen3", **LLAMA, num_labels=1),
    "gpt_oss": _lm(
        "GptOss",
        **{**LLAMA, **EXPERTS, "sliding_window": 4, "swiglu_limit": 0.7},
        rope_parameters={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 7, "truncate": False,
            "rope_theta": 50.0,
        },
    ),
    "gpt_oss, no biases of attention": _lm("GptOss", **LLAMA, **EXPERTS, sliding_window=3, attention_bias=False),
    "gemma2": _gemma2("LGL", query_pre_attn_scalar=7, final_logit_softcapping=3.0, attn_logit_softcapping=2.0),
    "gemma2, own head, uncapped": _gemma2(
        "GL", **OWN_HEAD, final_logit_softcapping=None, attn_logit_softcapping=None
    ),
    "qwen3": _lm("Qwen3", **LLAMA, **TIED),
    "gemma3": _gemma3("LLG", query_pre_attn_scalar=7),
    "gemma3, own head, capped logits": _gemma3("LG", **OWN_HEAD, final_logit_softcapping=3.0),
    "gemma3, in no order, relu": _gemma3("GLLGL", hidden_activation="relu", rms_norm_eps=0.1),
    "gemma3, windows alone": _gemma3("LL", sliding_window=3),
    "gemma3, no windows": _gemma3("GGG"),
    "gemma3, one base": _gemma3("LG", rope_parameters=dict.fromkeys(ROTARY, ROTARY["full_attention"])),
    "gemma3, stretched": _gemma3("LLG", {"rope_type": "linear", "factor": 2.5}, head_dim=22),
    "gemma3, yarn": _gemma3("LGL", {**YARN, "factor": 4.0, "beta_fast": 3.0}),
    "bert, masked tokens": _bert("BertForMaskedLM"),
    "bert, pre-training": _bert("BertForPreTraining", both, their_both),
    "bert, classes": _bert("BertForSequenceClassification", sequences, lambda m: asked(m).logits, num_labels=5),
    "bert, classes of tokens": _bert("BertForTokenClassification", num_labels=5, hidden_act="relu"),
    "bert, vectors": _bert("BertModel", vectors, their_vectors, type_vocab_size=3),
    "t5": _t5(),
    "t5 1.1": _t5(True, feed_forward_proj="gated-gelu", **OWN_HEAD),
    "t5, gated with silu": _t5(feed_forward_proj="gated-silu"),
    "marian": _marian(scale_embedding=True, activation_function="swish"),
    "marian, relu, unscaled": _marian(activation_function="relu"),
    "marian, two vocabularies": _marian(decoder_vocab_size=67, share_encoder_decoder_embeddings=False),
    "bart": _bart(),
    "bart, scaled": _bart(scale_embedding=True, activation_function="gelu_new"),
    "vit": _vit(),
    "deit": _vit("DeiTForImageClassification"),
    "deit, two heads": _vit("DeiTForImageClassificationWithTeacher"),
    "clip": _clip(),
    "clip, gelu": _clip(hidden_act="gelu", layer_norm_eps=0.1),
    "whisper": _whisper(),
    "decision_transformer": _decision(),
    "decision_transformer, no tanh": _decision(action_tanh=False, n_inner=23, activation_function="gelu_new"),
}  # fmt: skip
