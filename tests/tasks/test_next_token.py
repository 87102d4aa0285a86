"""Next token: a sum of losses and the count behind it, so that it does not matter how a step was cut up."""

from __future__ import annotations

import math
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
import torch.distributed.fsdp
import torch.nn.functional as F
from toys import toy_ids, toy_model

from glassformer.errors import DataError
from glassformer.taps import listening
from glassformer.tasks import NextToken
from glassformer.tasks import losses as cross_entropy


def batch(rows: int = 6, t: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    ids = toy_ids(rows, t + 1)
    return ids[:, :-1], ids[:, 1:]


class AlwaysSaysTwo(torch.nn.Module):
    """V=3; probabilities 1/7, 2/7, 4/7 at every position."""

    def forward(self, ids_BT):
        return torch.tensor([1.0, 2.0, 4.0]).log().expand(*ids_BT.shape, 3)


def test_by_hand():
    """Targets 2 and 0: ln(7/4) + ln 7."""
    loss, count, _ = NextToken().loss(AlwaysSaysTwo(), (torch.tensor([[0, 2]]), torch.tensor([[2, 0]])))
    assert loss.item() == pytest.approx(math.log(7 / 4) + math.log(7)) and count == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sum_over_count_is_the_mean_cross_entropy(dtype):
    """Doubles stay doubles, so that runs in float64 can be held equal to 1e-9."""
    model, (inputs, targets) = toy_model().to(dtype), batch()
    loss, count, _ = NextToken().loss(model, (inputs, targets))
    assert count == 42 and loss.dtype == dtype
    torch.testing.assert_close(loss / count, F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


# many logits: head and loss in pieces


@pytest.fixture
def small_pieces(monkeypatch):
    """5 rows of logits at once, so that the toy model has "many" of them."""
    monkeypatch.setitem(cross_entropy.PIECE_BYTES, "cpu", 5 * 4 * 61)


def masked_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of unequal length: 7, 5, 0, 2, 7 and 1 targets count."""
    inputs, targets = (ids.clone() for ids in batch())
    for row, n in enumerate((7, 5, 0, 2, 7, 1)):
        targets[row, n:] = -100
    return inputs, targets


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize("family", ["classic", "modern"])  # classic: a tied head
@pytest.mark.parametrize("cut", [(6,), (1, 2, 3)], ids=str)
def test_pieces_give_the_loss_and_gradients_of_the_whole(small_pieces, family, cut):
    """Also cut into micro-batches whose counts differ: 7, 5 + 0, 2 + 7 + 1."""
    results = []
    for form in ("pieces", "whole"):
        model, (inputs, targets) = toy_model(family, tied_head=family == "classic").double(), masked_batch()
        total, n = 0.0, 0
        for x, y in zip(inputs.split(cut), targets.split(cut), strict=True):
            if form == "pieces":
                loss, count, _ = NextToken().loss(model, (x, y))
            else:
                loss, count = (
                    F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum"),
                    int((y != -100).sum()),
                )
            loss.backward()
            total, n = total + loss.item(), n + count
        assert n == 22
        results.append([torch.tensor(total / n, dtype=torch.float64), *(g / n for g in gradients(model))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_logits_are_never_whole_without_a_listener(small_pieces):
    model, heard = toy_model(), []
    with mock.patch.object(type(model), "logits", side_effect=AssertionError("all logits were made")):
        quiet, count, _ = NextToken().loss(model, masked_batch())
    with listening(model, "logits", lambda name, x: heard.append(x.shape)):
        loud, _, _ = NextToken().loss(model, masked_batch())
    assert heard == [(6, 7, 61)] and type(count) is int and count == 22
    torch.testing.assert_close(quiet, loud)


def test_few_logits_are_made_at_once():
    model, heard = toy_model(), []
    model.head.register_forward_hook(lambda *_: heard.append(1))
    NextToken().loss(model, batch())
    assert heard == [1]


class WithLoss(torch.nn.Module):
    """Model and objective as one module, which is what DistributedDataParallel, `fully_shard` and `compile` wrap."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs, targets):
        return NextToken().loss(self.model, (inputs, targets))[:2]


@pytest.fixture
def one_rank():
    """A process group of this process alone: all of the machinery, and no second process to wait for."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("how", ["ddp", "sharded", "compiled"])
def test_wrapped_as_one_module_the_pieces_are_the_same(small_pieces, one_rank, how):
    plain, wrapped = WithLoss(toy_model()), WithLoss(toy_model())
    if how == "ddp":
        called = torch.nn.parallel.DistributedDataParallel(wrapped)
    elif how == "sharded":
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for block in wrapped.model.blocks:
            torch.distributed.fsdp.fully_shard(block, mesh=mesh)
        called = torch.distributed.fsdp.fully_shard(wrapped, mesh=mesh)
    else:
        called = torch.compile(wrapped, dynamic=False, backend="aot_eager")
    losses = [module(*masked_batch()) for module in (plain, called)]
    for loss, count in losses:
        assert count == 22
        loss.backward()
    torch.testing.assert_close(losses[0][0], losses[1][0])
    for ours, theirs in zip(gradients(wrapped), gradients(plain), strict=True):
        torch.testing.assert_close(ours.full_tensor() if hasattr(ours, "full_tensor") else ours, theirs)


# rows


@pytest.mark.parametrize("form", ["pieces", "whole"])
def test_each_sequence_costs_what_its_targets_cost(request, form):
    if form == "pieces":
        request.getfixturevalue("small_pieces")
    model, (inputs, targets) = toy_model(), masked_batch()
    logits = model(inputs)
    expected = F.cross_entropy(logits.mT, targets, reduction="none", ignore_index=-100).sum(dim=1).double()
    with mock.patch.object(type(model), "logits", side_effect=AssertionError) if form == "pieces" else nullcontext():
        rows = NextToken().rows(model, (inputs, targets))
    assert rows.sums_B.dtype == torch.float64
    torch.testing.assert_close(rows.sums_B, expected, rtol=1e-5, atol=1e-5)
    assert rows.counts_B.tolist() == [7, 5, 0, 2, 7, 1]
    assert rows.correct_B.tolist() == [int(n) for n in (logits.argmax(-1) == targets).sum(dim=1)]


def test_hits_by_hand():
    """It always says 2: of 2, 0, 2 two are hits; what is not asked is none."""
    targets = torch.tensor([[2, 0, 2], [2, -100, -100], [1, 0, -100]])
    rows = NextToken().rows(AlwaysSaysTwo(), (torch.zeros(3, 3, dtype=torch.int64), targets))
    assert rows.correct_B.tolist() == [2, 1, 0] and rows.counts_B.tolist() == [3, 1, 2]
    assert rows.sums_B.tolist() == pytest.approx(
        [math.log(7 / 4) * 2 + math.log(7), math.log(7 / 4), math.log(7 / 2) + math.log(7)]
    )


# collate


def test_examples_of_unequal_length_become_a_batch():
    inputs, targets = NextToken().collate([[5, 6, 7, 8], [9], [1, 2], []])
    assert inputs.tolist() == [[5, 6, 7], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert targets.tolist() == [[6, 7, 8], [-100] * 3, [2, -100, -100], [-100] * 3]


@pytest.mark.parametrize("examples", [[], [[]], [[3], [4]]], ids=str)
def test_nothing_to_predict_is_refused(examples):
    with pytest.raises(DataError, match=f"{len(examples)} examples hold no prediction, which needs 2 tokens"):
        NextToken().collate(examples)
