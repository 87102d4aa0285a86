"""Model keys of a recipe are the fields of the model's own configuration, of every kind; there is no second list."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w

from glassformer.errors import UsageError
from glassformer.models import MODELS, config_fields, make_config, stacks_of
from glassformer.recipes import read_recipe
from glassformer.recipes.schema import DECIDED
from glassformer.recipes.shape import model_config
from glassformer.tasks import TASKS

BLOCKS = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 15}
SENTENCES = {"start_token": 1, "end_token": 2, "pad_token": 0}
SHAPES: dict[str, dict[str, Any]] = {
    "decoder": {**BLOCKS, "patterns": ["window(3)", "causal"], "rotary_base_local": 7.0, "logit_softcap": 5.0,
                "attention_scale": 0.3, "attention_softcap": 9.0, "positions": "rotary", "head_width": 6,
                "rotary_scaling": {"rope_type": "linear", "factor": 2.0}},
    "decoder_classifier": {**BLOCKS, "n_classes": 2},
    "vector_decoder": {**BLOCKS, "vocab_size": 1, "n_inputs": 3},
    "trajectory_decoder": {**BLOCKS, "vocab_size": 1, "block_size": 12, "state_size": 4, "action_size": 2,
                           "max_timestep": 9},
    "speech_decoder": {**BLOCKS, "n_embd": 12, "n_encoder_layer": 1, "text_block_size": 9, "n_bands": 5, "n_levels": 4,
                       "frames_per_step": 2, "steps_per_character": 0.7},
    "dual_encoder": {**BLOCKS, "image_size": 8, "patch_size": 4, "end_token": 3},
    "encoder": BLOCKS,
    "encoder_decoder": {**BLOCKS, **SENTENCES},
    "mlp": {"vocab_size": 61, "block_size": 13, "context": 5, "n_embd": 7, "n_hidden": 11},
    "seq2seq": {"vocab_size": 61, "block_size": 13, "n_embd": 7, **SENTENCES},
    "seq2seq-attention": {"vocab_size": 61, "block_size": 13, "n_embd": 7, **SENTENCES},
}  # fmt: skip
LAYERS_OF_ONE = ("n_decoder_layer", "n_text_layer")
OF_TEXT_LAST = sorted(TASKS, key=lambda name: (TASKS[name].reads == "text", -[*TASKS].index(name)))
OBJECTIVE = {TASKS[name].asks: name for name in (*OF_TEXT_LAST, "next_token")}  # the last of each kind counts


def values_of(kind: str) -> dict[str, Any]:
    """Every key that a recipe may set for a kind, with the value that a small configuration has there."""
    small = {"vocab_size": 61, "block_size": 13, "n_embd": 7}
    fields = SHAPES.get(kind, {name: value for name, value in small.items() if name in config_fields(kind)})
    config = make_config(kind, **fields).model_dump(exclude_none=True)
    halves = [config.pop(name, {}) for name in ("encoder", "decoder", "image", "text")]
    flat = {name: value for half in (*halves, config) for name, value in half.items()}
    names = set(config_fields(kind)) - DECIDED.keys() - {"kind"}
    return {name: flat.get(name, fields.get("n_layer")) for name in names if name in flat or name in LAYERS_OF_ONE}


@pytest.mark.parametrize("kind", [kind for kind in MODELS if MODELS[kind][1].is_trained])
def test_every_field_of_every_kind_can_be_set(kind: str, tmp_path):
    """All at once in a file, and the configuration that comes out has these values and no others."""
    values = values_of(kind)
    assert "block_size" in values
    path = tmp_path / "all.toml"
    objective = OBJECTIVE[next(asked for asked in OBJECTIVE if asked in MODELS[kind][1].answers)]
    path.write_text(tomli_w.dumps({"model": {"kind": kind, **values}, "task": {"kind": objective}}))
    given = {"vocab_size": 61}
    by_the_data = {
        "decoder_classifier": {"n_classes": 2},
        "speech_decoder": given,
        "dual_encoder": {**given, "end_token": 3},
    }
    decided = by_the_data.get(kind, {})
    config = model_config(read_recipe(str(path)), **{**(TASKS[objective].placeholders or {}), **decided})
    for part in stacks_of(config):
        counted = {"block_size"} if part is getattr(config, "image", None) else set()  # its patches
        for name in values.keys() & type(part).model_fields.keys() - counted:
            got = getattr(part, name)
            got = got.model_dump(exclude_none=True) if hasattr(got, "model_dump") else got
            wanted = values[name]
            assert got == (tuple(wanted) if isinstance(got, tuple) else wanted), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.context=5"], "unknown key model.context"),  # a decoder has none
        (["model.kind=gru", "model.n_layers=1"], "unknown key model.n_layers; did you mean n_layer?"),
        (["model.kind=gru", "model.size=gpt2", "model.n_embd=7", "model.block_size=13"], "model.size='gpt2'"),
        (["model.poolin=mean", "task.kind=classify"], "did you mean pooling?"),
        (["model.vocab_size=100"], r"model.vocab_size is decided by the tokenizer \(tokenizer.vocab_size\)"),
        (["model.n_classes=3", "task.kind=classify"], "decided by the labels"),
        (["model.pooling=max", "task.kind=classify"], "model.pooling='max' is unknown; use first, mean or sum"),
        (["model.patch_size=-1", "task.kind=classify"], "model.patch_size=-1 is too small"),
        (["model.block_size=17", "model.stem=patches", "model.image_size=28", "model.patch_size=7",
          "task.kind=classify"], "model.stem=patches, and task.kind=classify gives a model text"),
        (["model.stem=frames", "task.kind=classify"],
         "model.stem=frames, and task.kind=classify gives a model text"),
    ],
)  # fmt: skip
def test_what_no_kind_or_no_data_knows_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        model_config(r := read_recipe(None, words), **(TASKS[r.task.kind].placeholders or {}))


def test_the_kind_that_a_recipe_names_decides_which_keys_there_are(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('[model]\nkind = "gru"\nn_head = 2\n')
    with pytest.raises(UsageError, match=rf"{path}: unknown key model.n_head"):
        read_recipe(str(path))
