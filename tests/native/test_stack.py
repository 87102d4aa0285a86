"""All blocks in one compiled call: what `layers/` computes, for every part that is known, and the rest as before."""

from __future__ import annotations

import copy

import pytest
import torch
from skips import NEEDS_COMPILER

from glassformer.errors import DeviceError, UsageError
from glassformer.generation import Engine, Request, Sampling
from glassformer.hub.loading import as_dtype
from glassformer.models import Decoder, ModelConfig
from glassformer.native import QuantizedLinear, library, quantized, quantized_copy, stack
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.taps import listening

pytestmark = pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)
BLOCK_SIZE = 40
KINDS = {
    "classic": {"family": "classic"},
    "classic, exact GELU": {"family": "classic", "activation": "gelu"},
    "squared ReLU": {"family": "classic", "activation": "relu2", "bias": False},
    "sinusoids": {"family": "classic", "positions": "sinusoidal", "activation": "relu"},
    "modern": {"family": "modern"},
    "grouped, qk-norm": {"family": "modern", "n_kv_head": 1, "qk_norm": True},
    "biases of queries, keys and values": {"family": "modern", "qkv_bias": True},
    "some channels turn": {"family": "modern", "rotary_fraction": 0.5},
    "no positions": {"family": "modern", "positions": "none"},
    "n-grams and a window": {"family": "modern", "n_gram": 3, "patterns": ("window(5) & causal", "causal")},
    "gemma": {
        "family": "modern",
        "norm": "zero_centered_rmsnorm",
        "norm_place": "sandwich",
        "activation": "gelu_new",
        "patterns": ("window(7)", "causal"),
        "rotary_base_local": 100.0,
        "qk_norm": True,
        "n_kv_head": 1,
        "head_width": 64,
        "embedding_scale": 8.0,
    },
}
OTHERS = {
    "alibi": {"positions": "alibi"},
    "sinks": {"attention_sinks": True},
    "soft-capped scores": {"attention_softcap": 20.0},
    "narrow heads": {"n_head": 4},
    "experts": {"n_expert": 2, "n_expert_active": 1},
    "post-norm": {"norm_place": "post"},
    "norms on what is written": {"norm_place": "output"},
    "side by side": {"parallel": True},
    "norms over all heads": {"qk_norm": True, "qk_norm_over": "all"},
    "a layer without positions": {"positioned_layers": (True, False)},
    "clamped": {"feedforward": "clamped"},
    "window and sinks": {"patterns": ("window(3) | sinks(1)",)},
}


def toy(**fields) -> Decoder:
    torch.manual_seed(5)
    fields = {"family": "modern", **fields}
    config = ModelConfig.make(
        **{"vocab_size": 30, "block_size": BLOCK_SIZE, "n_layer": 2, "n_head": 2, "n_embd": 64, **fields}
    )
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def cached(model: Decoder, ids: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    """Logits of one row, read in pieces of these lengths."""
    cache = model.new_row_cache(1, BLOCK_SIZE)
    cache.resize(1, BLOCK_SIZE)
    with torch.inference_mode():
        return torch.cat([model(piece[None], cache=cache.rows(0, 1))[0] for piece in ids.split(pieces)])


IDS = torch.arange(BLOCK_SIZE) * 7 % 30


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_the_layers(kind, bits):
    small = quantized_copy(toy(**KINDS[kind]), bits)
    assert small.native is not None
    fast = cached(small, IDS, [17, 1, 1, 12, *[1] * 9])
    small.native = None
    slow = cached(small, IDS, [17, 1, 1, 12, *[1] * 9])
    # both round their inputs to 8 bits, and a sum that ends a little otherwise may round the other way
    assert (fast - slow).abs().max() < 0.02 * slow.abs().max()
    assert (fast - slow).norm() < 0.01 * slow.norm()


@pytest.mark.parametrize("kind", ["gemma", "n-grams and a window", "classic"])
def test_a_slip_would_be_seen(kind):
    """A position off by one, or a window, is further off than rounding."""
    small = quantized_copy(toy(**KINDS[kind]), 8)
    right = cached(small, IDS, [BLOCK_SIZE])
    layers = small.native.stack.layers
    layers[0].window = 3
    assert (cached(small, IDS, [BLOCK_SIZE]) - right).norm() > 0.02 * right.norm()


@pytest.mark.parametrize("kind", ["gemma", "grouped, qk-norm", "classic", "n-grams and a window"])
def test_pieces_and_batches_change_nothing_at_all(kind):
    small = quantized_copy(toy(**KINDS[kind]), 4)
    whole = cached(small, IDS, [BLOCK_SIZE])
    assert torch.equal(cached(small, IDS, [9, 1, 30]), whole)
    cache = small.new_row_cache(5, 5 * BLOCK_SIZE)
    cache.resize(5, BLOCK_SIZE)
    lengths = [3, 39, 17, 8, 25]
    with torch.inference_mode():
        for row, length in enumerate(lengths):
            small(IDS[None, :length], cache=cache.rows(row, row + 1))
        batched = small(IDS[lengths][:, None], cache=cache.rows(0, 5))
    assert torch.equal(batched[:, 0], whole[lengths])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["gemma", "grouped, qk-norm", "classic"])
def test_the_number_of_threads_changes_nothing_at_all(kind, bits, monkeypatch):
    """So it may follow what others do on the machine (`threads.kernel_threads`)."""
    small, seen = quantized_copy(toy(**KINDS[kind]), bits), []
    for number in (1, 2, 3):
        for module in (stack, quantized):
            monkeypatch.setattr(module, "kernel_threads", lambda number=number: number)
        seen.append(cached(small, IDS, [17, 1, 1, 12, *[1] * 9]))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_and_head_in_the_same_call_change_nothing_at_all(kind):
    small = quantized_copy(toy(**KINDS[kind]), 8)
    assert small.native.whole == (kind not in ("sinusoids", "n-grams and a window"))
    caches = [small.new_row_cache(3, 3 * BLOCK_SIZE) for _ in range(2)]
    lengths = [3, 20, 11]
    for cache in caches:
        cache.resize(3, BLOCK_SIZE)
    with torch.inference_mode():
        for row, length in enumerate(lengths):
            a, b = (cache.rows(row, row + 1) for cache in caches)
            assert torch.equal(
                small(IDS[None, :length], cache=a), small.logits(small.hidden(IDS[None, :length], cache=b))
            )
        a, b = (cache.rows(0, 3) for cache in caches)
        ids = IDS[lengths][:, None]
        assert torch.equal(small(ids, cache=a), small.logits(small.hidden(ids, cache=b)))
    for name in ("keys", "values", "tokens", "lengths"):
        held, expected = (torch.as_tensor(getattr(cache, name)) for cache in caches)
        assert torch.equal(held, expected), name


@pytest.mark.parametrize("fields", [{"logit_scale": 0.5}, {"logit_softcap": 3.0}, {"embedding_norm": True}])
def test_more_than_a_table_and_a_matrix_is_left_to_the_model(fields):
    model = toy(**fields)
    small = quantized_copy(model, 8)
    assert small.native is not None and not small.native.whole
    exact = cached(model, IDS, [BLOCK_SIZE])
    assert (cached(small, IDS, [30, 10]) - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("kind", OTHERS)
def test_parts_that_are_not_known_run_as_before(kind):
    model = toy(**OTHERS[kind])
    small = quantized_copy(model, 8)
    assert small.native is None and any(isinstance(module, QuantizedLinear) for module in small.modules())
    exact = cached(model, IDS, [BLOCK_SIZE])
    assert (cached(small, IDS, [30, 10]) - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("copied", [False, True])
def test_who_listens_hears_every_tensor(copied):
    small = quantized_copy(toy(), 8)
    small = copy.deepcopy(small) if copied else small
    heard = []
    for pattern in ("blocks.*.residual.after", "embedding.token", "final.norm", "logits"):
        cache = small.new_row_cache(1, BLOCK_SIZE)
        cache.resize(1, BLOCK_SIZE)
        with torch.inference_mode(), listening(small, pattern, lambda name, x: heard.append(name)):
            small(IDS[None, :5], cache=cache.rows(0, 1))
    assert heard == ["blocks.0.residual.after", "blocks.1.residual.after", "embedding.token", "final.norm", "logits"]


def test_nothing_is_written_beyond_the_cache():
    small = quantized_copy(toy(), 8)
    cache = small.new_row_cache(2, 2 * BLOCK_SIZE)
    cache.resize(2, 1)
    cache.keys = cache.keys[:, :, :, :6].contiguous()
    with torch.inference_mode(), pytest.raises(UsageError, match="position 6 is beyond the 6"):
        small(IDS[None, :7], cache=cache.rows(0, 1))
    with torch.inference_mode(), pytest.raises(UsageError, match="token 30 is not in the vocabulary"):
        small(torch.tensor([[3, 30]]), cache=cache.rows(0, 1))


def test_copies_and_the_original():
    model = toy(tied_head=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = quantized_copy(model, 8)
    expected = cached(small, IDS, [BLOCK_SIZE])
    twin = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    del model
    assert torch.equal(cached(small, IDS, [BLOCK_SIZE]), expected)
    del small
    assert torch.equal(cached(twin, IDS, [BLOCK_SIZE]), expected)
    assert all(tensor.abs().sum() > 0 for name, tensor in before.items() if name.endswith("weight"))


def test_requests_get_the_same_alone_and_in_a_batch():
    tokenizer = TOKENIZERS["characters"](["abcdefghijklmnopqrstuvwxyz .,\n"])
    small = quantized_copy(toy(vocab_size=tokenizer.vocab_size), 8)
    requests = [Request(tuple(range(n)), max_new_tokens=20, sampling=Sampling(seed=n)) for n in (1, 3, 5, 7)]

    def generated(*asked: Request) -> list[list[int]]:
        engine = Engine(small, tokenizer)
        found: dict[int, list[int]] = {engine.submit(request): [] for request in asked}
        while engine.busy:
            for event in engine.step():
                found[event.request].append(event.piece.token)
        return list(found.values())

    assert generated(*requests) == [generated(request)[0] for request in requests]


def test_number_formats(monkeypatch):
    model = toy()
    assert as_dtype(model, "auto").native is not None and as_dtype(model, "fp32") is model
    for wrong, text in (("int3", "dtype='int3' is unknown; use auto, fp32, bf16, int8 or int4"), ("", "use auto")):
        with pytest.raises(UsageError, match=text):
            as_dtype(model, wrong)
    with pytest.raises(UsageError, match="bits=5 is unknown; use 8 or 4"):
        quantized_copy(model, 5)
    monkeypatch.setattr("glassformer.hub.loading.library", lambda: None)
    assert as_dtype(model, "auto") is model
    assert type(as_dtype(model, "int8").head).__name__ == "Int8Linear"
    monkeypatch.setattr("glassformer.native.quantized.library", lambda: None)
    with pytest.raises(DeviceError, match="use --dtype int8 or fp32"):
        as_dtype(model, "int4")
