"""The recurrent cells, step by step: what PyTorch's (and cuDNN's) layers compute, written out."""

from __future__ import annotations

import pytest
import torch
from toys import shaken, toy_ids

from glassformer.history import build_history


def gates(x, h, w_ih, w_hh, b_ih, b_hh, n: int):
    """What enters and what comes from the moment before, for each of n gates, each (H,)."""
    return (w_ih @ x + b_ih).chunk(n), (w_hh @ h + b_hh).chunk(n)


def rnn_step(x, state, *weights):
    """Elman 1990: the new state is what comes in and what was."""
    (h,) = state
    ((new,), (old,)) = gates(x, h, *weights, n=1)
    return (torch.tanh(new + old),)


def gru_step(x, state, *weights):
    """Cho et al. 2014, eq. 5-8: z keeps the old, r decides how much of it the proposal may see."""
    (h,) = state
    (r_x, z_x, n_x), (r_h, z_h, n_h) = gates(x, h, *weights, n=3)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    proposal = torch.tanh(n_x + r * n_h)
    return (z * h + (1 - z) * proposal,)


def lstm_step(x, state, *weights):
    """Hochreiter and Schmidhuber 1997, with Gers' forget gate: a memory that is added to."""
    h, c = state
    (i_x, f_x, g_x, o_x), (i_h, f_h, g_h, o_h) = gates(x, h, *weights, n=4)
    c = torch.sigmoid(f_x + f_h) * c + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
    return torch.sigmoid(o_x + o_h) * torch.tanh(c), c


STEPS = {"rnn": (rnn_step, 1), "gru": (gru_step, 1), "lstm": (lstm_step, 2)}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("n_layer", [1, 2])
@torch.no_grad()
def test_a_recurrent_model_is_its_cell_step_by_step(kind: str, n_layer: int):
    """Also with a cache, which keeps the same state."""
    model = build_history(kind, vocab_size=61, block_size=13, n_layer=n_layer, n_embd=5, n_hidden=11)
    shaken(model).eval()
    step, n_states = STEPS[kind]
    ids = toy_ids(1, 7)
    states = [(torch.zeros(11),) * n_states for _ in range(n_layer)]
    expected = []
    for token in ids[0].tolist():
        x = model.embedding.weight[token]
        for layer in range(n_layer):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            states[layer] = step(x, states[layer], *(getattr(model.cell, f"{n}_l{layer}") for n in names))
            x = states[layer][0]
        expected.append(model.head.weight @ x + model.head.bias)
    torch.testing.assert_close(model(ids)[0], torch.stack(expected), rtol=1e-4, atol=1e-4)
    cache = model.new_cache()
    model(ids, cache=cache)
    for part, kept in enumerate(cache.state):
        torch.testing.assert_close(kept[:, 0], torch.stack([s[part] for s in states]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_long_memory_needs_gates():
    """What a first token changes in the state 200 tokens later: an LSTM whose forget gate is open adds to its memory
    and has kept it; an RNN multiplies, with weights below one here, and has lost it."""

    def remembered(model) -> float:
        ids = torch.ones(2, 201, dtype=torch.int64)
        ids[1, 0] = 2
        cache = model.new_cache(batch_size=2, capacity=201)
        model.hidden(ids, cache=cache)
        memory_BH = cache.state[-1][0]  # c of an LSTM, h of an RNN
        return float((memory_BH[0] - memory_BH[1]).abs().max())

    shape = {"vocab_size": 61, "block_size": 13, "n_embd": 5, "n_hidden": 11}
    rnn, lstm = (shaken(build_history(kind, **shape)) for kind in ("rnn", "lstm"))
    rnn.cell.weight_hh_l0.mul_(0.5)
    assert remembered(rnn) < 1e-6
    lstm.cell.weight_hh_l0.mul_(0.1)
    lstm.cell.bias_ih_l0.view(4, 11)[1] = 15.0
    assert remembered(lstm) > 0.1
    lstm.cell.bias_ih_l0.view(4, 11)[1] = 0.0  # half of it is forgotten at each step
    assert remembered(lstm) < 1e-6
