"""The language models that came before, as models of this package: the calls of `Decoder`, and what it promises."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from toys import shaken, toy_ids

from glassformer.errors import UsageError
from glassformer.history import HistoryModel, build_history
from glassformer.taps import listening

V = 61
SHAPES = {
    "n-gram": {"n_gram": 4},
    "bigram": {},
    "mlp": {"context": 3, "n_embd": 5, "n_hidden": 17},
    "rnn": {"n_layer": 2, "n_embd": 5, "n_hidden": 11},
    "gru": {"n_layer": 2, "n_embd": 5, "n_hidden": 11},
    "lstm": {"n_layer": 2, "n_embd": 5, "n_hidden": 11},
    "lstm-attention": {"n_layer": 2, "n_embd": 5, "n_hidden": 11},
}
REACH = {"n-gram": 3, "bigram": 1, "mlp": 3}  # how many tokens each looks at; the others at all
KIND = pytest.mark.parametrize("kind", SHAPES)
TRAINED = pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind != "n-gram"])


def toy(kind: str, **changes) -> HistoryModel:
    model = build_history(kind, vocab_size=V, block_size=13, **{**SHAPES[kind], **changes})
    if kind == "n-gram":
        return model.fit(toy_ids(199, vocab_size=5)).eval()
    return shaken(model).eval()


def toy_text(*shape: int, seed: int = 0) -> torch.Tensor:
    return toy_ids(*shape, vocab_size=5, seed=seed)  # few tokens, so that the counts know the runs


@KIND
@torch.no_grad()
def test_the_future_never_changes_the_past_and_the_past_reaches_as_far_as_stated(kind: str):
    model, ids = toy(kind), toy_text(2, 7)
    logits = model(ids)
    assert logits.shape == (2, 7, V)
    for t in range(7):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 5
        difference = (model(changed) - logits).abs().amax(dim=(0, 2))
        last = min(7, t + REACH.get(kind, 7))
        assert not difference[:t].any()
        assert difference[t:last].min() > 1e-4
        assert not difference[last:].any()


@KIND
@pytest.mark.parametrize("pieces", [(7,), (3, 4), (1,) * 7, (5, 1, 1)], ids=str)
@torch.no_grad()
def test_with_a_cache_in_pieces_equals_the_whole(kind: str, pieces: tuple[int, ...]):
    model, ids = toy(kind), toy_text(2, 7)
    cache = model.new_cache(batch_size=2)
    got = [model(piece, cache=cache) for piece in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(got, dim=1), model(ids), rtol=1e-4, atol=1e-4)
    assert len(cache) == 7


@TRAINED
def test_every_parameter_is_used(kind: str):
    model = toy(kind)
    ids = toy_ids(20, 13)  # with every token of the vocabulary in it
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@TRAINED
@pytest.mark.parametrize("init", ["own", "gpt2", "unit", "xavier"])
@torch.no_grad()
def test_a_fresh_model_has_no_opinion(kind: str, init: str):
    """Its loss is that of a guess among V: ln 61 = 4.11 nats. And its weights are drawn, not left over."""
    torch.manual_seed(0)
    model, ids = toy(kind), toy_ids(8, 13)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.init_weights(init)
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []
    if init != "xavier" and (kind, init) != ("bigram", "unit"):  # those give a head some size
        assert abs(F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()) - math.log(V)) < 0.05


@torch.no_grad()
def test_the_own_initialisation_keeps_states_alive():
    """What goes from one moment to the next is orthogonal gate by gate, and an LSTM begins by remembering."""
    for kind, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        cell = build_history(kind, vocab_size=V, block_size=13, n_layer=2, n_embd=5, n_hidden=11).cell
        for layer in range(2):
            for gate in getattr(cell, f"weight_hh_l{layer}").split(11):
                torch.testing.assert_close(gate @ gate.T, torch.eye(11), rtol=1e-5, atol=1e-5)
            bias = getattr(cell, f"bias_ih_l{layer}").view(gates, 11)[:, 0].tolist()
            assert bias == ([0, 1, 0, 0] if kind == "lstm" else [0] * gates)
            assert not getattr(cell, f"bias_hh_l{layer}").any()


@pytest.mark.parametrize("kind", ["mlp", "rnn", "gru", "lstm"])
def test_dropout_works_in_training_only(kind: str):
    model, ids = toy(kind), toy_text(2, 7)
    still = model(ids)
    model.set_dropout(0.5)
    assert {m.dropout for m in model.modules() if hasattr(m, "dropout")} == {0.5}
    assert torch.equal(model(ids), still)
    model.train()
    assert not torch.equal(model(ids), model(ids))
    model.set_dropout(0.0)
    torch.testing.assert_close(model(ids), still)


@torch.no_grad()
def test_the_direct_connections_of_the_mlp_are_added():
    """The paper's b + W x + U tanh(d + H x), eq. 1, written out for one place."""
    model, ids = toy("mlp", direct=True), toy_ids(1, 7)
    table, up, head, direct = model.embedding.weight, model.up, model.head, model.direct
    x = torch.cat([table[ids[0, t]] for t in (2, 3, 4)])
    expected = head.bias + direct.weight @ x + head.weight @ torch.tanh(up.bias + up.weight @ x)
    torch.testing.assert_close(model(ids)[0, 4], expected, rtol=1e-4, atol=1e-4)
    start = torch.cat([table[V], table[V], table[ids[0, 0]]])  # two places before the text
    expected = head.bias + direct.weight @ start + head.weight @ torch.tanh(up.bias + up.weight @ start)
    torch.testing.assert_close(model(ids)[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_operations_are_counted_by_hand():
    """2 for each weight of a matrix; training is three times the forward pass."""
    assert toy("mlp").flops_per_token() == (2 * (15 * 17 + 17 * V), 6 * (15 * 17 + 17 * V))
    lstm = 4 * (11 * 5 + 11 * 11) + 4 * (11 * 11 + 11 * 11) + 11 * V
    assert toy("lstm").flops_per_token() == (2 * lstm, 6 * lstm)
    assert toy("bigram").flops_per_token() == (2 * V, 6 * V)
    assert toy("n-gram").flops_per_token() == (2 * 4 * V, 4)


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        ("ltsm", {}, "model.kind='ltsm' is unknown; did you mean lstm?"),
        ("lstm", {"n_embed": 8}, "model.n_embd is missing; give it a value"),
        ("lstm", {"n_embd": 8, "n_head": 2}, "unknown key model.n_head; did you mean n_embd?"),
        ("gru", {"n_embd": 8, "n_layer": 0}, "model.n_layer=0 is too small; use 1 or more"),
        ("n-gram", {"n_gram": 65}, "model.n_gram=65 is too large; use 64 or less"),
    ],
)
def test_mistakes_are_one_line(kind: str, fields: dict, line: str):
    with pytest.raises(UsageError) as caught:
        build_history(kind, vocab_size=61, block_size=13, **fields)
    assert str(caught.value) == line


@KIND
@torch.no_grad()
def test_a_cache_is_rewound_forked_and_reordered(kind: str):
    model, ids, more = toy(kind), toy_text(3, 9), toy_text(4, 3, seed=4)
    cache = model.new_cache(batch_size=3)
    model(ids[:, :5], cache=cache)
    twin = cache.fork(2)  # rows 0 0 1 1 2 2
    model(toy_text(3, 3, seed=9), cache=cache)  # a wrong turn, which the fork does not take
    cache.rewind(5)
    torch.testing.assert_close(model(ids[:, 5:], cache=cache), model(ids)[:, 5:], rtol=1e-4, atol=1e-4)
    cache.rewind(0)
    torch.testing.assert_close(model(ids, cache=cache), model(ids), rtol=1e-4, atol=1e-4)
    twin.reorder(torch.tensor([1, 4, 5, 3]))
    whole = model(torch.cat((ids[[0, 2, 2, 1], :5], more), dim=1))[:, 5:]
    torch.testing.assert_close(model(more, cache=twin), whole, rtol=1e-4, atol=1e-4)


@KIND
@torch.no_grad()
def test_a_cache_has_an_end_and_the_logits_a_tap(kind: str):
    model, heard = toy(kind), {}
    cache = model.new_cache(capacity=5)
    assert (len(cache), cache.capacity, bool(cache)) == (0, 5, True)
    with listening(model, "logits", lambda name, x: heard.update({name: x})):
        assert torch.equal(model(toy_text(1, 4), cache=cache), heard["logits"])
    with pytest.raises(UsageError, match="5 positions and 6 are asked for; rewind it or make a larger one"):
        model(toy_text(1, 2), cache=cache)
    assert "(4/5 positions, 1 sequences)" in repr(cache)
    with pytest.raises(UsageError, match="cannot rewind a cache of 4 positions to 5"):
        cache.rewind(5)
    with pytest.raises(UsageError, match=r"init='gpt' is unknown; did you mean gpt2\?"):
        toy("gru").init_weights("gpt")
