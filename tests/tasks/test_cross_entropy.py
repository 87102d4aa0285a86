"""Head and loss in pieces against all logits at once: the same sum, the same gradients, less memory."""

from __future__ import annotations

import math
from functools import partial
from unittest import mock

import pytest
import torch

from glassformer.tasks import losses as cross_entropy
from glassformer.tasks.losses import linear_cross_entropy, plain_linear_cross_entropy

N, C, V = 23, 5, 11
BOUND = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """7 rows at once, which does not divide 23."""
    monkeypatch.setitem(cross_entropy.PIECE_BYTES, "cpu", 7 * 4 * V)


def inputs(dtype: torch.dtype, *, masked: float = 0.0, bias: bool = False):
    """(hidden, weight, bias or None, targets); about `masked` of the targets do not count."""
    random = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_()  # noqa: E731
    targets = torch.randint(V, (N,), generator=random)
    targets[torch.rand(N, generator=random) < masked] = -100
    return draw(N, C), draw(V, C), draw(V) if bias else None, targets


def with_gradients(form, hidden, weight, bias, targets):
    """(sum, count, gradients) of 3 times the loss."""
    leaves = [x for x in (hidden, weight, bias) if x is not None]
    loss, count = form(hidden, weight, targets, bias)
    return loss, count, torch.autograd.grad(3 * loss, leaves)


@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("smoothing", "rows"), [(0.0, 7), (0.1, 7), (0.6, 7), (0.0, 1)])
def test_pieces_equal_the_whole(monkeypatch, dtype, bias, masked, smoothing, rows):
    """With label smoothing, too, which is that of torch; and one row at a time is enough."""
    monkeypatch.setitem(cross_entropy.PIECE_BYTES, "cpu", rows * 4 * V)
    forms = [partial(form, label_smoothing=smoothing) for form in (linear_cross_entropy, plain_linear_cross_entropy)]
    results = [with_gradients(form, *inputs(dtype, masked=masked, bias=bias)) for form in forms]
    (loss, count, gradients), (true, true_count, expected) = results
    bound = {"rtol": BOUND[dtype], "atol": BOUND[dtype]}
    assert loss.dtype == true.dtype == dtype and count == true_count and (count == 0) == (masked == 1.0)
    torch.testing.assert_close(loss, true, **bound)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **bound)


def test_by_hand():
    """Logits 0, ln 2, ln 4 at two rows, targets 2 and 0: ln(7/4) + ln 7; d logits is (1, 2, 4)/7 minus one."""
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(4)]], requires_grad=True)
    loss, count = linear_cross_entropy(torch.ones(2, 1), weight, torch.tensor([2, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7 / 4) + math.log(7)) and count == 2
    torch.testing.assert_close(weight.grad, torch.tensor([[2 / 7 - 1], [4 / 7], [8 / 7 - 1]]))


def test_numerical_gradients():
    hidden, weight, bias, targets = inputs(torch.float64, masked=0.3, bias=True)
    assert torch.autograd.gradcheck(lambda h, w, b: linear_cross_entropy(h, w, targets, b)[0], (hidden, weight, bias))


def test_a_table_that_writes_and_reads_gets_both_gradients():
    """Tied weights: the head's weight is also what the vectors are made from."""
    ids, (_, weight, _, targets) = torch.arange(N) % V, inputs(torch.float64)
    tied = {}
    for form in (linear_cross_entropy, plain_linear_cross_entropy):
        loss, _ = form(weight[ids].tanh(), weight, targets)
        (tied[form],) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(*tied.values(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_wants_no_gradient_gets_none(frozen):
    hidden, weight, _, targets = inputs(torch.float64)
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    linear_cross_entropy(hidden, weight, targets)[0].backward()
    assert (hidden.grad is None) == (frozen == "hidden") and (weight.grad is None) == (frozen == "weight")


def test_without_gradients_no_gradient_is_made():
    hidden, weight, _, targets = inputs(torch.float64)
    with torch.no_grad(), mock.patch.object(torch.Tensor, "scatter_", side_effect=AssertionError):
        loss, _ = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, plain_linear_cross_entropy(hidden, weight, targets)[0].detach())


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss, _ = linear_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4) and torch.isfinite(hidden.grad).all()


def test_autocast_multiplies_in_halves_and_sums_in_full():
    """Equal to the plain form within bf16's 8 bits; sums and gradients come in fp32."""
    results = {}
    for form in (linear_cross_entropy, plain_linear_cross_entropy):
        hidden, weight, bias, targets = inputs(torch.float32, masked=0.2, bias=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = form(hidden, weight, targets, bias)
        loss.backward()
        results[form] = [loss.detach(), hidden.grad, weight.grad, bias.grad]
        assert all(x.dtype == torch.float32 for x in results[form])
    for ours, theirs in zip(*results.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    exact = plain_linear_cross_entropy(hidden, weight, targets, bias)[0]
    assert results[linear_cross_entropy][0] != exact  # halves really were used


def test_no_tensor_is_larger_than_a_piece_or_a_gradient():
    """Every result of every operation is looked at: none has N x V numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            for x in result if isinstance(result, tuple | list) else [result]:
                if isinstance(x, torch.Tensor):
                    self.numbers = max(self.numbers, x.numel())
            return result

    sizes = {}
    for form in (linear_cross_entropy, plain_linear_cross_entropy):
        with Largest() as largest:
            with_gradients(form, *inputs(torch.float32))
        sizes[form] = largest.numbers
    assert sizes == {linear_cross_entropy: max(7 * V, N * C, V * C), plain_linear_cross_entropy: N * V}


def test_compiled_it_is_the_same():
    """Traced whole: without breaks in the graph."""
    hidden, weight, bias, targets = inputs(torch.float32, masked=0.3, bias=True)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, dynamic=False, backend="aot_eager")
    ours, theirs = (with_gradients(f, hidden, weight, bias, targets) for f in (compiled, linear_cross_entropy))
    torch.testing.assert_close(ours, theirs)


def test_halves_that_are_stored_as_halves():
    hidden, weight, _, targets = inputs(torch.bfloat16)
    loss, _, gradients = with_gradients(linear_cross_entropy, hidden, weight, None, targets)
    exact = plain_linear_cross_entropy(hidden.double(), weight.double(), targets)[0]
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-2)
    assert [g.dtype for g in gradients] == [torch.bfloat16] * 2
