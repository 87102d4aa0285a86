"""What every kind of positions must keep up in a whole decoder, and that the tests of it would notice.

Four checks: the explicit path equals the fused one, pieces with a cache equal the whole, the future never leaks, and a
cache goes on after rewinding, reordering and forking. Each is run on sound models, and then on models in which a
mistake is planted that is easily made: there the very same check must fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from toys import toy_ids, toy_model

from glassformer.layers import POSITIONS, Attention, Causal, KVCache, Mask, Positions, attention
from glassformer.models import Decoder

T = 7
KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"positions": kind} for kind in POSITIONS},
    "classic": {"family": "classic"},
    "n-grams": {"positions": "rotary", "n_gram": 4, "n_gram_rows": 5000},
    "rotary, in part": {"positions": "rotary", "rotary_fraction": 0.4},
    "rotary, scaled": {
        "positions": "rotary",
        "rotary_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
    },
    "rotary, another base in windows": {"positions": "rotary", "rotary_base_local": 7.0},
    "rotary, not in every layer": {"positions": "rotary", "positioned_layers": (True, False)},
    "rotary, layers side by side": {"positions": "rotary", "parallel": True, "bias": True, "out_bias": False},
    "rotary, norms on what is written": {"positions": "rotary", "norm_place": "output", "qk_norm_over": "all"},
    "rotary, clamped experts": {
        "positions": "rotary",
        "feedforward": "clamped",
        "feedforward_limit": 0.7,
        "activation": "quick_gelu",
        "n_expert": 3,
        "router_bias": True,
        "expert_shares": "all",
        "attention_sinks": True,
        "bias": True,
    },
}
SPEAKING = [kind for kind in KINDS if kind != "none"]
PATTERNS = {"causal": None, "window and causal by turns": ("window(3)", "causal")}


def toy(kind: str, patterns: tuple[str, ...] | None = None) -> Decoder:
    """Few buckets, so that seven tokens meet all of them."""
    fields = {"family": "modern", "relative_buckets": 5, "relative_max_distance": 6, "rotary_base": 50.0, **KINDS[kind]}
    return toy_model(**fields, patterns=patterns)


def same(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def explicit_equals_fused(model: Decoder) -> None:
    """Logits, and the gradients of all that is learned."""
    ids, logits, gradients = toy_ids(2, T), [], []
    with pytest.MonkeyPatch.context() as patch:
        for longest in (T, 0):  # up to so many keys attention is written out
            patch.setattr(attention, "EAGER_MAX_KEYS", longest)
            logits.append(model(ids))
            ways = torch.linspace(-1, 1, logits[-1].numel()).view_as(logits[-1])
            loss = (logits[-1] * ways).mean()
            gradients.append(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))
    same(*logits)
    for explicit, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(explicit, fused, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def pieces_equal_the_whole(model: Decoder) -> None:
    ids = toy_ids(2, T)
    whole = model(ids)
    for pieces in ((3, 4), (1,) * T, (5, 1, 1)):
        cache = model.new_cache(batch_size=2)
        same(torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1), whole)


@torch.no_grad()
def the_future_never_leaks(model: Decoder) -> None:
    """Neither by what the tokens to come are (bit for bit), nor by how many there are."""
    ids = toy_ids(2, T)
    logits = model(ids)
    for t in range(T):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 61
        others = model(changed)
        assert torch.equal(others[:, :t], logits[:, :t])
        assert (others[:, t] - logits[:, t]).abs().max() > 1e-3
        same(model(ids[:, : t + 1]), logits[:, : t + 1])


@torch.no_grad()
def a_cache_goes_on(model: Decoder) -> None:
    """After a wrong turn is taken back, rows changed places, and each row went two ways."""
    ids, wrong = toy_ids(2, T), toy_ids(2, 2, seed=9)
    whole, cache = model(ids), model.new_cache(batch_size=2)
    model(ids[:, :4], cache=cache)
    model(wrong, cache=cache)
    cache.rewind(4)
    twice = cache.fork(2)
    same(model(ids[:, 4:], cache=cache), whole[:, 4:])
    same(model(ids[:, 4:].repeat_interleave(2, dim=0), cache=twice), whole[:, 4:].repeat_interleave(2, dim=0))
    cache.rewind(5)
    cache.reorder(torch.tensor([1, 0]))
    same(model(ids[[1, 0], 5:], cache=cache), whole[[1, 0], 5:])


CHECKS = (explicit_equals_fused, pieces_equal_the_whole, the_future_never_leaks, a_cache_goes_on)


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_sound_models_pass(path: str, check: Callable[[Decoder], None], kind: str, patterns: str, monkeypatch):
    monkeypatch.setattr(attention, "EAGER_MAX_KEYS", 64 if path == "explicit" else 0)
    check(toy(kind, PATTERNS[patterns]))


class Moved(Positions):
    """Positions that stand elsewhere than they are told."""

    def __init__(self, inner: Positions, move: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner, self.move = inner, move

    def add(self, x_BTC, pos):
        return self.inner.add(x_BTC, self.move(pos))

    def rotate(self, q_BHTD, k_BKTD, pos):
        return self.inner.rotate(q_BHTD, k_BKTD, self.move(pos))

    def bias(self, pos_q, pos_k):
        return self.inner.bias(self.move(pos_q), pos_k)


class Ahead(Mask):
    """Causal, and one more."""

    def mask_mod(self, b, h, q, k):
        return k <= q + 1


class ForgetsTheOffset(Mask):
    """Causal, with queries counted from the first of their piece."""

    def mask_mod(self, b, h, q, k):
        return k <= q - q.min()


class LateCache(KVCache):
    """Hands out what was there before the new rows were written."""

    def append(self, layer, k_BKTD, v_BKTD):
        before = self.keys[layer].clone(), self.values[layer].clone()
        keys, values = super().append(layer, k_BKTD, v_BKTD)
        return (
            (keys, values) if self.length == 0 else (before[0][:, :, : keys.shape[2]], before[1][:, :, : keys.shape[2]])
        )


class DisplacedCache(KVCache):
    """Writes values one row further down than keys."""

    def append(self, layer, k_BKTD, v_BKTD):
        keys, values = super().append(layer, k_BKTD, v_BKTD)
        return keys, values.roll(1, dims=2)


class HalfReorderedCache(KVCache):
    """Moves keys and forgets to move values."""

    def reorder(self, rows):
        values = self.values.clone()
        super().reorder(rows)
        self.values = values


class FirstRowCache(KVCache):
    """Forks keys of the first row, whichever row goes on."""

    def fork(self, n=1):
        twin = super().fork(n)
        twin.keys[:, :] = self.keys[:, :1]
        return twin


def move(how: Callable[[Tensor], Tensor]) -> Callable[[Decoder, pytest.MonkeyPatch], None]:
    def plant(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        model.positions = Moved(model.positions, how)

    return plant


def see(*patterns: Mask) -> Callable[[Decoder, pytest.MonkeyPatch], None]:
    def plant(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        model.masks = list(patterns)

    return plant


def remember(kind: type[KVCache]) -> Callable[[Decoder, pytest.MonkeyPatch], None]:
    def plant(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        def new_cache(**sizes: Any) -> KVCache:
            cache = Decoder.new_cache(model, **sizes)
            cache.__class__ = kind
            return cache

        monkeypatch.setattr(model, "new_cache", new_cache)

    return plant


def fuse(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Decoder, pytest.MonkeyPatch], None]:
    """The fused path with another mask and bias than it was given."""

    def plant(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        right = Attention._fused
        wrong = lambda self, q, k, v, mask, bias: right(self, q, k, v, *change(mask, bias))  # noqa: E731
        monkeypatch.setattr(Attention, "_fused", wrong)

    return plant


class Bug(NamedTuple):
    """A mistake, the check that finds it, and the kinds of positions in which it is one."""

    plant: Callable[[Decoder, pytest.MonkeyPatch], None]
    check: Callable[[Decoder], None]
    kinds: Iterable[str] = tuple(KINDS)


BUGS = {
    "leak: one token ahead": Bug(see(Ahead(), Ahead()), the_future_never_leaks),
    "leak: one token ahead in the last layer": Bug(see(Causal(), Ahead()), the_future_never_leaks),
    "leak: positions counted from the end": Bug(
        move(lambda pos: pos[..., -1:] - pos), the_future_never_leaks, ["learned", "sinusoidal"]
    ),
    "offset: positions begin again with each piece": Bug(
        move(lambda pos: pos - pos[..., :1]), pieces_equal_the_whole, SPEAKING
    ),
    # the softmax does not feel what all keys lose alike, so to ALiBi this one is no mistake
    "offset: positions one too far after the first piece": Bug(
        move(lambda pos: pos + (pos[..., :1] > 0)), pieces_equal_the_whole, [k for k in SPEAKING if k != "alibi"]
    ),
    "offset: the mask begins anew with each piece": Bug(
        see(ForgetsTheOffset(), ForgetsTheOffset()), pieces_equal_the_whole
    ),
    "cache: the newest rows are missing": Bug(remember(LateCache), pieces_equal_the_whole),
    "cache: values one row from their keys": Bug(remember(DisplacedCache), pieces_equal_the_whole),
    "cache: half reordered": Bug(remember(HalfReorderedCache), a_cache_goes_on),
    "cache: all forks come from the first row": Bug(remember(FirstRowCache), a_cache_goes_on),
    "paths: the fused one has no bias": Bug(
        fuse(lambda mask, bias: (mask, None)), explicit_equals_fused, ["alibi", "relative"]
    ),
    "paths: the fused one does not teach the bias": Bug(
        fuse(lambda mask, bias: (mask, bias.detach())), explicit_equals_fused, ["relative"]
    ),
    "paths: the fused one has no mask": Bug(fuse(lambda mask, bias: (None, bias)), explicit_equals_fused),
}
PLANTED = [(bug, kind) for bug in BUGS for kind in BUGS[bug].kinds]


@pytest.mark.parametrize(("name", "kind"), PLANTED, ids=[f"{kind}-{bug}" for bug, kind in PLANTED])
def test_a_planted_mistake_is_found(name: str, kind: str, monkeypatch):
    """By the check that is about it; the model passed it before."""
    bug, model = BUGS[name], toy(kind)
    bug.check(model)
    bug.plant(model, monkeypatch)
    with pytest.raises(AssertionError):
        bug.check(model)
