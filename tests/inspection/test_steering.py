"""A direction added while a model writes, and neurons by the token that they promote."""

from __future__ import annotations

import pytest
import torch
from toy_letters import TEXT, letters
from toys import toy_model

import glassformer as gf
from glassformer.errors import UsageError
from glassformer.inspection import look, trace

TOKENIZER = letters()
PAIRS = ["AB=>CD", "BE=>DE", "A=>D"]


def stream(model, text: str, name: str) -> torch.Tensor:
    with trace(model, name) as seen, torch.no_grad():
        model(torch.tensor([TOKENIZER.encode(text)]))
    return seen[name][0, -1]


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_the_mean_difference_of_the_pairs_is_added_while_it_writes(family: str):
    model, name = toy_model(family), "blocks.1.residual.after"
    view = look("steering", model, TOKENIZER, TEXT[:4], PAIRS, layer=1, strength=20, tokens=5)
    vector = torch.stack([stream(model, b, name) - stream(model, a, name) for a, b in (p.split("=>") for p in PAIRS)])
    vector = vector.mean(dim=0)
    torch.testing.assert_close(torch.from_numpy(view.vector), vector, atol=1e-5, rtol=1e-4)
    assert (view.before,) == tuple(
        c.text for c in gf.generate(model, TOKENIZER, TEXT[:4], max_new_tokens=5, temperature=0)
    )
    ids = TOKENIZER.encode(TEXT[:4])
    for _ in range(5):  # token by token, by hand
        with torch.no_grad():
            x = stream_of_all(model, ids, name) + 2 * vector
            logits = model.logits(x if model.final_norm is None else model.final_norm(x))[-1]
        ids.append(int(logits[: TOKENIZER.vocab_size].argmax()))
    assert view.after == TOKENIZER.decode(ids[4:])
    still = look("steering", model, TOKENIZER, TEXT[:4], PAIRS, layer=1, strength=0, tokens=5)
    assert still.after == still.before and still.divergence == pytest.approx(0, abs=1e-9)
    assert view.divergence > 1e-4 and 0 <= view.score <= 1


def stream_of_all(model, ids: list[int], name: str) -> torch.Tensor:
    """Behind the last block, which is the one that the direction is added behind."""
    assert name == f"blocks.{len(model.blocks) - 1}.residual.after"
    with trace(model, name) as seen:
        model(torch.tensor([ids]))
    return seen[name][0]


@pytest.mark.parametrize("pairs", [[], ["AB"], ["=>A"], ["AB=>AB"]])
def test_pairs_that_make_no_direction_are_refused(pairs: list[str]):
    with pytest.raises(UsageError, match="pair"):
        look("steering", toy_model("classic"), TOKENIZER, TEXT[:4], pairs)


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_neurons_are_ranked_by_what_they_add_to_a_logit(family: str):
    """Against the logits of a stream that one unit of each neuron is added to, its norm's divisor held at 1."""
    model = toy_model(family)
    view = look("promoters", model, TOKENIZER, "A")
    norm, (a,) = model.final_norm, TOKENIZER.encode("A")
    head = model.head.weight.detach()[: TOKENIZER.vocab_size]
    for layer, neuron in [view.ranked()[0], view.ranked(False)[0], (0, 3)]:
        column = model.blocks[layer].feedforward.down.weight.detach()[:, neuron]
        column = column - column.mean() if family == "classic" else column
        logits = head @ (column * norm.weight.detach())
        assert view.scores[layer, neuron] == pytest.approx(float(logits[a] - logits.mean()), abs=1e-5)
    assert view.scores[view.ranked()[0]] == view.scores.max()
