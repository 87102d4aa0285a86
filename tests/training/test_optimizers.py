"""Our optimizers against PyTorch's, against a singular value decomposition, and against what they promise."""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import RunError, UsageError
from glassformer.models import Decoder, ModelConfig
from glassformer.training.optimizers import AdamW, Muon, build_optimizer, orthogonalise, orthogonalise_by_svd


def small_model(family: str = "modern") -> Decoder:
    torch.manual_seed(7)
    return Decoder(ModelConfig.make(family=family, vocab_size=13, block_size=7, n_layer=2, n_head=3, n_embd=18))


def backward(model: Decoder) -> None:
    ids = torch.arange(14).view(2, 7) % 13
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()


def test_adamw_is_pytorchs_with_decay_on_matrices_only():
    # in double precision: the gradient of a key's bias is zero but for rounding, which Adam would blow up
    ours, theirs = small_model("classic").double(), small_model("classic").double()
    optimizer = AdamW(dict(ours.named_parameters()), learning_rate=3e-3, betas=(0.9, 0.97), weight_decay=0.3)
    matrices = [p for p in theirs.parameters() if p.dim() >= 2]
    vectors = [p for p in theirs.parameters() if p.dim() < 2]
    assert vectors
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.97))
    for step in range(5):
        for model in (ours, theirs):
            model.zero_grad()
            backward(model)
        for group in reference.param_groups:
            group["lr"] = 3e-3 * (step + 1) / 5
        optimizer.step(factor=(step + 1) / 5)
        reference.step()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("shape", [(3, 7, 7), (2, 5, 11), (2, 11, 5)])
def test_newton_schulz_comes_near_the_svd(shape):
    torch.manual_seed(1)
    x = torch.randn(shape)
    y = orthogonalise(x, 5)
    for matrix, made in zip(x, y, strict=True):
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.3 and values.max() < 1.3  # all directions of nearly one length ...
        true = orthogonalise_by_svd(matrix)
        cosine = (true * made).sum() / true.norm() / made.norm()
        assert cosine > 0.95  # ... and the same directions


def test_muon_treats_joined_matrices_as_separate_ones():
    """Query, key and value lie in one parameter; the update must be what three parameters would get."""
    torch.manual_seed(3)
    joined = torch.nn.Parameter(torch.zeros(6 + 2 + 2, 5))
    parts = {name: torch.nn.Parameter(torch.zeros(n, 5)) for name, n in (("q", 6), ("k", 2), ("v", 2))}
    gradient = torch.randn(10, 5)
    joined.grad = gradient.clone()
    for p, g in zip(parts.values(), gradient.split((6, 2, 2)), strict=True):
        p.grad = g.clone()
    Muon({"qkv": joined}, {"qkv": (6, 2, 2)}, learning_rate=0.1).step()
    Muon(parts, {}, learning_rate=0.1).step()
    torch.testing.assert_close(joined, torch.cat(list(parts.values())))
    whole = torch.nn.Parameter(torch.zeros(10, 5))
    whole.grad = gradient.clone()
    Muon({"qkv": whole}, {}, learning_rate=0.1).step()
    assert not torch.allclose(whole, joined, atol=1e-3)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = small_model()
    settings = {"learning_rate": 1e-3, "matrix_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.0}
    muon, adamw = build_optimizer("muon", model, **settings).parts
    assert all(name.startswith("blocks.") and p.dim() == 2 for name, p in muon.parameters.items())
    assert {*muon.parameters, *adamw.parameters} == dict(model.named_parameters()).keys()
    assert "embedding.token.weight" in adamw.parameters
    with pytest.raises(UsageError, match="did you mean muon"):
        build_optimizer("muun", model, **settings)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_through_a_table_of_tensors(kind):
    settings = {"learning_rate": 1e-2, "matrix_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1}
    model = small_model()
    optimizer = build_optimizer(kind, model, **settings)
    backward(model)
    optimizer.step()
    twin = small_model()
    twin.load_state_dict(model.state_dict())
    other = build_optimizer(kind, twin, **settings)
    other.load_state_dict({name: tensor.clone() for name, tensor in optimizer.state_dict().items()})
    for m, o in ((model, optimizer), (twin, other)):
        m.zero_grad()
        backward(m)
        o.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(RunError, match="no optimizer state"):
        other.load_state_dict({})
