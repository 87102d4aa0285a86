"""What reinforcement learning asks of the interface: a frozen reference, batches that the model writes, metrics."""

from __future__ import annotations

import copy

import pytest
import torch
from resolving import stopped_at

from glassformer import recipes
from glassformer.generation import Engine, Request, Sampling
from glassformer.hub import load_model, model_folder_of
from glassformer.tasks import TASKS, Loss, NextToken
from glassformer.training import RunFolder

WORDS = ["task.kind=own_samples", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=12",
         "tokenizer.kind=characters", "training.steps=4", "training.batch_size=3", "training.checkpoint_every=2",
         "training.compile=off", "training.sample_every=0", "training.precision=fp32"]  # fmt: skip


class RollOuts:
    """Texts that the model of now writes."""

    def __init__(self, task):
        self.task, self.done = task, 0

    def __next__(self):
        model = self.task.model
        model.eval()
        engine, prompt = Engine(model, self.task.tokenizer), (1, 2)
        seeds = range(3 * self.done, 3 * self.done + 3)
        rows = {engine.submit(Request(prompt, max_new_tokens=9, sampling=Sampling(seed=seed), end_tokens=frozenset())):
                list(prompt) for seed in seeds}  # fmt: skip
        for event in engine.run():
            if event.piece is not None:
                rows[event.request].append(event.piece.token)
        model.train()
        self.done += 1
        return self.task.collate(list(rows.values()))

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


class OwnSamples(NextToken):
    on_policy = True

    def begin(self, model):
        start = self.run.start_from
        self.model = model
        self.reference = copy.deepcopy(model if start is None else load_model(model_folder_of(start))).requires_grad_(
            False
        )

    def batches(self, split, rank=0, world_size=1):
        return RollOuts(self)

    def loss(self, model, batch):
        total, count, _ = super().loss(model, batch)
        with torch.no_grad():
            reference = super().loss(self.reference, batch).sum
        return Loss(total, count, {"gap": (total - reference, count)})


def test_a_task_with_a_reference_and_roll_outs_reports_its_metrics_and_resumes_exactly(tmp_path, play, monkeypatch):
    monkeypatch.setitem(TASKS, "own_samples", OwnSamples)
    start = recipes.train(None, [*WORDS[1:], "training.steps=1"], data=str(play), out=tmp_path / "start")
    words = [*WORDS[:1], *WORDS[6:], f"training.start_from={start.path}"]
    whole = recipes.train(None, words, data=str(play), out=tmp_path / "whole")
    gaps = [line["gap"] for line in RunFolder(whole.path).read_metrics()]
    assert gaps[0] == pytest.approx(0.0, abs=1e-6) and gaps[-1] != 0.0
    cut = stopped_at(whole.path, 2)
    recipes.resume(cut)
    last = (path / "checkpoints" / "step-000004" / "model" for path in (whole.path, cut))
    ours, theirs = (load_model(path).state_dict() for path in last)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [line["gap"] for line in RunFolder(cut).read_metrics()] == gaps
