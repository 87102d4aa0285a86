"""Every family against `transformers`, at toy size with random weights, offline.

An independent implementation reads the same files and answers the same question, so a swapped axis, a transposed or
exchanged matrix, a forgotten bias or a norm in another place cannot pass: logits agree to 1e-4, gradients of a
cross-entropy loss with respect to every parameter to 1e-3, and files go there and back without a changed bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from families import CASES, END, LENGTHS, PAD, START, THERE, padded, plainly
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import GEMMA3, shaken, toy_config

from glassformer.generation import beam_search
from glassformer.hub import FAMILIES, load_model, save
from glassformer.models import EncoderConfig, EncoderDecoderConfig, ModelConfig, build_model, make_config


def loss(logits: Tensor) -> Tensor:
    """Cross-entropy against labels that differ from row to row."""
    labels = torch.arange(len(logits)) * 5 % logits.shape[1]
    return F.cross_entropy(logits, labels)


def their_gradients(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """By the names that their files have, which are not always those in memory: saved in place of the weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_are_the_same(name: str, tmp_path: Path):
    case = CASES[name]
    theirs = case.build()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")

    logits, expected = case.ours(ours), case.theirs(theirs)
    assert expected.std() > 0.2  # something is at stake
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    loss(logits).backward()
    loss(expected).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    found = FAMILIES[theirs.config.model_type].write_tensors(gradients, ours.config)
    wanted = their_gradients(theirs, tmp_path / "gradients")
    for made in case.made:
        del found[made], wanted[made]
    assert found.keys() == wanted.keys()
    noise = 1e-6 * max(float(gradient.abs().max()) for gradient in wanted.values())
    for key, gradient in wanted.items():
        size = float(gradient.abs().max())
        off = float((found[key] - gradient).abs().max())
        assert off <= 1e-3 * size + noise, f"{key}: off by {off:.2g} of {size:.2g}"
        assert size > noise or key.endswith(("key.bias", "k_proj.bias"))  # a softmax does not see those


@pytest.mark.parametrize("name", CASES)
def test_files_go_there_and_back(name: str, tmp_path: Path):
    """From theirs to ours to theirs: the same file to the last byte, and transformers misses nothing in it."""
    case = CASES[name]
    theirs = case.build()
    if name.startswith("bart"):  # two rows that nothing reads, and that ours has not
        with torch.no_grad():
            for stack in (theirs.model.encoder, theirs.model.decoder):
                stack.embed_positions.weight[:2] = 0
    if name.startswith("decision"):  # what does not act, and positions that all tokens share
        with torch.no_grad():
            for made in case.made:
                theirs.get_parameter(made).zero_()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    save(tmp_path / "ours", ours)
    kind = type(theirs)
    given = json.loads((tmp_path / "ours" / "config.json").read_text())
    if given["model_type"] in case.written_as:  # it is no more than a simpler family is
        kind = getattr(transformers, given["architectures"][0])
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        torch.testing.assert_close(case.theirs(plainly(again)), case.theirs(theirs), rtol=1e-5, atol=1e-5)
    assert load_model(tmp_path / "ours").config == ours.config
    if kind is not type(theirs):
        return
    files = [tmp_path / side / "model.safetensors" for side in ("theirs", "ours")]
    if name != "whisper":
        assert files[0].read_bytes() == files[1].read_bytes()
        return
    there, here = (load_file(file) for file in files)
    (waves,) = case.made  # sines and cosines of an fp32 angle there, of a float64 angle here
    torch.testing.assert_close(there.pop(waves), here.pop(waves), rtol=0, atol=1e-6)
    assert all(torch.equal(tensor, here[key]) for key, tensor in there.items())


# Ours first: what a recipe of this house trains, and how transformers calls it

SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
POST_NORM = {"family": "original", "positions": "learned", "embedding_norm": True, "embedding_scale": 1.0}
BERT = {**SHAPE, **POST_NORM, "token_head": "vocabulary", "token_transform": True}
DISTANCES = {"positions": "relative", "relative_buckets": 6, "relative_max_distance": 9, "attention_scale": 1.0}
T5 = {**SHAPE, **DISTANCES, "family": "modern", "qk_norm": False, "head_width": 10, "activation": "gelu_new"}
TOKENS = {"start_token": START, "end_token": END, "pad_token": PAD}


def seq2seq(**fields: Any) -> EncoderDecoderConfig:
    return EncoderDecoderConfig.make(**{**SHAPE, **TOKENS, **fields})


LLAMA = {"qk_norm": False}
# Every way in which a field can change the tensors or the numbers, and the family that must hold it.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("classic", {}),
    "gpt2, no biases": ("classic", {"bias": False}),
    "gpt2, own head": ("classic", {"tied_head": False}),
    "gpt2, no biases, own head": ("classic", {"bias": False, "tied_head": False}),
    "gpt2, exact gelu": ("classic", {"activation": "gelu"}),
    "gpt2, relu, large eps": ("classic", {"activation": "relu", "norm_eps": 0.1}),
    "gpt2, silu": ("classic", {"activation": "silu"}),
    "qwen3": ("modern", {}),
    "qwen3, own head": ("modern", {"tied_head": False}),
    "qwen3, one key-value head": ("modern", {"n_kv_head": 1}),
    "qwen3, no groups, derived width": ("modern", {"n_kv_head": 6, "n_head": 6, "head_width": 14, "n_embd": 84}),
    "qwen3, another base": ("modern", {"rotary_base": 1_000_000.0, "norm_eps": 0.1}),
    "qwen3, relu2": ("modern", {"activation": "relu2"}),
    "llama": ("modern", LLAMA),
    "llama, own head": ("modern", {**LLAMA, "tied_head": False}),
    "llama, another base and gelu": ("modern", {**LLAMA, "rotary_base": 500.0, "activation": "gelu_new"}),
    "gemma3_text": ("modern", GEMMA3),
    "gemma3_text, own head": ("modern", {**GEMMA3, "tied_head": False, "logit_softcap": 3.0}),
    "gemma3_text, scores by another number": ("modern", {**GEMMA3, "attention_scale": 7**-0.5, "activation": "silu"}),
    "gemma3_text, one base": ("modern", {**GEMMA3, "rotary_base_local": None}),
    "gemma3_text, layers in no order": ("modern", {**GEMMA3, "n_layer": 3, "patterns": ("causal", "window(3)")}),
    "gemma3_text, no windows": ("modern", {**GEMMA3, "patterns": None}),
}
CLASSES = {**SHAPE, **POST_NORM, "n_classes": 4}
PATCHES = {**SHAPE, "vocab_size": 1, "block_size": 5, "stem": "patches", "image_size": 8, "patch_size": 4}
TRAJECTORY = {**SHAPE, "vocab_size": 1, "block_size": 12, "positions": "none",
              "state_size": 5, "action_size": 3, "max_timestep": 9}  # fmt: skip
NO_BIAS = {"embedding_norm": True, "patch_bias": False}  # of CLIP's patches
OURS: dict[str, Any] = {
    **{name: toy_config(preset, **changes) for name, (preset, changes) in DECODERS.items()},
    "marian, the translator of 2017": seq2seq(family="original"),
    "marian, no biases": seq2seq(family="original", bias=False),
    "marian, a bias of logits": seq2seq(family="original", head_bias=True, activation="silu"),
    "marian, two vocabularies": seq2seq(family="original", source_vocab_size=67, n_decoder_layer=1),
    "marian, called classic": seq2seq(positions="sinusoidal", norm_place="post", rotary_base=500.0, activation="gelu"),
    "bart": seq2seq(**POST_NORM),
    "t5, gated": seq2seq(**T5, tied_head=False),
    "t5, plain": seq2seq(**{**T5, "feedforward": "plain", "logit_scale": 18**-0.5}, n_decoder_layer=1),
    "bert, no segments": EncoderConfig.make(**BERT),
    "bert, no biases": EncoderConfig.make(**BERT, bias=False, n_segments=2),
    "bert, a bias of logits": EncoderConfig.make(**BERT, head_bias=True, norm_eps=1e-12),
    "bert, classes": EncoderConfig.make(**CLASSES, pooler=True),
    "bert, classes of tokens": EncoderConfig.make(**CLASSES, token_head="classes", activation="relu2"),
    "decision_transformer, no biases": make_config("trajectory_decoder", **TRAJECTORY, bias=False),
    "decision_transformer, actions to choose from": make_config("trajectory_decoder", **TRAJECTORY, activation="relu"),
    "clip, two widths": make_config(
        "dual_encoder",
        image={**PATCHES, **NO_BIAS, "n_channels": 2, "n_embd": 15, "n_classes": 9},
        text={**SHAPE, "n_classes": 9},
        end_token=END,
    ),
    "vit, no biases": EncoderConfig.make(**PATCHES, n_channels=2, n_classes=7, bias=False),
}


def ask_both(ours: Any, theirs: Any, model_type: str) -> tuple[Tensor, Tensor]:
    """The logits of both for the question of the family's first case; of BERT without segments."""
    if model_type != "bert":
        case = next(case for case in CASES.values() if case.config.model_type == model_type)
        return case.ours(ours), case.theirs(theirs)
    vectors, expected = ours(padded(), LENGTHS), theirs(padded(), attention_mask=THERE.long()).logits
    if ours.config.token_head == "none":
        return ours.sequence_logits(vectors, LENGTHS), expected
    return ours.token_logits(vectors[THERE]), expected[THERE]


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_what_we_train_loads_in_transformers(name: str, tmp_path: Path):
    ours = shaken(build_model(OURS[name])).eval()
    save(tmp_path, ours)
    given = json.loads((tmp_path / "config.json").read_text())
    assert given["model_type"] == name.split(",")[0]
    kind = getattr(transformers, given["architectures"][0])
    theirs, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    logits, expected = ask_both(ours, theirs, given["model_type"])
    assert logits.std() > 0.2
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    again = load_model(tmp_path)
    assert again.config == OURS[name] and not again.training
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), again.parameters(), strict=True))


@torch.no_grad()
def test_whisper_needs_no_bias_of_keys(tmp_path: Path):
    """Ours has one, and may have trained it; theirs has not, and says the same, for softmax does not see it."""
    config = EncoderDecoderConfig(
        encoder=EncoderConfig.make(
            **{**SHAPE, "vocab_size": 1}, stem="frames", n_mels=7, positions="sinusoidal", sinusoid_layout="whisper"
        ),
        decoder=ModelConfig.make(**SHAPE),
        shared_embedding=False,
        **TOKENS,
    )
    ours = shaken(build_model(config)).eval()
    save(tmp_path, ours)
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path)
    case = CASES["whisper"]
    torch.testing.assert_close(case.ours(ours), case.theirs(theirs), rtol=1e-4, atol=1e-4)
    again = load_model(tmp_path)
    assert again.config == config
    q, k, v = again.encoder.blocks[0].attention.qkv.bias.chunk(3)
    assert q.any() and v.any() and not k.any()


@torch.no_grad()
def test_a_sentence_is_answered_alike(tmp_path: Path):
    """Greedily, from sources of unequal length, with the special tokens that the folder names."""
    ours = shaken(build_model(seq2seq(**T5, tied_head=False))).eval()
    save(tmp_path, ours)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert theirs.generation_config.max_length == ours.config.block_size
    text = theirs.generate(padded(), attention_mask=THERE.long(), max_new_tokens=8)
    assert (text[:, 0] == START).all() and not (text == END).any()
    assert len({tuple(row) for row in text.tolist()}) == 3
    answers = beam_search(ours, padded(), LENGTHS, beam=1, max_new_tokens=9)  # the ninth is the end that is asked for
    assert [[*best.tokens[:8]] for (best,) in answers] == text[:, 1:].tolist()
