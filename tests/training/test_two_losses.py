"""Training and validation loss, measured alike: in eval mode, on the same tokens each time, and shown everywhere."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import SMALL
from toys import toy_model

import glassformer as gf
from glassformer import recipes
from glassformer.data import TokenView
from glassformer.tasks import RunSettings
from glassformer.tasks.held_out import spread_windows
from glassformer.training import Callback, RunFolder, write_report
from glassformer.training.run_table import list_runs

TINY = [
    *SMALL, "model.n_layer=1", "training.steps=12", "training.eval_every=4", "training.checkpoint_every=4",
    "training.dropout=0.5",
]  # fmt: skip


class Seen(Callback):
    """What the model is asked in each evaluation, and whether it is in eval mode."""

    def on_start(self, trainer):
        self.asked: list[tuple[bool, Any]] = []
        self.inside = False
        evaluate = trainer.task.evaluate

        def watched(model, split="validation", **how):
            self.inside = split == "train"
            try:
                return evaluate(model, split, **how)
            finally:
                self.inside = False

        trainer.task.evaluate = watched
        trainer.model.register_forward_pre_hook(
            lambda model, inputs: self.asked.append((model.training, inputs[0].tolist())) if self.inside else None
        )


def test_the_training_loss_is_that_of_the_same_part_without_dropout(play, tmp_path):
    seen = Seen()
    run = recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[seen])
    first, *others = seen.asked
    assert first[0] is False and all(other == first for other in others) and len(others) == 2
    rows = [line for line in RunFolder(run.path).read_metrics() if "val_loss" in line]
    best = next(row for row in rows if row["step"] == run.best_step)
    assert run.train_loss is not None and run.train_loss.loss == best["train_loss_eval"]
    # by hand: the windows that it read, with the weights that were kept
    model, tokenizer = gf.load(run.path)
    text = tokenizer.encode(play.read_text())
    total, count = 0.0, 0
    for window in first[1]:
        start = next(i for i in range(len(text)) if text[i : i + 11] == window)
        logits = model(torch.tensor([window]))[0].detach().log_softmax(dim=-1)
        total -= float(logits[range(11), text[start + 1 : start + 12]].sum())
        count += 11
    assert run.train_loss.n == count
    assert run.train_loss.loss == pytest.approx(total / count, abs=1e-4)


def test_both_losses_are_shown_wherever_one_is_and_a_run_of_an_older_version_still_reads(play, tmp_path):
    run = recipes.train(None, TINY, data=str(play), out=tmp_path / "run")
    shown = run.train_loss.loss
    assert json.loads((run.path / "summary.json").read_text())["train_loss_eval"] == shown
    assert list_runs(tmp_path)[0].train == shown
    page = write_report(RunFolder(run.path)).read_text()
    assert f'data-key="train_loss_eval">{shown:.4f}' in page and "training, in eval mode" in page
    ids = gf.load(run.path)[1].encode(play.read_text())
    train, validation = (recipes.evaluate(run.path, split=split) for split in ("train", "validation"))
    assert train.n + validation.n == len(ids) - 2  # nothing predicts the first token of a split
    with pytest.raises(gf.errors.UsageError, match=r"no test split; use train or validation"):
        recipes.evaluate(run.path, split="test")
    for name in ("metrics.jsonl", "summary.json"):  # an older version wrote no training loss
        text = (run.path / name).read_text()
        lines = [json.loads(line) for line in ([text] if name == "summary.json" else text.splitlines())]
        old = [{k: v for k, v in line.items() if not k.startswith("train_")} for line in lines]
        (run.path / name).write_text("\n".join(json.dumps(line) for line in old) + "\n")
    assert list_runs(tmp_path)[0].train is None
    assert "training, in eval mode" not in write_report(RunFolder(run.path)).read_text()


@pytest.mark.parametrize(
    ("batch_size", "eval_interval", "rows"),
    [
        (16, 325, 16 * 19),  # 6 % of 325 batches: 2 % of the time, for a step costs three forward passes
        (12, 100, 12 * 6),
        (7, 4, 7),  # one batch at least
    ],
)
def test_it_costs_two_percent_of_the_training(batch_size, eval_interval, rows):
    assert RunSettings(batch_size=batch_size, eval_interval=eval_interval).train_eval_rows == rows


@pytest.mark.parametrize("n", [1, 5, 10**6])
def test_windows_are_spread_over_the_whole_split(n):
    """From its first token to its last, and never more than lie beside each other."""
    view = TokenView("train", [np.arange(601, dtype=np.uint16)], np.zeros(1, np.uint64), 601)
    batches = list(spread_windows(toy_model(), view, 11, n))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    starts = inputs[:, 0].tolist()
    assert torch.equal(inputs, torch.tensor(starts)[:, None] + torch.arange(11)) and torch.equal(targets, inputs + 1)
    assert len(starts) == min(n, 54) and starts[0] == 0  # 600 predictions are 54 windows of 11
    assert n == 1 or starts[-1] == 600 - 11
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert not gaps or max(gaps) - min(gaps) <= 1
