"""Frozen parameters: no optimizer state, nothing in checkpoints but the weights, and a resume that finds them so."""

from __future__ import annotations

import shutil

import pytest
import torch
from play import PLAY
from toys import toy_model

from glassformer import recipes
from glassformer.errors import UsageError
from glassformer.hub import load_model, load_weights
from glassformer.recipes import trainer
from glassformer.training import build_optimizer

FROZEN = "embedding.token.weight"
WORDS = ["model.n_layer=2", "model.n_head=2", "model.n_embd=12", "model.block_size=13", "model.tied_head=false",
         "tokenizer.kind=characters", "training.steps=6", "training.checkpoint_every=3", "training.batch_size=3",
         "training.learning_rate=0.01", "training.compile=off"]  # fmt: skip


def optimizer_of(kind: str, model: torch.nn.Module):
    return build_optimizer(kind, model, learning_rate=0.1, matrix_learning_rate=0.1, betas=(0.9, 0.95),
                           weight_decay=0.1)  # fmt: skip


@pytest.mark.parametrize("kind", ["adamw", "muon", "adagrad", "sgd"])
def test_no_optimizer_keeps_state_of_what_is_frozen(kind):
    model = toy_model("modern")
    frozen = {name for name, p in model.named_parameters() if name.startswith(("blocks.0.", "embedding."))}
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    state = optimizer_of(kind, model).state_dict()
    assert state and not [name for name in state if any(name.endswith(f".{other}") for other in frozen)]


def test_nothing_to_train_is_one_line():
    model = toy_model().requires_grad_(False)
    with pytest.raises(UsageError, match=r"every parameter is frozen .* thaw one"):
        optimizer_of("adamw", model)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_with_a_frozen_table_is_saved_and_resumed(tmp_path, monkeypatch, optimizer):
    """The table stays as it was drawn; stopped in the middle and gone on is never stopped, bit for bit."""
    build = trainer.build_model

    def frozen(config, **dropouts):
        model = build(config, **dropouts)
        model.get_parameter(FROZEN).requires_grad_(False)
        return model

    monkeypatch.setattr(trainer, "build_model", frozen)
    (tmp_path / "play.txt").write_text(PLAY)
    whole = recipes.train(None, [*WORDS, f"training.optimizer={optimizer}"], data=str(tmp_path / "play.txt"),
                          out=tmp_path / "whole")  # fmt: skip
    assert whole is not None
    first, last = (whole.path / "checkpoints" / f"step-00000{n}" for n in (3, 6))
    assert not [name for name in load_weights(last / "optimizer.safetensors") if name.endswith(FROZEN)]
    weights = [load_model(folder / "model").state_dict() for folder in (first, last)]
    assert torch.equal(weights[0][FROZEN], weights[1][FROZEN])
    assert not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])
    again = shutil.copytree(whole.path, tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "step-000006")
    (again / "summary.json").unlink()
    recipes.resume(again)
    resumed = load_model(again / "checkpoints" / "step-000006" / "model").state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights[1].items())
