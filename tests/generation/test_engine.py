"""The engine: a request gets the same alone, in a batch, and whatever others do meanwhile."""

from __future__ import annotations

import random

import pytest
import torch

from glassformer.errors import UsageError
from glassformer.generation import Engine, Event, Request, Sampling
from glassformer.generation.generate import stream
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS

TEXT = "the quick brown fox jumps over the lazy dog.\n"
KINDS = {
    "classic": {"family": "classic"},
    "grouped": {"family": "modern", "n_kv_head": 2},
    "n-grams and a window": {"family": "modern", "n_gram": 3, "patterns": ("window(5) & causal", "causal")},
    "side by side": {"family": "classic", "positions": "rotary", "parallel": True, "rotary_fraction": 0.67},
    "norms on what is written": {"family": "modern", "norm_place": "output", "qk_norm_over": "all"},
    "a layer without positions": {"family": "modern", "positioned_layers": (False, True), "qkv_bias": True},
    "clamped experts and sinks": {
        "family": "modern",
        "feedforward": "clamped",
        "n_expert": 3,
        "attention_sinks": True,
        "patterns": ("window(5)", "causal"),
        "expert_shares": "all",
        "router_bias": True,
    },
}


@pytest.fixture(scope="module")
def tokenizer():
    return TOKENIZERS["characters"]([TEXT])


def toy(tokenizer, block_size: int = 24, **fields) -> Decoder:
    torch.manual_seed(11)
    fields = {"family": "modern", "n_kv_head": 2, **fields}
    config = ModelConfig.make(
        vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=2, n_head=4, n_embd=24, **fields
    )
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def ask(tokenizer, prompt: str, n: int = 12, **fields) -> Request:
    fields = {"sampling": Sampling(seed=len(prompt)), **fields}
    return Request(ids=tuple(tokenizer.encode(prompt)), max_new_tokens=n, **fields)


def run(engine: Engine, numbers: list[int] | None = None) -> dict[int, list[Event]]:
    """Everything that is left to do: the events of each request."""
    shown: dict[int, list[Event]] = {number: [] for number in numbers or []}
    while engine.busy:
        for event in engine.step():
            shown.setdefault(event.request, []).append(event)
    return shown


def tokens(events: list[Event], sample: int = 0) -> list[int]:
    return [event.piece.token for event in events if event.piece and event.piece.sample == sample]


def alone(model, tokenizer, request: Request) -> list[int]:
    engine = Engine(model, tokenizer)
    number = engine.submit(request)
    return tokens(run(engine)[number])


@pytest.mark.parametrize("kind", KINDS)
def test_alone_equals_the_readable_twin(tokenizer, kind):
    """Beyond the block size too: 24 positions, and 60 tokens are written."""
    model = toy(tokenizer, **KINDS[kind])
    for window in ("half", "exact"):
        request = ask(tokenizer, "the quick", 60, window=window)
        settings = {"max_new_tokens": 60, "sampling": request.sampling, "window": window}
        twin = [piece.token for piece in stream(model, tokenizer, "the quick", use_cache=False, **settings)]
        assert alone(model, tokenizer, request) == twin


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_batch_each_gets_what_it_gets_alone(tokenizer, kind):
    model = toy(tokenizer, **KINDS[kind])
    prompts = ["t", "the quick brown fox jumps over", "lazy dog.", "the quick", "the quick b", "ox"]
    requests = [
        ask(tokenizer, prompt, 5 + 7 * i, sampling=Sampling(temperature=0.5 + 0.2 * i, seed=i, top_k=5 * (i % 2)))
        for i, prompt in enumerate(prompts)
    ]
    engine = Engine(model, tokenizer, max_rows=4)  # so that two wait
    shown = run(engine, [engine.submit(request) for request in requests])
    for request, events in zip(requests, shown.values(), strict=True):
        assert tokens(events) == alone(model, tokenizer, request)
        assert [bool(event.piece.finish_reason) for event in events] == [False] * (len(events) - 1) + [True]


def test_they_come_and_go_at_any_step(tokenizer):
    """Random joining and cancelling, many times; each that stays gets what it gets alone."""
    model, rng = toy(tokenizer), random.Random(7)
    wanted: dict[int, Request] = {}
    shown: dict[int, list[Event]] = {}
    engine = Engine(model, tokenizer, max_rows=3, max_positions=4 * 24)
    for _ in range(150):
        if rng.random() < 0.3 and len(wanted) < 25:
            start = rng.randrange(len(TEXT) - 12)
            request = ask(tokenizer, TEXT[start : start + rng.randrange(1, 40)] or "a", rng.randrange(1, 30))
            wanted[engine.submit(request)] = request
        if rng.random() < 0.04 and wanted:
            gone = rng.choice(list(wanted))
            engine.cancel(gone)
            wanted.pop(gone), shown.pop(gone, None)
            before = dict(shown)
        for event in engine.step():
            assert event.request in wanted, "a cancelled request was answered"
            shown.setdefault(event.request, []).append(event)
    told_later = run(engine)
    assert len(wanted) > 12 and before is not None
    for number, request in wanted.items():
        assert tokens(shown.get(number, []) + told_later.get(number, [])) == alone(model, tokenizer, request)


def test_a_cancelled_request_gives_its_row_to_the_next(tokenizer):
    engine = Engine(toy(tokenizer), tokenizer, max_rows=1)
    first, second = engine.submit(ask(tokenizer, "the", 50)), engine.submit(ask(tokenizer, "fox", 3))
    assert {event.request for event in engine.step()} == {first}
    engine.cancel(first)
    engine.cancel(first)  # nothing to worry about
    assert {event.request for event in engine.step()} == {second}
    engine.cancel(second)
    assert not engine.busy and engine.step() == []


def test_samples_share_the_prompt_and_have_seeds_of_their_own(tokenizer):
    model = toy(tokenizer, block_size=200)
    engine = Engine(model, tokenizer)
    read = counted_tokens(model)
    number = engine.submit(ask(tokenizer, "the quick brown", samples=3, sampling=Sampling(seed=40)))
    events = run(engine)[number]
    assert sum(read) == 14 + 3 * 12  # the prompt but its last token, once; then each sample's tokens
    for i in range(3):
        assert tokens(events, i) == alone(
            model, tokenizer, ask(tokenizer, "the quick brown", sampling=Sampling(seed=40 + i))
        )


def counted_tokens(model: Decoder) -> list[int]:
    """How many tokens each call of the model reads from now on."""
    read: list[int] = []
    model.embedding.register_forward_pre_hook(lambda module, args: read.append(args[0].numel()))
    return read


def test_the_next_turn_of_a_chat_reads_what_is_new_alone(tokenizer):
    model = toy(tokenizer, block_size=200)
    engine = Engine(model, tokenizer)
    prompt = "the quick brown fox"
    text = tokens(run(engine, [engine.submit(ask(tokenizer, prompt, 10))])[0])
    longer = prompt + tokenizer.decode(text) + " jumps"
    read = counted_tokens(model)
    request = ask(tokenizer, longer, 5)
    assert tokens(run(engine, [engine.submit(request)])[1]) == alone(toy(tokenizer, block_size=200), tokenizer, request)
    assert sum(read) == 1 + len(" jumps") - 1 + 5  # the last token of the answer was never read before
    assert engine.cache.n_rows == 1  # and the row was taken over


def test_a_beginning_is_shared_with_a_row_that_is_still_writing(tokenizer):
    model = toy(tokenizer, block_size=200)
    engine = Engine(model, tokenizer)
    first = ask(tokenizer, "the quick brown fox jumps", 30)
    engine.submit(first)
    early = engine.step()
    read = counted_tokens(model)
    second = ask(tokenizer, "the quick brown dog", 4)
    engine.submit(second)
    engine.step()
    assert sum(read) == len("dog") - 1 + 2
    shown = run(engine)
    model = toy(tokenizer, block_size=200)
    assert tokens(early) + tokens(shown[0]) == alone(model, tokenizer, first)[:1] + tokens(shown[0])
    assert set(shown) == {0, 1}


def test_a_long_prompt_lets_the_others_go_on(tokenizer, monkeypatch):
    monkeypatch.setattr("glassformer.generation.engine.PREFILL_TOKENS", 16)
    model = toy(tokenizer, block_size=200)
    engine = Engine(model, tokenizer)
    short, long = ask(tokenizer, "ox", 12), ask(tokenizer, TEXT * 2, 6)
    a = engine.submit(short)
    shown = engine.step()
    b = engine.submit(long)
    writing = []
    for _ in range(6):
        events = engine.step()
        writing.append(sorted({event.request for event in events}))
        shown.extend(events)
    assert writing[:5] == [[a]] * 5 and writing[5] == [a, b]  # 89 tokens of a prompt, 16 a step
    shown += [event for events in run(engine).values() for event in events]
    for number, request in ((a, short), (b, long)):
        assert tokens([e for e in shown if e.request == number]) == alone(model, tokenizer, request)


def test_when_memory_is_full_requests_wait_and_none_fails(tokenizer):
    model = toy(tokenizer, block_size=200)
    engine = Engine(model, tokenizer, max_rows=8, max_positions=400)
    requests = [ask(tokenizer, TEXT[i:], 150 if i % 2 else 20) for i in range(6)]
    numbers = [engine.submit(request) for request in requests]
    shown: dict[int, list[Event]] = {number: [] for number in numbers}
    while engine.busy:
        for event in engine.step():
            shown[event.request].append(event)
        assert engine.cache.n_rows * engine.cache.capacity <= 400
    for number, request in zip(numbers, requests, strict=True):
        assert tokens(shown[number]) == alone(model, tokenizer, request)
    with pytest.raises(UsageError, match="takes 195 tokens and the cache holds 100"):
        Engine(model, tokenizer, max_positions=100).submit(ask(tokenizer, TEXT, 150))


def test_prompts_are_scored(tokenizer):
    model = toy(tokenizer)
    engine = Engine(model, tokenizer)
    number = engine.submit(ask(tokenizer, "lazy dog", 2, score_prompt=True, alternatives=2))
    events = run(engine)[number]
    ids = torch.tensor([tokenizer.encode("lazy dog")])
    expected = model(ids).softmax(dim=-1)[0].detach()
    scored = [piece for event in events for piece in event.prompt]
    assert [piece.token for piece in scored] == ids[0, 1:].tolist()
    for t, piece in enumerate(scored):
        assert piece.probability == pytest.approx(float(expected[t, ids[0, t + 1]]), rel=1e-4)
        assert [other.token for other in piece.alternatives] == expected[t].topk(2).indices.tolist()
    number = engine.submit(ask(tokenizer, "lazy dog", 0, score_prompt=True))
    assert [len(event.prompt) for event in run(engine)[number]] == [7] and not engine.busy


def test_biases_forbid_and_force(tokenizer):
    model = toy(tokenizer)
    (x,), (e,) = tokenizer.encode("x"), tokenizer.encode("e")
    forced = alone(model, tokenizer, ask(tokenizer, "the", logit_bias={x: 100.0}))
    assert forced == [x] * 12
    free = alone(model, tokenizer, ask(tokenizer, "the", 200))
    assert e in free and e not in alone(model, tokenizer, ask(tokenizer, "the", 200, logit_bias={e: -100.0}))
    with pytest.raises(UsageError, match="logit_bias of token 3 is inf"):
        ask(tokenizer, "the", logit_bias={3: float("inf")})
    with pytest.raises(UsageError, match=r"token 999 is not in the vocabulary \(0 to 28\)"):
        Engine(model, tokenizer).submit(ask(tokenizer, "the", logit_bias={999: 1.0}))


def test_stop_strings_and_end_tokens_end_one_sample_only(tokenizer):
    model = toy(tokenizer)
    (o,) = tokenizer.encode("o")
    engine = Engine(model, tokenizer)
    plain = alone(model, tokenizer, ask(tokenizer, "the", 60))
    number = engine.submit(ask(tokenizer, "the", 60, end_tokens=frozenset({o})))
    other = engine.submit(ask(tokenizer, "the", 60))
    shown = run(engine)
    cut = tokens(shown[number])
    assert cut == plain[: plain.index(o) + 1] and tokens(shown[other]) == plain
    assert shown[number][-1].piece.finish_reason == "end_of_text" and shown[number][-1].piece.text == ""
    text = tokenizer.decode(plain)
    stop = text[20:23]
    number = engine.submit(ask(tokenizer, "the", 60, stop=(stop,)))
    events = run(engine)[number]
    assert "".join(event.piece.text for event in events) == text[: text.index(stop)]
    assert events[-1].piece.finish_reason == "stop"
