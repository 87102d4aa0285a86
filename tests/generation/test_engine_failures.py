"""Failures planted at every stage of a request: it fails by itself, its neighbours get what they get alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest
import torch
from test_engine import TEXT, alone, ask, tokens, toy

from glassformer.errors import DivergenceError
from glassformer.generation import Engine, Event, Request, Sampling, generate, requests, sampling
from glassformer.generation.rows import Row
from glassformer.processors.tokenizers import TOKENIZERS

CULPRIT = "jumps over"


class Planted(Exception):
    """No error that could be raised by accident."""


def fail(*args, **kwargs):
    raise Planted("planted")


@pytest.fixture
def tokenizer():
    return TOKENIZERS["characters"]([TEXT])


@pytest.fixture
def model(tokenizer):
    return toy(tokenizer, block_size=53)


def innocents(tokenizer) -> list[Request]:
    """Before and behind the culprit; two samples; one that reads a prompt in several pieces meanwhile; equal draws."""
    return [
        ask(tokenizer, "the quick", 31, samples=2),
        ask(tokenizer, "lazy dog.", 23, sampling=Sampling(temperature=0.7, seed=3), alternatives=2),
        ask(tokenizer, TEXT[:37], 11, sampling=Sampling(temperature=0.7, seed=5), score_prompt=True),
    ]


def of_culprit(engine: Engine) -> list[Row]:
    return [row for row in (*engine.active, *engine.waiting) if row.request.stop == ("culprit",)]


Plant = Callable[[Engine, pytest.MonkeyPatch], None]


def in_a_row(name: str) -> Plant:
    """What a row does with each token, in `row.decoder` or `row.stop`, fails."""

    def plant(engine: Engine, patch: pytest.MonkeyPatch) -> None:
        for row in of_culprit(engine):
            patch.setattr(getattr(row, name), "push", fail)

    return plant


def in_the_model(method: str) -> Plant:
    """A pass of the model fails whenever a row of the culprit is among those it is for."""

    def plant(engine: Engine, patch: pytest.MonkeyPatch) -> None:
        called = getattr(engine.model, method)

        def failing(ids_BT, *, cache):
            if any(row in of_culprit(engine) for row in engine.active[cache.start : cache.stop]):
                fail()
            return called(ids_BT, cache=cache)

        patch.setattr(engine.model, method, failing)

    return plant


def in_biases(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    class Failing(dict):
        items = fail

    patch.setitem(vars(of_culprit(engine)[0].request), "logit_bias", Failing({1: 1.0}))


def in_the_draw(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Rows that draw alike are filtered together: with the culprit among them the call fails."""
    called = sampling._sample_alike

    def failing(plain, logits, rows, *rest):
        return fail() if any(row in of_culprit(engine) for row in rows) else called(plain, logits, rows, *rest)

    patch.setattr(sampling, "_sample_alike", failing)


def in_alternatives(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    called = requests.most_likely
    for module in ("engine", "rows"):  # of the prompt and of the answer
        name = f"glassformer.generation.{module}.most_likely"
        patch.setattr(name, lambda p, n, *rest: fail() if n == 3 else called(p, n, *rest))


def in_memory(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    called = engine._free_row
    patch.setattr(engine, "_free_row", lambda *a: fail() if engine.waiting[0] in of_culprit(engine) else called(*a))


STAGES: dict[str, tuple[Plant, dict]] = {
    "no memory": (in_memory, {}),
    "reading its prompt": (in_the_model("hidden"), {}),
    "scoring its prompt": (in_alternatives, {"score_prompt": True, "alternatives": 3}),
    "the forward pass": (in_the_model("forward"), {}),
    "biases": (in_biases, {}),
    "a draw with others": (in_the_draw, {"sampling": Sampling(temperature=0.7, seed=11)}),
    "a draw of its own": (in_the_draw, {"sampling": Sampling(temperature=0.9, repetition_penalty=1.2, seed=11)}),
    "alternatives": (in_alternatives, {"alternatives": 3}),
    "text of tokens": (in_a_row("decoder"), {}),
    "stop strings": (in_a_row("stop"), {}),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("samples", [1, 2])
def test_a_request_that_fails_fails_alone(model, tokenizer, monkeypatch, stage, samples):
    plant, fields = STAGES[stage]
    others = innocents(tokenizer)
    wanted = [list(Engine(model, tokenizer).run(request)) for request in others]
    engine = Engine(model, tokenizer, max_rows=8)
    numbers = [engine.submit(others[0])]
    culprit = engine.submit(ask(tokenizer, CULPRIT, 40, **{"stop": ("culprit",), "samples": samples, **fields}))
    numbers += [engine.submit(request) for request in others[1:]]
    with monkeypatch.context() as patch:
        plant(engine, patch)
        shown: dict[int, list[Event]] = {}
        for _ in range(500):
            if not engine.busy:
                break
            for event in engine.step():
                shown.setdefault(event.request, []).append(event)
    assert not engine.busy and not engine.active, "a row was never freed"
    errors = [event.error for event in shown.pop(culprit) if event.error]
    assert len(errors) == 1 and isinstance(errors[0], Planted)
    for number, one in zip(numbers, wanted, strict=True):
        assert [tokens(shown[number], sample) for sample in (0, 1)] == [tokens(one, sample) for sample in (0, 1)]
        assert sum(len(event.prompt) for event in shown[number]) == sum(len(event.prompt) for event in one)
    again = ask(tokenizer, CULPRIT, 40, **fields)  # and it is as good as new
    assert tokens(list(engine.run(again))) == alone(model, tokenizer, again)


def test_a_pass_that_fails_once_costs_no_request(model, tokenizer, monkeypatch, caplog):
    others = innocents(tokenizer)
    wanted = [alone(model, tokenizer, request) for request in others]
    engine = Engine(model, tokenizer)
    forward, calls = model.forward, []

    def failing(ids_BT, **kwargs):
        logits = forward(ids_BT, **kwargs)  # keys and values are written, and then it fails
        calls.append(ids_BT.shape[0])
        return fail() if len(calls) == 5 else logits

    monkeypatch.setattr(model, "forward", failing)
    with caplog.at_level(logging.ERROR):
        shown = list(engine.run(*others))
    assert [tokens([e for e in shown if e.request == number]) for number in range(3)] == wanted
    assert [record.exc_info[0] for record in caplog.records] == [Planted], "what happened is in the log"
    assert calls[4] > 1 and calls[5] == 1


def test_when_all_fail_memory_is_released_and_the_next_is_answered(model, tokenizer, monkeypatch):
    others = innocents(tokenizer)
    engine = Engine(model, tokenizer)
    numbers = [engine.submit(request) for request in others]
    engine.step()
    assert engine.cache.n_bytes > 0
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", fail)
        events = [event for _ in range(9) for event in engine.step()]
    assert {event.request for event in events if isinstance(event.error, Planted)} == set(numbers)
    assert not engine.busy and engine.cache.n_bytes == 0
    assert tokens(list(engine.run(others[1]))) == alone(model, tokenizer, others[1])


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_logits_that_are_no_numbers_end_the_one_request(model, tokenizer, temperature):
    """One token's vector is NaN: it spoils the rows that have read it, and no other."""
    (j,) = tokenizer.encode("j")
    with torch.no_grad():
        model.embedding.token.weight[j] = math.nan
        model.head.weight = torch.nn.Parameter(model.head.weight.nan_to_num(-9.0))
    fox = ask(tokenizer, "the fox", 9, logit_bias={j: -1e4})
    wanted = alone(model, tokenizer, fox)
    engine = Engine(model, tokenizer)
    bad = ask(tokenizer, "jumps", 9, sampling=Sampling(temperature=temperature))
    numbers = [engine.submit(fox), engine.submit(bad), engine.submit(ask(tokenizer, "a jump", 0, score_prompt=True))]
    shown = [event for _ in range(20) for event in engine.step()]
    assert tokens([e for e in shown if e.request == numbers[0]]) == wanted
    for number in numbers[1:]:
        (event,) = [e for e in shown if e.request == number]
        assert isinstance(event.error, DivergenceError) and "NaN" in str(event.error)
    for use_cache in (True, False):  # from Python it is raised
        with pytest.raises(DivergenceError, match="NaN"):
            generate(model, tokenizer, "jumps", sampling=bad.sampling, use_cache=use_cache)
