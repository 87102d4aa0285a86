"""Reward: the loss by hand, a run that learns whom to prefer, and what "best" means when higher is better."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

import glassformer as gf
from glassformer import recipes
from glassformer.data.examples import load_examples
from glassformer.errors import DataError, UsageError
from glassformer.evaluation import Metric
from glassformer.tasks import TASKS, Reward, Score, rewards
from glassformer.training import RunFolder
from glassformer.training.run_history import RunHistory

TINY = [
    "task.kind=reward", "model.kind=encoder", "model.n_layer=1", "model.n_head=2", "model.n_embd=16",
    "model.block_size=12", "model.pooling=mean", "tokenizer.kind=words", "training.batch_size=16",
    "training.sample_every=30", "training.precision=fp32", "training.optimizer=adamw", "training.learning_rate=0.01",
]  # fmt: skip


class Fixed(torch.nn.Module):
    """The reward of a text is its first id."""

    def forward(self, ids_BT, lengths_B):
        return ids_BT

    def sequence_logits(self, ids_BT, lengths_B):
        return ids_BT[:, :1].double()


def test_the_loss_by_hand():
    batch = Reward().collate([([3, 9], [1]), ([2], [4, 4, 4])])
    loss, count, metrics = Reward().loss(Fixed(), batch)
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))]
    assert count == 2 and loss.item() == pytest.approx(sum(expected))
    assert {name: (float(s), n) for name, (s, n) in metrics.items()} == {"margin": (0.0, 2), "accuracy": (1.0, 2)}
    rows = Reward().rows(Fixed(), batch)
    assert rows.sums_B.tolist() == pytest.approx(expected) and rows.correct_B.tolist() == [1, 0]


@pytest.fixture
def preferences(tmp_path) -> str:
    """The kind word is preferred to the unkind one."""
    draw, things = random.Random(0), ["film", "book", "song", "play"]
    rows = [
        {
            "prompt": f"{draw.choice(things)} ",
            "chosen": f"good {i % 7}",
            "rejected": f"bad {i % 5}",
        }
        for i in range(300)
    ]
    path = tmp_path / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_reward_model_from_a_file_to_rewards(tmp_path, preferences):
    assert all("good" in chosen and "bad" in rejected for chosen, rejected in load_examples(preferences)["train"])
    run = recipes.train(None, [*TINY, "training.steps=60"], data=preferences, out=tmp_path / "run")
    assert run.loss.accuracy == 1.0 and run.loss.loss < math.log(2) / 2
    lines = RunFolder(run.path).read_metrics()
    assert all(0 <= line["accuracy"] <= 1 for line in lines) and lines[-1]["margin"] > 1 > lines[0]["margin"]
    sample = json.loads((run.path / "samples.jsonl").read_text().splitlines()[-1])["text"]
    assert sample.startswith("chosen: ") and "rejected: " in sample
    model, tokenizer = gf.load(run.path)
    good, bad = rewards(model, tokenizer, ["film book good 1", "film book bad 1"])
    assert good > bad + 1
    with pytest.raises(UsageError, match="one number and no classes"):
        gf.generation.classify(model, tokenizer, ["film"])


def test_the_best_model_is_the_one_with_the_highest_score(tmp_path, preferences, monkeypatch):
    scripted = iter([0.2, 0.9, 0.5, 0.9])

    class ByAccuracy(Reward):
        score = Score("val_accuracy", "higher")

        def evaluate(self, model, split="validation", *, whole=True):
            metrics = super().evaluate(model, split, whole=whole)
            if split == "validation":
                metrics.values["accuracy"] = Metric(next(scripted), 10, 0.1)
            return metrics

    monkeypatch.setitem(TASKS, "by_accuracy", ByAccuracy)
    words = [
        *TINY,
        "task.kind=by_accuracy",
        "training.steps=12",
        "training.eval_every=3",
        "training.checkpoint_every=3",
    ]
    words.append("training.keep_checkpoints=9")
    run = recipes.train(None, words, data=preferences, out=tmp_path / "run")
    assert run.best_step == 6 and run.loss.accuracy == 0.9  # the first of two equal ones
    best, of_step = (run.path / p / "model.safetensors" for p in ("model", "checkpoints/step-000006/model"))
    assert best.read_bytes() == of_step.read_bytes()
    RunFolder(run.path).summary.unlink()  # as it is before the run has ended
    unfinished = RunHistory(RunFolder(run.path), every_step=False)
    assert (unfinished.score, unfinished.best["step"]) == (ByAccuracy.score, 6)


@pytest.mark.parametrize(
    ("direction", "value", "best", "better"),
    [
        ("lower", 1.0, None, True), ("lower", 1.0, 2.0, True), ("lower", 2.0, 2.0, False),
        ("higher", 3.0, 2.0, True), ("higher", 1.0, 2.0, False),
        ("lower", math.nan, None, False), ("higher", math.inf, 1.0, False), ("lower", -math.inf, 1.0, False),
    ],
)  # fmt: skip
def test_what_better_means(direction, value, best, better):
    assert Score("val_x", direction).is_better(value, best) is better


def test_a_pair_without_its_other_half_is_one_line(tmp_path):
    path = tmp_path / "half.jsonl"
    path.write_text('{"chosen": "a good film"}\n')
    with pytest.raises(DataError, match=r"half\.jsonl:1: .*rejected"):
        load_examples(str(path))
