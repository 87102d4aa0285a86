"""The compiled call with fp32 products: the numbers of `layers/`, whatever the matrices are kept in, never stale."""

from __future__ import annotations

import copy
import subprocess

import pytest
import torch
import torch.nn.functional as F
from skips import NEEDS_COMPILER
from test_stack import BLOCK_SIZE, IDS, KINDS, OTHERS, cached, toy
from torch import nn

from glassformer.native import QuantizedLinear, building, compile_exactly, library, quantized, stack
from glassformer.taps import listening

pytestmark = pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)
PIECES = [17, 1, 1, 12, *[1] * 9]
WITHOUT_HEAD = ("sinusoids", "n-grams and a window")  # their head is not in the call, and PyTorch's sums depend on T


def as_published(bits: list[int], **fields):
    """A model whose matrices were rounded to these bits, in turn, as in a file of such blocks."""
    model = toy(**fields)
    with torch.no_grad():
        for i, linear in enumerate(module for module in model.modules() if isinstance(module, nn.Linear)):
            linear.weight.copy_(QuantizedLinear(linear.weight, None, bits[i % len(bits)]).dequantized())
    return model


@pytest.mark.parametrize("bits", [[32], [4, 8, 16, 32]])
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_the_layers(kind, bits):
    model = as_published(bits, **KINDS[kind])
    slow = cached(model, IDS, PIECES)
    assert compile_exactly(model) and set(model.native.bits) == set(bits)
    fast = cached(model, IDS, PIECES)
    assert not torch.equal(fast, slow)  # the compiled call was taken: it adds up in another order
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [[32], [4, 8, 16, 32]])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT_HEAD])
def test_pieces_batches_and_threads_change_nothing_at_all(kind, bits, monkeypatch):
    model = as_published(bits, **KINDS[kind])
    assert compile_exactly(model)
    whole = cached(model, IDS, [BLOCK_SIZE])
    lengths = [3, 39, 17, 8, 25]
    for threads in (1, 2, 3):
        monkeypatch.setattr(stack, "kernel_threads", lambda threads=threads: threads)
        assert torch.equal(cached(model, IDS, [9, 1, 30]), whole)
        cache = model.new_row_cache(5, 5 * BLOCK_SIZE)
        cache.resize(5, BLOCK_SIZE)
        with torch.inference_mode():
            for row, length in enumerate(lengths):
                model(IDS[None, :length], cache=cache.rows(row, row + 1))
            batched = model(IDS[lengths][:, None], cache=cache.rows(0, 5))
        assert torch.equal(batched[:, 0], whole[lengths])


def test_a_matrix_is_kept_in_the_fewest_bits_that_hold_it():
    torch.manual_seed(0)
    weight = torch.randn(40, 64)
    for bits in (4, 8, 16, 32):
        rounded = QuantizedLinear(weight, None, bits).dequantized()
        linear = nn.Linear(64, 40, bias=False)
        linear.weight.data.copy_(rounded)
        kept = QuantizedLinear.of(linear)
        assert kept.bits == bits and torch.equal(kept.dequantized(), rounded)
        linear.weight.data[39, 63] += 0.001  # one number, in the last row
        kept = QuantizedLinear.of(linear)
        assert kept.bits == 32 and torch.equal(kept.dequantized(), linear.weight)
    assert kept.blocks.data_ptr() == linear.weight.data_ptr()  # of 32 bits there is no copy


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 130])
@pytest.mark.parametrize(("rows", "columns"), [(13, 96), (1, 32), (66, 160)])
def test_a_product_is_that_of_fp32(bits, n, rows, columns):
    torch.manual_seed(n)
    x = torch.randn(n, columns) * torch.logspace(-2, 2, columns)
    linear = QuantizedLinear(torch.randn(rows, columns), torch.randn(rows) if n % 2 else None, bits, exact=True)
    bias = None if linear.bias is None else linear.bias.double()
    expected = F.linear(x.double(), linear.dequantized().double(), bias)
    y = linear(x)
    assert (y - expected).abs().max() < 1e-6 * expected.abs().max() + 1e-5
    assert torch.equal(y, torch.cat([linear(row[None]) for row in x]))


@pytest.mark.parametrize("flags", [("-DGLASSFORMER_PORTABLE",), ("-mavx2", "-mfma", "-mf16c")])
def test_other_processors_find_the_same(flags, tmp_path, monkeypatch):
    """AVX2 bit for bit, plain C++, which has no fused products, to rounding."""
    if "-mavx2" in flags and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this processor has no AVX2")
    made = tmp_path / "other.so"
    command = [flag for flag in building.FLAGS if flag != "-march=native"]
    subprocess.run(["g++", *command, *flags, str(building.SOURCE), "-o", str(made)], check=True)
    other = building.opened(made)
    torch.manual_seed(1)
    for bits in (32, 16, 8, 4):
        weight, x = torch.randn(61, 96), torch.randn(7, 96)
        linear = QuantizedLinear(weight, None, bits, exact=True)
        with monkeypatch.context() as patch:
            patch.setattr(quantized, "library", lambda: other)
            y = QuantizedLinear(weight, None, bits, exact=True)(x)
        if "-mavx2" in flags:
            assert torch.equal(y, linear(x)), bits
        torch.testing.assert_close(y, linear(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_stay_what_they_are(kind):
    model = toy(**OTHERS[kind])
    assert not compile_exactly(model) and model.native is None


def test_a_weight_that_changes_ends_it():
    model, edited = toy(), toy()
    assert compile_exactly(model)
    with torch.no_grad():
        for each in (model, edited):
            each.blocks[1].feedforward.down.weight[3] += 1.0
    assert torch.equal(cached(model, IDS, PIECES), cached(edited, IDS, PIECES))


@pytest.mark.parametrize("how", ["replaced", "rounded"])
def test_a_weight_that_is_another_one_ends_it(how):
    models = toy(), toy()
    assert compile_exactly(models[0])
    for model in models:
        if how == "replaced":
            model.head.weight = nn.Parameter(2 * model.head.weight.detach())
        else:
            model.bfloat16().float()
    assert torch.equal(*(cached(model, IDS, PIECES) for model in models))


def test_gradients_listeners_and_copies_go_by_the_layers():
    model, plain = toy(), toy()
    assert compile_exactly(model)
    assert torch.equal(model(IDS[None]), plain(IDS[None]))  # no cache
    model(IDS[None]).sum().backward()
    assert model.blocks[0].attention.qkv.weight.grad.abs().sum() > 0
    assert copy.deepcopy(model).native is None
    heard = []
    cache = model.new_row_cache(1, BLOCK_SIZE)
    cache.resize(1, BLOCK_SIZE)
    with torch.inference_mode(), listening(model, "blocks.*.residual.after", lambda name, x: heard.append(name)):
        model(IDS[None, :5], cache=cache.rows(0, 1))
    assert heard == ["blocks.0.residual.after", "blocks.1.residual.after"]
    assert model.double().native is not None  # but not taken: the cache is of another format
    assert cached(model, IDS, PIECES).dtype == torch.float64
