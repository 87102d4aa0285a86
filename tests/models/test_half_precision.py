"""Every kind of model in bf16, trained (autocast over fp32 weights) and used (bf16 weights), on any machine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import GEMMA3, shaken, toy_config, toy_ids, toy_model

from glassformer.models import MODELS, EncoderConfig, EncoderDecoderConfig, build_model, make_config
from glassformer.models.building import kind_of

SHAPE: dict[str, Any] = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
TEXT, SIZES, ENDS = (
    {"vocab_size": 61, "block_size": 13},
    {"n_embd": 7, "n_hidden": 11},
    {"start_token": 1, "end_token": 2},
)
PAIR: dict[str, Any] = {**SHAPE, **ENDS}
SANDWICH = {"norm": "rmsnorm", "norm_place": "sandwich", "qk_norm": True}
CONFIGS = {
    "classic": toy_config(),
    "layer norms behind each layer": toy_config(norm_place="sandwich", bias=True),
    "modern": toy_config("modern"),
    "gemma": toy_config("modern", **GEMMA3),
    "rms norms behind each layer": toy_config("modern", **SANDWICH),
    "experts, sinks": toy_config("modern", n_expert=3, attention_sinks=True),
    "bert": EncoderConfig.make(**SHAPE, family="original", token_head="vocabulary", token_transform=True),
    "vit": EncoderConfig.make(
        **{**SHAPE, "vocab_size": 1, "block_size": 5}, stem="patches", image_size=8, patch_size=4, n_classes=7
    ),
    "frames": EncoderConfig.make(**{**SHAPE, "vocab_size": 1}, **SANDWICH, stem="frames", n_mels=7, n_classes=5),
    "sets": EncoderConfig.make(**SHAPE, stem="set", n_inputs=7, n_classes=1),
    "graphs": EncoderConfig.make(**SHAPE, stem="graph", patterns=["graph(1)"], n_classes=5),
    "pair": EncoderDecoderConfig.make(**PAIR, family="original"),
    "modern pair": EncoderDecoderConfig.make(**PAIR, **SANDWICH),
    "classifier": make_config("decoder_classifier", **SHAPE, family="modern", n_classes=5),
    "vectors": make_config("vector_decoder", **{**SHAPE, "vocab_size": 1}, family="modern", n_inputs=7),
    "trajectory": make_config(
        "trajectory_decoder", **{**SHAPE, "vocab_size": 1, "block_size": 12, "state_size": 5, "action_size": 3},
        max_timestep=7,
    ),
    "speech": make_config(
        "speech_decoder", **SHAPE, n_encoder_layer=1, text_block_size=13, n_bands=7, n_levels=5, frames_per_step=2,
        steps_per_character=0.7,
    ),
    "images and texts": make_config("dual_encoder", **SHAPE, image_size=8, patch_size=4, end_token=3),
    "n-gram": make_config("n-gram", **TEXT),
    "bigram": make_config("bigram", **TEXT),
    **{kind: make_config(kind, **TEXT, **SIZES) for kind in ("mlp", "rnn", "gru", "lstm", "lstm-attention")},
    "skip-gram": make_config("skip-gram", **TEXT, n_embd=7),
    **{kind: make_config(kind, **TEXT, **SIZES, **ENDS) for kind in ("seq2seq", "seq2seq-attention")},
}  # fmt: skip


def forward(name: str, model: torch.nn.Module) -> torch.Tensor:
    """What a model answers to three toy inputs."""
    if name == "vit":
        return model.sequence_logits(model(toy_ids(3, 3, 8, 8).to(model.dtype) / 61))
    if name == "images and texts":
        return model(toy_ids(3, 3, 8, 8).to(model.dtype) / 61, toy_ids(5, 7), torch.tensor([7, 2, 5, 3, 1]))
    if name == "frames":
        return model.sequence_logits(model(toy_ids(3, 7, 26).to(model.dtype) / 61))
    if name == "sets":
        ids, lengths = toy_ids(3, 13, 2), torch.tensor([13, 4, 7])
        return model.number(model(ids, lengths, numbers_BTI=toy_ids(3, 13, 7) / 61), lengths)
    if name == "graphs":
        steps = (torch.arange(13)[:, None] - torch.arange(13)).abs().expand(3, 13, 13)
        return model.sequence_logits(model(toy_ids(3, 13, 2), distances_BTT=steps))
    if name == "vectors":
        return model(toy_ids(3, 13, 7).to(model.dtype) / 61)
    if name == "trajectory":
        numbers = [toy_ids(3, *shape).to(model.dtype) / 61 for shape in ((4,), (4, 5), (4, 3))]
        return model(*numbers, toy_ids(3, 4) % 7)
    if name == "speech":
        return model(toy_ids(3, 13), torch.tensor([13, 4, 7]), toy_ids(3, 9, 14, vocab_size=5))[0]
    ids = toy_ids(3, 13)
    if kind_of(CONFIGS[name]) in ("encoder_decoder", "seq2seq", "seq2seq-attention"):
        return model(ids, toy_ids(3, 11, seed=1))
    out = model(ids)
    return model.token_logits(out) if hasattr(model, "token_logits") else out


def test_every_kind_is_here():
    assert {kind_of(config) for config in CONFIGS.values()} == MODELS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_torch_has_nothing_to_warn_of(name: str, torch_warnings):
    model = shaken(build_model(CONFIGS[name])).eval()
    model.dtype = torch.float32
    exact = forward(name, model).detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = forward(name, model)
        with torch.no_grad():
            forward(name, model)
    if y.requires_grad:
        y.float().sum().backward()
    assert (y - exact).abs().mean() < 0.05 * exact.abs().mean().clamp_min(1)
    model.bfloat16().dtype = torch.bfloat16
    with torch.no_grad():
        forward(name, model)
    assert torch_warnings() == []


def test_compiled_too(torch_warnings):
    model = toy_model("modern", **SANDWICH, n_layer=1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(model, backend="eager")(toy_ids(3, 13)).float().sum().backward()
    assert torch_warnings() == []
