"""Matrices of 8 and 4 bits: how far off they are, that a product is what it should be, and life without a compiler."""

from __future__ import annotations

import subprocess

import pytest
import torch
import torch.nn.functional as F
from skips import NEEDS_COMPILER

from glassformer.errors import DeviceError
from glassformer.layers import ACTIVATIONS
from glassformer.native import QuantizedLinear, building, library, quantized

pytestmark = pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)
LARGEST = {8: 127, 4: 15}


def rounded(x: torch.Tensor) -> torch.Tensor:
    """What the compiled product makes of its inputs: 8 bits for each group of 32."""
    groups = x.view(len(x), -1, 32)
    step = groups.abs().amax(dim=-1, keepdim=True) / 127
    return (torch.where(step > 0, (groups / step).round(), 0) * step).view(x.shape)


def requantized(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The readable twin of `pack` and `unpack`."""
    groups = weight.view(len(weight), -1, 32)
    if bits == 8:
        scale = (groups.abs().amax(dim=-1, keepdim=True) / 127).half().float()
        return ((groups / scale).round().clamp(-127, 127) * scale).view(weight.shape)
    least = groups.amin(dim=-1, keepdim=True)
    scale, least = ((groups.amax(dim=-1, keepdim=True) - least) / 15).half().float(), least.half().float()
    return (((groups - least) / scale).round().clamp(0, 15) * scale + least).view(weight.shape)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (13, 96), (64, 64)])
def test_weights_are_those_of_the_twin_and_stay_what_they_are(bits, rows, columns):
    torch.manual_seed(rows)
    weight = torch.randn(rows, columns)
    once = QuantizedLinear(weight, None, bits).dequantized()
    assert torch.allclose(once, requantized(weight, bits), atol=1e-6)
    spread = (weight.view(rows, -1, 32).amax(dim=-1) - weight.view(rows, -1, 32).amin(dim=-1)).max()
    assert 0 < (once - weight).abs().max() <= 1.1 * spread / LARGEST[bits] / 2
    assert torch.equal(QuantizedLinear(once, None, bits).dequantized(), once)  # such a file loses nothing


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 130])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_rounded_inputs(bits, n, bias):
    torch.manual_seed(n)
    weight, x = torch.randn(13, 96), torch.randn(n, 96) * torch.logspace(-3, 3, 96)
    linear = QuantizedLinear(weight, torch.randn(13) if bias else None, bits)
    expected = F.linear(rounded(x).double(), linear.dequantized().double(), linear.bias.double() if bias else None)
    assert (linear(x) - expected).abs().max() < 2e-6 * expected.abs().max()
    assert torch.equal(linear(x)[-1], linear(x[-1:])[0])  # alone as in a batch, bit for bit
    assert linear(x.view(1, n, 96)).shape == (1, n, 13)


def test_extremes():
    weight = torch.zeros(9, 64)
    weight[0, 0], weight[1, 40:] = 1000.0, -3.0
    x = torch.zeros(2, 64)
    for bits in (8, 4):
        linear = QuantizedLinear(weight, None, bits)
        assert torch.equal(linear(x), torch.zeros(2, 9))
        assert torch.allclose(linear(torch.full((1, 64), -2.0))[0, :3], torch.tensor([-2000.0, 144.0, 0.0]), rtol=1e-3)
        large = torch.full((1, 64), 127.0)  # every product as large as it can be: nothing overflows
        full = QuantizedLinear(torch.full((8, 64), -1.0) + 2.0 * (torch.arange(64) % 2), None, bits)
        assert torch.allclose(full(large), torch.zeros(1, 8), atol=4.0)
        assert torch.allclose(full(large * (-1.0) ** torch.arange(1, 65)), torch.full((1, 8), 64 * 127.0), rtol=1e-3)


def test_it_is_float_elsewhere_and_never_becomes_another_format(monkeypatch):
    torch.manual_seed(0)
    linear = QuantizedLinear(torch.randn(5, 32), torch.randn(5), 8)
    blocks = linear.blocks.clone()
    linear.to(torch.bfloat16).double()
    assert torch.equal(linear.blocks, blocks) and linear.bias.dtype == torch.float32
    assert linear(torch.randn(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    monkeypatch.setattr(quantized, "library", lambda: None)  # as on a GPU
    assert linear(torch.randn(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_without_vector_instructions_the_numbers_are_the_same(tmp_path, monkeypatch):
    made = tmp_path / "portable.so"
    flags = [flag for flag in building.FLAGS if flag != "-march=native"]
    subprocess.run(["g++", *flags, "-DGLASSFORMER_PORTABLE", str(building.SOURCE), "-o", str(made)], check=True)
    portable = building.opened(made)
    torch.manual_seed(1)
    for bits in (8, 4):
        weight, x = torch.randn(21, 64), torch.randn(6, 64)
        linear = QuantizedLinear(weight, None, bits)
        with monkeypatch.context() as patch:
            patch.setattr(quantized, "library", lambda: portable)
            other = QuantizedLinear(weight, None, bits)
            assert torch.equal(other.blocks, linear.blocks)
            y = other(x)
        assert torch.allclose(y, linear(x), rtol=1e-5, atol=1e-5)


@pytest.fixture
def fresh(monkeypatch):
    """The library is looked for again, during the test and after it."""
    library.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    library.cache_clear()


def test_a_machine_without_a_compiler_does_without(fresh, tmp_path):
    fresh.setenv("GLASSFORMER_CACHE", str(tmp_path))
    fresh.setenv("PATH", "")
    fresh.delenv("CXX", raising=False)
    assert library() is None
    with pytest.raises(DeviceError, match=r"need a C\+\+ compiler.*use --dtype"):
        QuantizedLinear(torch.randn(8, 32), None, 4)


def test_a_compiler_that_fails_and_the_switch(fresh, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    fresh.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    fresh.setenv("CXX", str(broken))
    assert library() is None and not list((tmp_path / "cache").rglob("*.so"))
    fresh.undo()
    library.cache_clear()
    fresh.setenv("GLASSFORMER_NATIVE", "0")
    assert library() is None


@pytest.mark.parametrize("n", [5, 6, 31, 300])
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (40, 96), (77, 64), (256, 160)])
def test_many_tokens_are_each_what_it_is_alone(n, rows, columns):
    """The path for many tokens takes four tiles and six tokens at a time; what is left over takes the other one."""
    torch.manual_seed(n + rows)
    x = torch.randn(n, columns) * torch.logspace(-3, 3, columns)
    linear = QuantizedLinear(torch.randn(rows, columns), torch.randn(rows) if n % 2 else None, 8)
    together = linear(x)
    assert torch.equal(together, torch.cat([linear(row[None]) for row in x]))
    bias = None if linear.bias is None else linear.bias.double()
    expected = F.linear(rounded(x).double(), linear.dequantized().double(), bias)
    assert (together - expected).abs().max() < 2e-6 * expected.abs().max()


@pytest.mark.parametrize("kind", quantized.KINDS)
def test_an_activation_in_the_product_is_the_one_behind_it(kind, monkeypatch):
    torch.manual_seed(1)
    linear, x = QuantizedLinear(torch.randn(64, 96), torch.randn(64), 8), torch.randn(9, 96)
    expected = ACTIVATIONS[kind](linear(x))
    linear.activation = quantized.KINDS.index(kind)
    torch.testing.assert_close(linear(x), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(quantized, "library", lambda: None)
    exact = ACTIVATIONS[kind](F.linear(x, linear.dequantized(), linear.bias))  # inputs are not rounded there
    torch.testing.assert_close(linear(x), exact)
