"""The self-test holds on a sound machine, and a planted fault makes the check fail that is about it."""

from __future__ import annotations

import sys

import pytest
import torch
from toys import toy_model

from glassformer.hub.published import Reference
from glassformer.layers import RotaryPositions, row_cache
from glassformer.layers.attention import Attention
from glassformer.native import library
from glassformer.recipes.selftest import Check, selftest, small_model
from glassformer.tasks import NextToken


def failed() -> list[str]:
    return [check.what.split(" =")[0] for check in selftest(*small_model()) if not check.held]


WHAT = "logits = those of transformers"


def test_everything_holds_here_and_the_model_is_left_as_it_was():
    model, tokenizer = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checks = list(selftest(model, tokenizer))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    theirs = next(check.difference for check in checks if check.what == WHAT)
    assert 0 < theirs < 1e-4  # computed by another program: equal, and not to the last bit
    assert len(checks) == 9 and all(check.held for check in checks)
    unasked = {check.what: check.why for check in checks if check.difference is None}
    assert unasked.keys() == (set() if library() else {"blocks compiled, in int8 = layer by layer"})
    assert all(unasked.values())
    assert 0 < checks[-1].difference < 0.1, "int8 rounds, and not much"


def test_transformers_reads_the_model_where_nothing_is_kept_of_it(monkeypatch):
    assert not Check("x", float("nan"), 0.1, 0.1).held
    model, tokenizer = small_model()
    true = type(model).logits
    monkeypatch.setattr(type(model), "logits", lambda self, hidden: 1.01 * true(self, hidden))
    assert not {check.what: check for check in selftest(model, tokenizer)}[WHAT].held


@pytest.mark.parametrize("case", ["without transformers", "a kind of our own"])
def test_what_is_left_out_has_a_reason(case: str, monkeypatch):
    model, tokenizer = small_model()
    if case == "without transformers":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        model = toy_model("modern", positions="alibi", vocab_size=tokenizer.vocab_size, block_size=64)
    left = {check.what: check for check in selftest(model, tokenizer)}[WHAT]
    named = f"{sys.executable} -m pip install transformers" if case == "without transformers" else "of this kind"
    assert left.difference is None and left.held and left.why.endswith(named.removeprefix(sys.executable))


@pytest.mark.parametrize(
    ("where", "fault", "expected"),
    [
        (
            (row_cache.Rows, "append"),
            lambda true: lambda self, layer, k, v: true(self, layer, 1.01 * k if len(k) > 1 else k, v),
            {"several rows of different lengths", "generated in a batch"},
        ),
        (
            (Attention, "_eager"),
            lambda true: lambda self, q, k, v, mask, bias: 1.01 * true(self, q, k, v, mask, bias),
            {"eager attention"},
        ),
        (
            (RotaryPositions, "rotate"),
            lambda true: lambda self, q, k, pos: true(self, q, k, pos - pos.min()),
            {"read in pieces with a cache"},
        ),
        (
            (NextToken, "loss"),
            lambda true: (
                lambda self, model, batch: (
                    (found := true(self, model, batch))[0] * (1.01 if len(batch[0]) == 1 else 1),
                    *found[1:],
                )
            ),
            {"gradients of four small batches"},
        ),
    ],
)
def test_a_planted_fault_is_found(monkeypatch, where, fault, expected):
    monkeypatch.setattr(*where, fault(getattr(*where)))
    assert expected <= set(failed())


def test_logits_of_other_software_are_compared():
    model, tokenizer = small_model()
    ids = (5, 9, 200)
    logits = model(torch.tensor([ids]))[0, -1].tolist()
    right = Reference(ids, {token: logits[token] for token in (0, 7, 100)})
    wrong = Reference(ids, {**right.logits, 7: logits[7] + 0.01 * max(map(abs, right.logits.values()))})
    held = [{check.what: check for check in selftest(model, tokenizer, known)} for known in (right, wrong)]
    assert held[0][WHAT].difference < 1e-6 and held[0][WHAT].held and not held[1][WHAT].held
