"""Induction measured while a model trains: what is drawn, what is measured, and a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from toys import toy_model

from glassformer import recipes
from glassformer.data import TokenBatches, TokenStore, TokenStoreWriter
from glassformer.evaluation.induction import induction
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.taps import listening
from glassformer.tasks.induction import SHORTEST, MixedBatches
from glassformer.training import RunFolder, write_report

TOKENS = np.array([3, 4, 7, 8, 9, 11])


@pytest.fixture
def view(tmp_path):
    with TokenStoreWriter(tmp_path / "store", build_tokenizer("bytes", [])) as writer:
        writer.append("train", np.full(400, 99, dtype=np.uint16), bytes=400, end_of_document=True)
    return TokenStore.open(tmp_path / "store").split("train")


def batches(view, share=0.5, rank=0, world_size=1):
    sizes = {"block_size": 17, "batch_size": 6 // world_size, "seed": 2, "rank": rank, "world_size": world_size}
    return MixedBatches(view, tokens=TOKENS, share=share, **sizes)


def test_part_of_a_batch_is_random_tokens_that_come_again(view):
    periods = set()
    for step in range(40):
        inputs_BT, targets_BT = batches(view).batch(step)
        rows_BT = torch.cat([inputs_BT, targets_BT[:, -1:]], dim=1)
        assert torch.equal(rows_BT[:, 1:], targets_BT)
        assert (rows_BT[3:] == 99).all() and np.isin(rows_BT[:3], TOKENS).all()
        for row in rows_BT[:3]:
            periods.add(next(p for p in range(1, 18) if torch.equal(row[p:], row[:-p])))
    assert max(periods) <= 17 // 2 and len(periods) > 3  # a place alone does not tell what comes
    assert sum(p < SHORTEST for p in periods) <= 1  # 4 random tokens may have a period of their own
    assert not torch.equal(batches(view).batch(0)[0], batches(view).batch(1)[0])


def test_without_a_share_batches_are_those_of_the_text(view):
    plain = TokenBatches(view, block_size=17, batch_size=6, seed=2)
    assert torch.equal(batches(view, 0.0).batch(3)[0], plain.batch(3)[0])


def test_batches_are_the_same_for_any_number_of_processes_and_after_a_stop(view):
    one, ranks = batches(view), [batches(view, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(3):
        whole, parts = next(one), [next(part) for part in ranks]
        assert all(torch.equal(w, torch.cat(p)) for w, p in zip(whole, zip(*parts, strict=True), strict=True))
    again = batches(view)
    again.load_state_dict({**one.state_dict(), "step": 2})
    assert torch.equal(next(again)[0], whole[0])


IDS = torch.tensor([[5, 1, 9, 4, 5, 1, 9, 4], [2, 8, 3, 7, 2, 8, 3, 7], [6, 5, 2, 1, 6, 5, 2, 1]])


@pytest.mark.parametrize("family", ["classic", "modern"])
@torch.no_grad()
def test_scores_and_losses_are_what_loops_give(family):
    model, seen = toy_model(family), {}
    found = induction(model, IDS, 4)
    with listening(model, "*.pattern", lambda name, x: seen.update({name: x})):
        log_probs = model(IDS).log_softmax(dim=-1)
    rows = range(3)
    expected = [
        [[sum(float(pattern[b, h, t, t - 3]) for t in range(4, 8)) / 4 for b in rows] for h in range(pattern.shape[1])]
        for pattern in (seen[f"blocks.{layer}.attention.pattern"] for layer in range(2))
    ]
    scores = np.mean(expected, axis=2)
    assert found.scores_LH.numpy() == pytest.approx(scores, abs=1e-6)
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    best = expected[layer][head]
    assert found.best == pytest.approx((np.mean(best), 3, 1.96 * np.std(best, ddof=1) / math.sqrt(3)), abs=1e-6)
    losses = [[-float(log_probs[b, t, IDS[b, t + 1]]) for t in range(7)] for b in rows]
    assert found.first.value == pytest.approx(np.mean([row[:3] for row in losses]), abs=1e-5)
    assert found.second.value == pytest.approx(np.mean([row[3:] for row in losses]), abs=1e-5)


def test_a_head_that_looks_there_and_nowhere_else_scores_one():
    model = toy_model()

    def put(name, pattern_BHTT):
        places = torch.nn.functional.one_hot((torch.arange(8) - 3).clamp_min(0), 8).to(pattern_BHTT)
        return torch.cat([pattern_BHTT[:, :1], places.expand(3, 1, 8, 8), pattern_BHTT[:, 2:]], dim=1)

    with torch.no_grad(), listening(model, "blocks.1.attention.pattern", put):
        found = induction(model, IDS, 4)
    assert found.best.value == 1.0 and int(found.scores_LH.argmax()) == 3 + 1


WORDS = [
    "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=20", "task.length=7", "task.rows=5",
    "training.batch_size=8", "training.eval_every=2", "training.eval_batches=1", "training.sample_every=2",
    "training.checkpoint_every=2", "training.steps=4",
]  # fmt: skip


def test_a_run_records_induction_draws_it_and_resumes_to_the_bit(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and again\n" * 40)
    words = [*WORDS, f"data.source={text}"]
    whole, cut = (recipes.train("induction", words, out=tmp_path / name) for name in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000004").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000004/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()
    last = json.loads((whole.path / "metrics.jsonl").read_text().splitlines()[-1])
    model, task = recipes.opening.open_run(whole.path)  # the last weights are the best ones: all losses still fall
    measured = task.evaluate(model)
    for name in ("induction", "loss_first_time", "loss_second_time"):
        assert last[f"val_{name}"] == pytest.approx(measured[name].value, abs=1e-5) and measured[name].n == 5
    page = write_report(RunFolder.open(whole.path)).read_text()
    assert all(title in page for title in ("Induction", "Loss second time", "layer 1"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["task.length=11"], ["task.length=11", "10"]),
        (["task.repeated=1"], ["repeated", "1"]),
        (["model.kind=rnn", "model.n_embd=8"], ["rnn", "attention"]),
        (["data.document_mask=true"], ["document_mask"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, tmp_path, words, names):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and again\n" * 40)
    given = [word for word in WORDS if "kind=rnn" not in " ".join(words) or not word.startswith("model.n_")]
    refused("train", "induction", *given, f"data.source={text}", *words, code=2, names=names)
