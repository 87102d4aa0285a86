"""Sequence to sequence without and with attention: against a plain loop, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_cells import STEPS
from toys import shaken, toy_ids

from glassformer.errors import UsageError
from glassformer.generation.beam import beam_search
from glassformer.history import Seq2Seq, build_history
from glassformer.taps import listening

KIND = pytest.mark.parametrize("kind", ["seq2seq", "seq2seq-attention"])
CELL = pytest.mark.parametrize("cell", ["gru", "lstm"])
LENGTHS = torch.tensor([5, 7, 1])


def toy(kind: str, **changes) -> Seq2Seq:
    fields = {"vocab_size": 61, "source_vocab_size": 53, "block_size": 13, "start_token": 2, "end_token": 3}
    model = build_history(kind, **{**fields, "n_layer": 2, "n_embd": 5, "n_hidden": 11, **changes})
    return shaken(model).eval()


def sources(*shape: int, seed: int = 0) -> torch.Tensor:
    return toy_ids(*shape, vocab_size=53, seed=seed)


def plain_layer(step, n_states: int, layer: torch.nn.RNNBase, name: str, inputs, state):
    """One layer in one direction over a list of (C,) vectors -> the states h after each, and the last state."""
    weights = [getattr(layer, f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state, seen = state or (torch.zeros(layer.hidden_size),) * n_states, []
    for x in inputs:
        state = step(x, state, *weights)
        seen.append(state[0])
    return seen, state


def plain_forward(model: Seq2Seq, source: list[int], target: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """One sentence without padding, token by token and word by word -> logits (T, V) and weights (T, S)."""
    step, n_states = STEPS[model.config.cell]
    L, H = model.config.n_layer, model.config.n_hidden
    h = [model.source_embedding.weight[token] for token in source]
    for layer in range(L):
        forward, _ = plain_layer(step, n_states, model.encoder, f"l{layer}", h, None)
        backward, _ = plain_layer(step, n_states, model.encoder, f"l{layer}_reverse", h[::-1], None)
        h = [torch.cat(pair) for pair in zip(forward, backward[::-1], strict=True)]
    summary = torch.cat((h[-1][:H], h[0][H:]))
    first = torch.tanh(model.first_state.weight @ summary + model.first_state.bias).view(n_states, L, H)
    states = [tuple(first[:, layer]) for layer in range(L)]
    logits, patterns = [], []
    for token in target:
        context = summary
        if (attention := model.attention) is not None:
            scores = [  # e_ij = v . tanh(W s_i-1 + U h_j)
                attention.score.weight[0]
                @ torch.tanh(attention.query.weight @ states[-1][0] + attention.key.weight @ h_j)
                for h_j in h
            ]
            alpha = torch.stack(scores).softmax(dim=0)
            context = sum(a * h_j for a, h_j in zip(alpha, h, strict=True))
            patterns.append(alpha)
        x = torch.cat((model.embedding.weight[token], context))
        for layer in range(L):
            _, states[layer] = plain_layer(step, n_states, model.decoder, f"l{layer}", [x], states[layer])
            x = states[layer][0]
        joined = torch.tanh(model.join.weight @ torch.cat((x, context)) + model.join.bias)
        logits.append(model.head.weight @ joined + model.head.bias)
    return torch.stack(logits), torch.stack(patterns) if patterns else torch.zeros(0)


@KIND
@CELL
@torch.no_grad()
def test_equals_a_plain_loop_over_one_sentence_at_a_time(kind: str, cell: str):
    model, source, target = toy(kind, cell=cell), sources(3, 7), toy_ids(3, 4)
    heard: list[torch.Tensor] = []
    logits = model(source, target, LENGTHS)
    if kind == "seq2seq-attention":
        with listening(model, "attention.pattern", lambda name, x: heard.append(x)):
            model(source, target, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        expected, pattern = plain_forward(model, source[b, :length].tolist(), target[b].tolist())
        torch.testing.assert_close(logits[b], expected, rtol=1e-4, atol=1e-4)
        if heard:
            weights_TS = torch.cat(heard, dim=1)[b]
            torch.testing.assert_close(weights_TS[:, :length], pattern, rtol=1e-4, atol=1e-5)
            assert not weights_TS[:, length:].any()


@KIND
@CELL
@torch.no_grad()
def test_padding_changes_nothing(kind: str, cell: str):
    """Other tokens behind a sentence, more of them, or other sentences beside it: the same logits."""
    model, source, target = toy(kind, cell=cell), sources(3, 7), toy_ids(3, 4)
    logits = model(source, target, LENGTHS)
    assert torch.equal(model.logits(model.hidden(source, target, LENGTHS)), logits)
    padding = torch.arange(7) >= LENGTHS[:, None]
    other = torch.where(padding, sources(3, 7, seed=1), source)
    assert not torch.equal(other, source)
    assert torch.equal(model(other, target, LENGTHS), logits)
    wider = F.pad(source, (0, 4), value=9)
    torch.testing.assert_close(model(wider, target, LENGTHS), logits, rtol=1e-5, atol=1e-5)
    for b in range(3):
        alone = model(source[b : b + 1, : LENGTHS[b]], target[b : b + 1])
        torch.testing.assert_close(alone, logits[b : b + 1], rtol=1e-4, atol=1e-4)


@KIND
@CELL
@pytest.mark.parametrize("pieces", [(7,), (3, 4), (1,) * 7], ids=str)
@torch.no_grad()
def test_with_a_cache_in_pieces_equals_the_whole(kind: str, cell: str, pieces: tuple[int, ...]):
    model, target = toy(kind, cell=cell), toy_ids(3, 7)
    memory = model.encode(sources(3, 7), LENGTHS)
    cache = model.new_cache(batch_size=3)
    got = [model.decode(piece, memory, cache=cache) for piece in target.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(got, dim=1), model.decode(target, memory), rtol=1e-4, atol=1e-4)
    assert len(cache) == 7


@KIND
@CELL
@torch.no_grad()
def test_a_cache_is_rewound_reordered_and_forked_with_its_memory(kind: str, cell: str):
    """As beam search does: rows of cache and memory are picked together."""
    model, target = toy(kind, cell=cell), toy_ids(3, 7)
    memory = model.encode(sources(3, 7), LENGTHS)
    whole = model.decode(target, memory)
    cache = model.new_cache(batch_size=3)
    model.decode(target[:, :4], memory, cache=cache)
    model.decode(toy_ids(3, 2, seed=5), memory, cache=cache)
    cache.rewind(4)
    twin = cache.fork(2)
    torch.testing.assert_close(model.decode(target[:, 4:], memory, cache=cache), whole[:, 4:], rtol=1e-4, atol=1e-4)
    rows = torch.tensor([5, 0, 3])  # of 0 0 1 1 2 2
    twin.reorder(rows)
    got = model.decode(target[rows // 2, 4:], memory.rows(rows // 2), cache=twin)
    torch.testing.assert_close(got, whole[rows // 2, 4:], rtol=1e-4, atol=1e-4)


@KIND
@CELL
@torch.no_grad()
def test_beam_search_takes_them_as_they_are(kind: str, cell: str):
    """With a beam of 1 it says the most likely token again and again; beams of 3 pick rows of cache and memory."""
    model, source = toy(kind, cell=cell), sources(3, 7)
    found = beam_search(model, source, LENGTHS, beam=1, max_new_tokens=9, length_penalty=0.0)
    for b, (best,) in enumerate(found):
        text = [2]
        while len(text) < 9 and text[-1] != 3:
            text.append(int(model(source[b : b + 1, : LENGTHS[b]], torch.tensor([text]))[0, -1].argmax()))
        assert list(best.tokens[:8]) == text[1:]
    for one, several in zip(found, beam_search(model, source, LENGTHS, beam=3, max_new_tokens=9), strict=True):
        target = torch.tensor([[2, *several[0].tokens]])
        b = next(b for b, other in enumerate(found) if other is one)
        logp = model(source[b : b + 1, : LENGTHS[b]], target[:, :-1])[0].log_softmax(dim=-1)
        assert several[0].log_probability == pytest.approx(float(logp.gather(1, target[0, 1:, None]).sum()), rel=1e-4)


@KIND
@torch.no_grad()
def test_the_target_is_read_from_left_to_right(kind: str):
    model, source, target = toy(kind), sources(2, 7), toy_ids(2, 5)
    logits = model(source, target)
    for t in range(5):
        changed = target.clone()
        changed[:, t] = (changed[:, t] + 1) % 61
        others = model(source, changed)
        assert torch.equal(others[:, :t], logits[:, :t])
        assert (others[:, t:] - logits[:, t:]).abs().amax(dim=-1).min() > 1e-4


def test_a_listener_may_put_other_weights_in_place():
    """Look at the first word only: the rest of the sentence then enters through the first state alone."""
    model, source, target = toy("seq2seq-attention"), sources(2, 7), toy_ids(2, 4)
    first = torch.zeros(2, 1, 7)
    first[:, :, 0] = 1.0
    with torch.no_grad(), listening(model, "attention.pattern", lambda name, x: first):
        pinned = model(source, target)
    assert not torch.allclose(pinned, model(source, target), atol=1e-3)


def test_dropout_works_in_training_only():
    model, source, target = toy("seq2seq-attention"), sources(2, 7), toy_ids(2, 4)
    still = model(source, target)
    model.set_dropout(0.5)
    assert torch.equal(model(source, target), still)
    model.train()
    assert not torch.equal(model(source, target), model(source, target))


def test_operations_are_counted_by_hand():
    """One target and one source token: two directions of the reader, the bridge, the writer, the joint, the head."""
    model = toy("seq2seq", n_layer=1)
    matrices = 2 * 3 * 11 * (5 + 11) + 22 * 11 + 3 * 11 * (27 + 11) + 33 * 11 + 11 * 61
    assert model.flops_per_token().forward == 2 * matrices
    attention = toy("seq2seq-attention", n_layer=1)
    searched = 11 * 11 + 22 * 11 + 7 * (11 + 22)  # W s, U h, and for 7 words v . tanh and the sum
    assert attention.flops_per_token(S=7).forward == 2 * (matrices + searched)
    assert attention.flops_per_token().training == 6 * (matrices + 11 * 11 + 22 * 11 + 13 * 33)


@KIND
@CELL
def test_every_parameter_is_used_and_padding_gets_no_gradient(kind: str, cell: str):
    model = toy(kind, cell=cell)
    source, target = sources(40, 7), toy_ids(40, 13)
    F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.zero_grad()
    model(torch.tensor([[7, 7, 7, 8, 8]]), toy_ids(1, 4), torch.tensor([3])).sum().backward()
    gradient = model.source_embedding.weight.grad
    assert gradient[7].any() and not gradient[8].any()
    shared = toy(kind, cell=cell, source_vocab_size=None)
    assert shared.source_embedding is shared.embedding
    assert model.parameter_count() - shared.parameter_count() == 53 * 5


@torch.no_grad()
def test_the_two_models_differ_in_what_is_remembered_and_in_nothing_else():
    """One vector, whatever the length, or one a word. With the same weights, attention over one vector gives the logits
    of the model that has only that."""
    with_attention, without = toy("seq2seq-attention"), toy("seq2seq")
    without.load_state_dict(with_attention.state_dict(), strict=False)
    one, all_of_them = (model.encode(sources(3, 7), LENGTHS) for model in (without, with_attention))
    assert (one.vectors_BSC.shape, one.lengths_B.tolist()) == ((3, 1, 22), [1, 1, 1])
    assert (all_of_them.vectors_BSC.shape, all_of_them.lengths_B.tolist()) == ((3, 7, 22), [5, 7, 1])
    target = toy_ids(3, 4)
    torch.testing.assert_close(with_attention.decode(target, one), without.decode(target, one), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "lengths", "line"),
    [
        ({"end_token": 61}, [], "end_token=61 is not in the vocabulary of 61 tokens; use 0 to 60"),
        ({"cell": "rnn"}, [], "model.cell='rnn' is unknown; use gru or lstm"),
        ({}, [5, 0, 7], "source sentence 1 is empty; give it one token or more"),
        ({}, [5, 8, 7], "a source sentence has 8 tokens by its length and 7 are given; mend the lengths"),
    ],
)
def test_mistakes_are_one_line(fields: dict, lengths: list[int], line: str):
    with pytest.raises(UsageError, match=f"^{line}"):
        toy("seq2seq", **fields).encode(sources(3, 7), torch.tensor(lengths))
