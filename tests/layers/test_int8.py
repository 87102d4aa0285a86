"""8-bit weights: how far off they may be, and that a model made of them says nearly the same."""

from __future__ import annotations

import pytest
import torch

from glassformer.layers import Int8Linear, int8_copy
from glassformer.models import Decoder, ModelConfig


@pytest.mark.parametrize("rows", [1, 3, 50])  # few rows and many: two paths
@pytest.mark.parametrize("width", [37, 64])  # one that the kernel must not be given, one that it takes
@pytest.mark.parametrize("bias", [True, False])
def test_a_row_is_off_by_at_most_half_a_step(rows, width, bias):
    torch.manual_seed(3)
    linear = torch.nn.Linear(width, 11, bias=bias)
    small = Int8Linear(linear)
    assert small.weight.dtype == torch.int8
    restored = small.weight * small.scale[:, None]
    step = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((restored - linear.weight).abs() <= step / 2 + 1e-7).all()
    x = torch.randn(rows, width)
    with torch.no_grad():
        exact = linear(x)
        # weights rounded by up to half a step, and activations, scale and sum to bf16 (2^-9 each)
        bound = x.abs() @ (step / 2).expand(11, width).T + 3 * 2**-9 * (x.abs() @ linear.weight.abs().T) + 1e-3
        assert ((small(x) - exact).abs() <= bound).all()
        assert (small(x) - exact).abs().max() > 0  # it is rounded


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_a_model_in_int8_computes_nearly_the_same_and_the_original_is_untouched(family):
    torch.manual_seed(5)
    model = Decoder(
        ModelConfig.make(family=family, vocab_size=13, block_size=19, n_layer=2, n_head=3, n_embd=24)
    ).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = int8_copy(model)
    ids = torch.arange(38).view(2, 19) % 13
    with torch.no_grad():
        exact, near = model(ids).log_softmax(-1), small(ids).log_softmax(-1)
        cache = small.new_cache(2)
        pieces = torch.cat([small(ids[:, t : t + 1], cache=cache) for t in range(19)], dim=1).log_softmax(-1)
    assert 0 < (exact - near).abs().max() < 0.02
    assert (exact - pieces).abs().max() < 0.02
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, Int8Linear) for module in model.modules())
