"""Documents in a window: numbered from the stored starts; with the mask none sees another, without it they do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from resolving import stopped_at
from toys import toy_ids, toy_model

from glassformer import recipes
from glassformer.data import TokenBatches, TokenView, fixed_batches, windows
from glassformer.errors import UsageError
from glassformer.hub import load_model
from glassformer.tasks import NextToken, losses

STARTS = [0, 3, 4, 11]  # of documents in 13 tokens
TINY = [
    "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=13", "tokenizer.kind=bytes",
    "training.steps=4", "training.batch_size=4", "training.checkpoint_every=2", "training.keep_checkpoints=9",
    "training.precision=fp32", "training.sample_every=0", "data.document_mask=true",
]  # fmt: skip


def view() -> TokenView:
    return TokenView("train", [np.arange(13, dtype=np.uint16)], np.array(STARTS, dtype=np.uint64), 13)


def numbers_by_hand(inputs_BT: torch.Tensor) -> torch.Tensor:
    """The ids of `view` are places: the document of each, counted from the first of its row."""
    documents = torch.tensor([sum(start <= i for start in STARTS) for i in range(13)])[inputs_BT]
    return documents - documents[:, :1]


def test_documents_are_numbered_by_the_stored_starts():
    batches = [*windows(view(), 5, 2, documents=True), *fixed_batches(view(), 5, 3, 4, seed=1, documents=True)]
    batches.append(next(TokenBatches(view(), block_size=4, batch_size=3, seed=1, documents=True)))
    for inputs, documents, targets in batches:
        assert torch.equal(documents, numbers_by_hand(inputs)) and torch.equal(targets, inputs + 1)


def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Documents of 4, 1 and 6 tokens in a row of 11."""
    ids = toy_ids(2, 12)
    return ids[:, :-1], torch.tensor([[0] * 4 + [1] + [2] * 6] * 2), ids[:, 1:]


@pytest.mark.parametrize("family", ["classic", "modern"])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_document_never_sees_the_one_before_it(monkeypatch, family: str, pieces: bool):
    """Other tokens in the first document leave the losses of the last one as they are; without a mask they do not."""
    if pieces:
        monkeypatch.setitem(losses.PIECE_BYTES, "cpu", 5 * 4 * 61)
    model, (inputs, documents, targets) = toy_model(family).double(), packed()
    only_last = torch.where(documents == 2, targets, -100)
    other = torch.where(documents == 0, 60 - inputs, inputs)
    cost = [NextToken().loss(model, (ids, documents, only_last)).sum.item() for ids in (inputs, other)]
    assert cost[0] == pytest.approx(cost[1], rel=1e-12)
    seen = [NextToken().loss(model, (ids, only_last)).sum.item() for ids in (inputs, other)]
    assert abs(seen[0] - seen[1]) > 1e-6
    rows = NextToken().rows(model, (inputs, documents, only_last))
    assert rows.sums_B.sum().item() == pytest.approx(cost[0], rel=1e-9)


def test_with_relative_positions_a_packed_document_costs_what_it_costs_alone():
    """Positions do not restart, which rotary ones do not notice."""
    model, (inputs, documents, targets) = toy_model("modern").double(), packed()
    together = NextToken().loss(model, (inputs, documents, targets)).sum
    alone = [NextToken().loss(model, (inputs[:, a:b], targets[:, a:b])).sum for a, b in ((0, 4), (4, 5), (5, 11))]
    torch.testing.assert_close(together, sum(alone), rtol=1e-9, atol=0)


def texts(tmp_path) -> str:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps({"text": f"note {i}: {i * i}"}) + "\n" for i in range(200)))
    return str(path)


def test_a_run_with_the_mask_learns_something_else_and_resumes_exactly(tmp_path):
    data = texts(tmp_path)
    masked = recipes.train(None, TINY, data=data, out=tmp_path / "masked")
    plain = recipes.train(None, [*TINY, "data.document_mask=false"], data=data, out=tmp_path / "plain")
    assert masked.loss.n == plain.loss.n and masked.loss.loss != plain.loss.loss
    assert recipes.evaluate(masked.path).loss == pytest.approx(masked.loss.loss, rel=1e-6)
    again = stopped_at(masked.path, 2)
    recipes.resume(again)
    a, b = (load_model(path / "model").state_dict() for path in (masked.path, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (None, ["model.kind=gru", "model.n_embd=8", "model.block_size=13"]),
        (None, ["task.kind=masked_tokens"]),
        ("word-vectors", []),
        ("digits", []),
    ],
)
def test_where_nothing_could_be_masked_the_key_is_refused(tmp_path, recipe: str | None, words: list[str]):
    with pytest.raises(UsageError, match=r"^data\.document_mask .*; leave it out$"):
        recipes.train(recipe, ["data.document_mask=true", *words], data=texts(tmp_path), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
