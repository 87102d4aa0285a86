"""Our optimizers against PyTorch's, against a singular value decomposition, and against what they promise."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.fsdp

from glassformer.errors import RunError, UsageError
from glassformer.layers import Block
from glassformer.models import Decoder, EncoderDecoder, EncoderDecoderConfig, ModelConfig
from glassformer.training.optimizers import OPTIMIZERS, SGD, Adagrad, AdamW, Muon, build_optimizer
from glassformer.training.optimizers import muon as home
from glassformer.training.optimizers.muon import orthogonalise

SETTINGS = {"learning_rate": 1e-2, "matrix_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1}


def small_model(family: str = "modern") -> Decoder:
    torch.manual_seed(7)
    return Decoder(ModelConfig.make(family=family, vocab_size=13, block_size=7, n_layer=2, n_head=3, n_embd=18))


def backward(model: Decoder) -> None:
    ids = torch.arange(14).view(2, 7) % 13
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()


def pytorchs(kind: str, model: Decoder, options: dict) -> torch.optim.Optimizer:
    """The same optimizer of PyTorch; decay on matrices only."""
    if kind == "adagrad":
        return torch.optim.Adagrad(
            model.parameters(), initial_accumulator_value=options["start"], eps=1e-12, foreach=False
        )
    decay = options["weight_decay"]
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    if kind == "adamw":
        return torch.optim.AdamW(groups, betas=(0.9, 0.97))
    return torch.optim.SGD(groups, momentum=options["momentum"], nesterov=options["nesterov"])


@pytest.mark.parametrize(
    ("kind", "learning_rate", "options"),
    [
        ("adamw", 3e-3, {"weight_decay": 0.3, "betas": (0.9, 0.97)}),
        ("adagrad", 0.03, {"start": 1e-4}),
        ("adagrad", 0.03, {"start": 4e-10}),  # from 0 on, rounding errors of zero gradients would be blown up
        *(
            ("sgd", 0.3, {"momentum": momentum, "weight_decay": decay, "nesterov": nesterov})
            for momentum, decay, nesterov in ((0.0, 0.0, False), (0.9, 0.3, False), (0.8, 0.1, True), (0.0, 0.2, False))
        ),
    ],
)
def test_five_steps_are_pytorchs(kind, learning_rate, options):
    """With a rate that changes, in double precision: the gradient of a key's bias is zero but for rounding."""
    ours, theirs = small_model("classic").double(), small_model("classic").double()
    optimizer = {"adamw": AdamW, "adagrad": Adagrad, "sgd": SGD}[kind](
        dict(ours.named_parameters()), learning_rate=learning_rate, **options
    )
    reference = pytorchs(kind, theirs, options)
    for step in range(5):
        for model in (ours, theirs):
            model.zero_grad()
            backward(model)
        for group in reference.param_groups:
            group["lr"] = learning_rate * (step + 1) / 5
        optimizer.step(factor=(step + 1) / 5)
        reference.step()
    tolerance = {"rtol": 1e-7, "atol": 1e-9} if kind == "adagrad" else {"rtol": 1e-9, "atol": 1e-12}
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, **tolerance, msg=name)
    moved = zip(ours.parameters(), small_model("classic").double().parameters(), strict=True)
    assert any((p - q).abs().max() > 1e-3 for p, q in moved)


def test_sgd_keeps_one_number_a_parameter_and_none_without_momentum():
    ours = small_model()
    state = build_optimizer("sgd", ours, **SETTINGS, momentum=0.9).state_dict()
    assert {name.removeprefix("sgd.velocity.") for name in state} == dict(ours.named_parameters()).keys()
    assert build_optimizer("sgd", ours, **SETTINGS, momentum=0.0).state_dict() == {}


@pytest.mark.parametrize("shape", [(3, 7, 7), (2, 5, 11), (2, 11, 5)])
def test_newton_schulz_comes_near_the_svd(shape):
    torch.manual_seed(1)
    x = torch.randn(shape)
    y = orthogonalise(x, 5)
    for matrix, made in zip(x, y, strict=True):
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.3 and values.max() < 1.3  # all directions of nearly one length ...
        u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
        true = u @ vt  # x = U S V^T with every singular value set to 1
        cosine = (true * made).sum() / true.norm() / made.norm()
        assert cosine > 0.95  # ... and the same directions


@pytest.mark.parametrize("iterations", [0, 1, 3, 5])
@pytest.mark.parametrize("shape", [(3, 7, 7), (2, 5, 23), (2, 23, 5)])
def test_the_two_orders_of_the_products_are_one_function(monkeypatch, shape, iterations):
    torch.manual_seed(2)
    x, made = torch.randn(shape, dtype=torch.float64), {}
    for limit in (0.0, 1e9):  # always and never by the squares
        monkeypatch.setattr(home, "LONG", limit)
        made[limit] = orthogonalise(x, iterations)
    torch.testing.assert_close(*made.values(), rtol=1e-10, atol=1e-10)


def test_squares_do_not_drown_small_singular_values(monkeypatch):
    """In fp32, with singular values down to 1e-8: squared they are far below what 1 + x can hold."""
    torch.manual_seed(3)
    u, v = (torch.linalg.qr(torch.randn(n, 19, dtype=torch.float64))[0] for n in (19, 47))
    x = ((u * torch.logspace(0, -8, 19)) @ v.T).unsqueeze(0)
    monkeypatch.setattr(home, "LONG", 0.0)
    torch.testing.assert_close(orthogonalise(x.float(), 3).double(), orthogonalise(x, 3), rtol=0, atol=1e-4)


def plain_muon_update(p_RC, grad_RC, mean_RC, *, learning_rate, momentum, weight_decay):
    """Muon's update of one matrix, written out: (parameter, momentum) afterwards; nothing is changed in place."""
    R, C = p_RC.shape
    mean_RC = momentum * mean_RC + (1 - momentum) * grad_RC
    ahead_RC = momentum * mean_RC + (1 - momentum) * grad_RC
    update_RC = max(1.0, R / C) ** 0.5 * orthogonalise(ahead_RC.unsqueeze(0)).squeeze(0)
    return (1 - learning_rate * weight_decay) * p_RC - learning_rate * update_RC, mean_RC


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_muon_is_its_readable_twin(weight_decay):
    """Batched over matrices of one shape, in place, against one matrix after the other; four steps."""
    torch.manual_seed(4)
    shapes = {"a": (5, 11), "b": (11, 5), "c": (5, 11), "d": (7, 7)}
    settings = {"learning_rate": 0.1, "momentum": 0.8, "weight_decay": weight_decay}
    parameters = {n: torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for n, s in shapes.items()}
    twins = {n: (p.detach().clone(), torch.zeros_like(p)) for n, p in parameters.items()}
    muon = Muon(parameters, {}, **settings)
    for _ in range(4):
        for name, p in parameters.items():
            p.grad = torch.randn_like(p)
            twins[name] = plain_muon_update(twins[name][0], p.grad, twins[name][1], **settings)
        muon.step()
    for name, (p, mean) in twins.items():
        torch.testing.assert_close(parameters[name].detach(), p, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(muon.state["mean"][name], mean, rtol=1e-12, atol=1e-12)


def test_muon_leaves_gradients_and_parameters_without_one_alone():
    torch.manual_seed(5)
    parameters = {n: torch.nn.Parameter(torch.randn(5, 11)) for n in "ab"}
    gradient, before = torch.randn(5, 11), parameters["b"].detach().clone()
    parameters["a"].grad = gradient.clone()
    Muon(parameters, {}, learning_rate=0.1).step()
    assert torch.equal(parameters["a"].grad, gradient) and torch.equal(parameters["b"], before)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_sharded_parameters_are_updated_like_whole_ones(kind):
    """`fully_shard` on a group of one rank: parameters, gradients and state are DTensors."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        plain, sharded = small_model(), small_model()
        for block in sharded.blocks:
            torch.distributed.fsdp.fully_shard(block, mesh=mesh)
        torch.distributed.fsdp.fully_shard(sharded, mesh=mesh)
        optimizers = [build_optimizer(kind, model, **SETTINGS) for model in (plain, sharded)]
        for step in range(3):
            for model, optimizer in zip((plain, sharded), optimizers, strict=True):
                model.zero_grad()
                backward(model)
                optimizer.step(factor=1 / (step + 1))
        for (name, p), q in zip(plain.named_parameters(), sharded.parameters(), strict=True):
            assert isinstance(q, torch.distributed.tensor.DTensor)
            torch.testing.assert_close(q.full_tensor(), p, msg=name)
    finally:
        torch.distributed.destroy_process_group()


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


def small_translator() -> EncoderDecoder:
    torch.manual_seed(7)
    sizes = {"vocab_size": 13, "block_size": 7, "n_layer": 2, "n_decoder_layer": 1, "n_head": 3, "n_embd": 18}
    return EncoderDecoder(EncoderDecoderConfig.make(family="modern", n_kv_head=1, start_token=1, end_token=2, **sizes))


@pytest.mark.parametrize("make", [small_model, small_translator])
def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(make):
    model = make()
    settings = {"learning_rate": 1e-3, "matrix_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.0}
    muon, adamw = build_optimizer("muon", model, **settings).parts
    inside = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, Block)
        for name, p in module.named_parameters()
        if p.dim() == 2
    }
    assert muon.parameters.keys() == inside
    assert {*muon.parameters, *adamw.parameters} == dict(model.named_parameters()).keys()
    with pytest.raises(UsageError, match="did you mean muon"):
        build_optimizer("muun", model, **settings)


def test_heads_that_listen_to_a_memory_are_matrices_of_their_own():
    groups = build_optimizer("muon", small_translator(), **SETTINGS).parts[0].groups
    name = "decoder.blocks.0.cross_attention"
    heads = [place for place in groups[6, 18] if place[0].startswith(name)]
    assert heads == [
        *((f"{name}.query.weight", start, start + 6) for start in (0, 6, 12)),
        *((f"{name}.key_value.weight", start, start + 6) for start in (0, 6)),
    ]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state_goes_through_a_table_of_tensors(kind):
    settings = SETTINGS
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
    with pytest.raises(RunError, match=f"no optimizer state {kind}"):
        other.load_state_dict({})
