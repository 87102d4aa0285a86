"""Generate: the fast way gives what the slow readable way gives, alone or in a batch, beyond block_size too.

A sample at the same seed differs between two ways of computing the same logits only when u falls within a rounding
(1e-6) of a border: less than once in 5,000 of these tests, and the seeds are set.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.generation import Sampling, generate, next_logits, stream
from glassformer.generation.lockstep import SlidingContext
from glassformer.generation.requests import Request
from glassformer.generation.rows import TextRow
from glassformer.layers import KVCache
from glassformer.models import Decoder
from glassformer.processors.tokenizers import TOKENIZERS

FAMILY = pytest.mark.parametrize("family", ["classic", "modern"])
WINDOW = pytest.mark.parametrize("window", ["half", "exact"])
ALPHABET = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;!?-"  # 61 characters


@pytest.fixture(scope="module")
def letters():
    return TOKENIZERS["characters"]([ALPHABET])


@pytest.fixture(scope="module")
def byte_tokenizer():
    return TOKENIZERS["bytes"]()


class Scripted(nn.Module):
    """Writes a given list of tokens, one after the other, with a probability near 1. Its weights are not used."""

    def __init__(self, ids: list[int], *, vocab_size: int, block_size: int = 1000, prompt: int = 1):
        super().__init__()
        self.config = toy_model(vocab_size=vocab_size, block_size=block_size).config
        self.ids, self.prompt = ids, prompt
        self.weight = nn.Parameter(torch.zeros(1))

    def new_cache(self, batch_size: int = 1) -> KVCache:
        return KVCache(n_layer=1, batch_size=batch_size, n_kv_head=1, head_width=1, capacity=self.config.block_size)

    def hidden(self, ids_BT, *, cache=None):
        start = 0 if cache is None else len(cache)
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return (start + torch.arange(ids_BT.shape[1])).expand(*ids_BT.shape)[..., None]  # (B, T, 1): the position

    def logits(self, pos_BT1):
        text = torch.tensor(self.ids)[(pos_BT1[..., 0] - self.prompt + 1) % len(self.ids)]
        return 20.0 * nn.functional.one_hot(text, self.config.vocab_size).float()


def tokens(model: Decoder, tokenizer, prompt: str = "hello", **settings) -> list[int]:
    return [piece.token for piece in generate(model, tokenizer, prompt, **settings)[0].pieces]


@torch.no_grad()
def twin(model: Decoder, ids: list[int], n: int, sampling: Sampling) -> list[int]:
    """Generation as one would write it on a blackboard: the lecture's crop to the last block_size tokens."""
    generator = torch.Generator().manual_seed(sampling.seed)
    ids = list(ids)
    for _ in range(n):
        seen = torch.tensor([ids[-model.config.block_size :]])
        logits = model(seen)[0, -1]
        if sampling.temperature == 0:
            ids.append(logits.argmax().item())
            continue
        p = (logits.double() / sampling.temperature).softmax(-1)
        u = torch.rand((), generator=generator, dtype=torch.float64)
        ids.append(int((p.cumsum(-1) <= u).sum()))
    return ids[-n:]


@FAMILY
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_exact_window_is_the_lectures_loop(family, temperature, letters):
    """61 tokens where 13 fit: far beyond block_size."""
    model = toy_model(family)
    blackboard = twin(model, letters.encode("hello"), 61, Sampling(temperature=temperature, seed=3))
    for use_cache in (True, False):
        settings = {"max_new_tokens": 61, "temperature": temperature, "seed": 3, "window": "exact"}
        assert tokens(model, letters, use_cache=use_cache, **settings) == blackboard


@WINDOW
@pytest.mark.parametrize("prompt", ["h", "hello there, ", "a prompt that is longer than the model can see"])
@pytest.mark.parametrize(
    "model", [{"family": "classic"}, {"family": "modern"}, *({"block_size": n} for n in (1, 2, 3))]
)
def test_with_the_cache_as_without(model, window, prompt, letters):
    settings = {"max_new_tokens": 47, "temperature": 1.3, "seed": 5, "window": window}
    model = toy_model(**model)
    cached = tokens(model, letters, prompt, use_cache=True, **settings)
    assert cached == tokens(model, letters, prompt, use_cache=False, **settings)
    assert len(cached) == 47


def test_half_a_window_is_kept_when_it_is_full(letters):
    """13 fit. After the 13th the last 6 are read again, then 7 more fit, and so on: the cache at each step."""
    model = toy_model()
    context, row = SlidingContext(model), TextRow(0, Request(tuple(letters.encode("hello there"))), 0, letters, model)
    lengths = []
    for _ in range(18):
        context.next_logits([row])
        lengths.append(len(context.cache))
        row.append(7)
    assert lengths == [11, 12, 13, 6, 7, 8, 9, 10, 11, 12, 13, 6, 7, 8, 9, 10, 11, 12]


def test_samples_that_end_early_do_not_disturb_the_others(letters):
    """Rows that met their stop string leave the batch; the others draw on as if they had been alone."""
    model, settings = toy_model(), {"max_new_tokens": 40, "stop": ["a", "e", "T"], "temperature": 1.5}
    batched = generate(model, letters, "hello", samples=7, seed=1, **settings)
    alone = [generate(model, letters, "hello", seed=1 + i, **settings)[0] for i in range(7)]
    assert [(c.text, c.finish_reason) for c in batched] == [(a.text, a.finish_reason) for a in alone]
    assert len({len(c.pieces) for c in batched}) > 2  # they did end at different times


def test_a_seed_repeats_whatever_the_global_generator_does_and_another_does_not(letters):
    model = toy_model()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = tokens(model, letters, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert tokens(model, letters, seed=1) == first != tokens(model, letters, seed=2)


def test_each_piece_carries_what_the_model_thought(letters):
    """probability is the model's own at temperature 1; sampling_probability what the token had in the draw."""
    model, ids = toy_model(), letters.encode("hello")
    for piece in stream(model, letters, "hello", max_new_tokens=8, temperature=0.5, top_k=3, alternatives=4, seed=2):
        own = next_logits(model, torch.tensor([ids]))[0].softmax(-1)
        assert piece.probability == pytest.approx(own[piece.token].item(), abs=1e-5)
        best = own.topk(4)
        assert [a.token for a in piece.alternatives] == best.indices.tolist()
        assert [a.probability for a in piece.alternatives] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert [a.text for a in piece.alternatives] == [letters.token_text(a.token) for a in piece.alternatives]
        drawn_from = best.values[:3] ** 2 / (best.values[:3] ** 2).sum()
        at = best.indices[:3].tolist().index(piece.token)
        assert piece.sampling_probability == pytest.approx(drawn_from[at].item(), abs=1e-4)
        assert piece.to_dict()["sampling_probability"] == piece.sampling_probability
        assert piece.chance == piece.sampling_probability  # the name of version 0.1
        ids.append(piece.token)


def test_next_logits_is_the_whole_distribution_in_one_call(letters):
    model, ids = toy_model("modern"), torch.tensor([letters.encode("hello there general")])
    torch.testing.assert_close(next_logits(model, ids), model(ids[:, -13:])[:, -1])


def test_an_empty_prompt_starts_from_a_newline_or_the_end_of_a_text(letters, byte_tokenizer):
    model = toy_model()
    assert tokens(model, letters, "", temperature=0) == tokens(model, letters, "\n", temperature=0)
    model = toy_model(vocab_size=257)
    expected = twin(model, [byte_tokenizer.end_of_text], 9, Sampling(temperature=0))
    assert tokens(model, byte_tokenizer, "", temperature=0, max_new_tokens=9) == expected


def test_an_empty_prompt_does_not_warn_about_its_own_newline(recwarn):
    tokenizer = TOKENIZERS["characters"](["abc "])
    assert generate(toy_model(vocab_size=tokenizer.vocab_size), tokenizer, "", max_new_tokens=3)[0].text
    assert not recwarn.list


def test_end_of_text_ends_a_sample_and_is_not_shown(byte_tokenizer):
    model = Scripted([*b"abc", byte_tokenizer.end_of_text, *b"def"], vocab_size=257)
    (done,) = generate(model, byte_tokenizer, "x", temperature=0)
    assert (done.text, done.finish_reason) == ("abc", "end_of_text")
    assert [piece.text for piece in done.pieces] == ["a", "b", "c", ""]


def test_a_prompt_never_becomes_a_special_token(byte_tokenizer):
    prompt = "<|endoftext|>"
    model = Scripted(list(b"abc"), vocab_size=257, prompt=len(prompt))
    assert generate(model, byte_tokenizer, prompt, temperature=0, max_new_tokens=3)[0].text == "abc"


@pytest.mark.parametrize(
    ("written", "n", "shown", "reason"),
    [
        ("é€😀!", 10, ["", "é", "", "", "€", "", "", "", "😀", "!"], "length"),  # 2, 3, 4 and 1 bytes
        ("a😀", 3, ["a", "", "\ufffd"], "length"),  # half of one at the end
    ],
)
def test_a_character_of_several_tokens_is_shown_when_it_is_whole(byte_tokenizer, written, n, shown, reason):
    model = Scripted(list(written.encode()), vocab_size=257)
    (done,) = generate(model, byte_tokenizer, "x", temperature=0, max_new_tokens=n)
    assert ([piece.text for piece in done.pieces], done.finish_reason) == (shown, reason)
    assert done.text == byte_tokenizer.decode([piece.token for piece in done.pieces])
    assert written[0] == "a" or done.pieces[0].token_text == "\\xc3"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["."], "to be"),
        (["be"], "to "),
        ([". Or"], "to be"),
        (["€"], "to be. Or "),  # a stop string of one character and three tokens
        (["Or", "be."], "to "),  # the one that comes first in the text
        (["never", "written"], "to be. Or € not"),
        ([""], "to be. Or € not"),
    ],
)
def test_a_stop_string_ends_the_text_before_it(stop, text, byte_tokenizer):
    written = "to be. Or € not".encode()
    model = Scripted(list(written), vocab_size=257)
    (done,) = generate(model, byte_tokenizer, "x", temperature=0, max_new_tokens=len(written), stop=stop)
    assert done.text == text
    assert done.finish_reason == ("stop" if text != written.decode() else "length")
    assert "".join(piece.text for piece in done.pieces) == done.text


@pytest.mark.parametrize("training", [False, True])
def test_samples_are_drawn_without_dropout_and_the_mode_is_put_back(training, letters):
    """A training loop prints samples in between: dropout has no place in them, and training continues as before."""
    model = toy_model()
    still = tokens(model, letters, seed=1, max_new_tokens=20)
    model.set_dropout(0.5)
    model.train(training)
    pieces = stream(model, letters, "hello", seed=1, max_new_tokens=20)
    assert next(pieces).token == still[0]
    assert model.training is training  # also while the stream is half read
    assert [piece.token for piece in pieces] == still[1:]
    assert {module.training for module in model.modules()} == {training}


def test_no_tokens_are_no_text(letters):
    (done,) = generate(toy_model(), letters, "hello", max_new_tokens=0)
    assert (done.text, done.finish_reason, done.pieces) == ("", "length", [])


def test_repetition_penalty_sees_the_whole_context(letters):
    """A very large penalty repeats no token as long as there are others: 40 different ones of 61."""
    text = tokens(toy_model(), letters, "h", max_new_tokens=40, temperature=0, repetition_penalty=1e6)
    assert len(set(text)) == 40
    uncached = tokens(
        toy_model(), letters, "h", max_new_tokens=40, temperature=0, repetition_penalty=1e6, use_cache=False
    )
    assert text == uncached


def test_the_model_gets_no_gradient_and_its_tensors_stay_usable(letters):
    """Inference mode ends with each piece: between two of them one may train."""
    model = toy_model()
    pieces = stream(model, letters, "hello")
    next(pieces)
    model(torch.tensor([[1, 2]])).sum().backward()
    assert model.head.weight.grad is not None
    assert math.isfinite(next(pieces).probability)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": -1}, ["max_new_tokens=-1", "0 or more"]),
        ({"samples": 0}, ["samples=0", "1 or more"]),
        ({"alternatives": -2}, ["alternatives=-2", "0 or more"]),
        ({"window": "quarter"}, ["'quarter'", "half", "exact"]),
        ({"top_p": 2.0}, ["top_p=2.0", "at most 1"]),
        ({"sampling": Sampling(), "temperature": 0.5, "seed": 1}, ["temperature, seed", "sampling", "one of them"]),
        ({"endless": True, "max_new_tokens": 5}, ["max_new_tokens=5", "endless", "one of them"]),
    ],
)
def test_a_wrong_setting_is_refused_at_the_call_and_not_at_the_first_token(settings, words, letters):
    with pytest.raises(UsageError) as error:
        stream(toy_model(), letters, "hello", **settings)
    assert all(word in str(error.value) for word in words)
