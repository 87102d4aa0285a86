"""Answers to texts: as the objective trains them, batched as one likes, searched or drawn; where the model looked."""

from __future__ import annotations

import math

import pytest
import torch
from toys import toy_model
from translators import END, START, sources, translator

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation import (
    Answer,
    Sampling,
    answer,
    answer_ids,
    beam_search,
    cross_attention,
    plain_text,
    sample_answers,
    source_ids,
)
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.special_tokens import SENTENCE_SPECIALS
from glassformer.tasks import Translate

TEXTS = ["the cat sat", "a dog", "the dog sat on a cat", "on", "cat a the dog"]
KINDS = ["original", "modern", "seq2seq", "seq2seq-attention"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("bpe", TEXTS * 2, vocab_size=277, specials=SENTENCE_SPECIALS)


def toy(tokenizer, kind="original", **changes):
    """A translator of this vocabulary, whose own start and end it uses."""
    V, ids = tokenizer.vocab_size, tokenizer.special_tokens
    shape = {"vocab_size": V, "source_vocab_size": V, "block_size": 37}
    model = translator(kind, start_token=ids["<s>"], end_token=ids["</s>"], **{**shape, **changes})
    head = model.head if kind.startswith("seq2seq") else model.decoder.head
    with torch.no_grad():
        head.bias[ids["</s>"]] += 3
    return model


def test_a_source_is_read_as_it_was_trained(tokenizer):
    """The text, then the end token; START is for the decoder alone. A tokenizer without the token adds nothing."""
    end = tokenizer.special_tokens["</s>"]
    assert source_ids(tokenizer, "a dog") == [*tokenizer.encode("a dog"), end]
    assert source_ids(tokenizer, "a</s>")[:-1].count(end) == 0  # typed text stays text
    characters = build_tokenizer("characters", TEXTS)
    assert source_ids(characters, "a dog") == characters.encode("a dog")


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_in_order_whatever_the_batches(kind, tokenizer):
    model = toy(tokenizer, kind)
    whole = answer(model, tokenizer, TEXTS, max_new_tokens=7, n_best=2)
    for size in (1, 2):
        cut = answer(model, tokenizer, TEXTS, max_new_tokens=7, n_best=2, batch_size=size)
        for one, other in zip(whole, cut, strict=True):
            assert one.tokens == other.tokens and one.text == other.text
            assert one.score == pytest.approx(other.score, abs=1e-4)
    assert len({found.tokens for found in whole}) > 1


def test_an_answer_is_what_the_search_found_and_its_probability_what_the_objective_reports(tokenizer):
    """The objective, given the answer as the target, says how surprising it is: the same number."""
    model = toy(tokenizer)
    end = tokenizer.special_tokens["</s>"]
    objective = Translate(start_token=tokenizer.special_tokens["<s>"], end_token=end)
    for text in TEXTS:
        (found,) = answer(model, tokenizer, [text], n_best=3, max_new_tokens=9)
        ids = source_ids(tokenizer, text)
        (best,) = beam_search(model, torch.tensor([ids]), torch.tensor([len(ids)]), n_best=3, max_new_tokens=9)
        assert [f.tokens for f in (found, *found.alternatives)] == [h.tokens[:-1] for h in best]
        assert end not in found.tokens and found.text == plain_text(tokenizer, found.tokens)
        assert found.score >= found.alternatives[0].score >= found.alternatives[1].score
        for each in (found, *found.alternatives):
            rows = objective.rows(model, objective.collate([(ids, each.tokens)]))
            assert -rows.sums_B.item() == pytest.approx(each.log_probability, rel=1e-5, abs=1e-4)


def test_special_tokens_are_no_text(tokenizer):
    special = tokenizer.special_tokens
    ids = [special["<s>"], *tokenizer.encode("a dog"), special["<pad>"], special["</s>"]]
    assert plain_text(tokenizer, ids) == "a dog"


def test_source_and_target_may_have_different_tokenizers(tokenizer):
    letters = build_tokenizer("characters", TEXTS)
    model = toy(tokenizer, source_vocab_size=letters.vocab_size)
    (found,) = answer(model, tokenizer, ["a dog"], source_tokenizer=letters, max_new_tokens=5)
    (same,) = answer_ids(model, [letters.encode("a dog")], max_new_tokens=5)
    assert found.tokens == same.tokens and same.text == ""
    assert found.to_dict()["tokens"] == found.tokens and Answer(**{**found.to_dict(), "alternatives": ()}) == found


# ---- draws


@pytest.mark.parametrize("kind", KINDS)
def test_draws_at_temperature_0_are_greedy(kind):
    model, batch = translator(kind), sources(5, 7, 1, 3)
    drawn = sample_answers(model, *batch, sampling=Sampling(temperature=0), max_new_tokens=9)
    for (one,), (best,) in zip(drawn, beam_search(model, *batch, beam=1, max_new_tokens=9), strict=True):
        assert one.tokens[:8] == best.tokens[:8] if len(best.tokens) == 9 else one.tokens == best.tokens
        assert one.ended == (one.tokens[-1] == END)
        if len(best.tokens) < 9:
            assert one.log_probability == pytest.approx(best.log_probability, abs=1e-4)


@pytest.mark.parametrize("kind", ["original", "seq2seq-attention"])
def test_a_sample_is_the_same_alone_and_in_a_batch(kind):
    model, (source_BS, lengths_B) = translator(kind, end=2.0), sources(5, 7, 1, 3)
    batched = sample_answers(model, source_BS, lengths_B, samples=3, sampling=Sampling(seed=7), max_new_tokens=11)
    for b, samples in enumerate(batched):
        for i, one in enumerate(samples):
            row = source_BS[b : b + 1, : lengths_B[b]]
            ((alone,),) = sample_answers(
                model, row, lengths_B[b : b + 1], sampling=Sampling(seed=7 + i), max_new_tokens=11
            )
            assert alone.tokens == one.tokens
            assert alone.log_probability == pytest.approx(one.log_probability, abs=1e-4)
    assert len({h.tokens for samples in batched for h in samples}) > 6
    assert all(h.ended == (h.tokens[-1] == END) and len(h.tokens) <= 11 for samples in batched for h in samples)


def test_drawn_answers_come_as_often_as_they_are_likely():
    """2,000 draws of one token: what the model thinks, within 5 deviations (one false alarm in 10^5)."""
    model, (source_BS, lengths_B) = translator("modern", vocab_size=5, seed=1), sources(5)
    drawn = sample_answers(model, source_BS, lengths_B, samples=2000, max_new_tokens=1)
    p_V = model(source_BS, torch.tensor([[START]]), lengths_B)[0, -1].softmax(dim=-1).tolist()
    for token, p in enumerate(p_V):
        n = sum(h.tokens[0] == token for h in drawn[0])
        assert abs(n - 2000 * p) <= 5 * math.sqrt(2000 * p * (1 - p)) + 1


def test_sampled_answers_of_logits_that_are_no_numbers_are_an_error():
    model = translator()
    with torch.no_grad():
        model.decoder.head.bias.fill_(math.nan)
    for temperature in (0, 1.0):
        with pytest.raises(DivergenceError, match="NaN"):
            sample_answers(model, *sources(5), sampling=Sampling(temperature))


# ---- where it looked


@pytest.mark.parametrize(("kind", "shape"), [("original", (2, 3, 4, 5)), ("seq2seq-attention", (1, 1, 4, 5))])
def test_cross_attention_is_a_distribution_over_the_source_for_each_target_token(kind, shape):
    model = translator(kind)
    model.train()
    model.set_dropout(0.5)
    seen = cross_attention(model, [7, 11, 13, 17, END], [4, 5, 6, END])
    assert seen.shape == shape and model.training
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(shape[:-1]))
    assert not any(tap.listener for tap in vars(model).values() if hasattr(tap, "listener"))
    first = cross_attention(model, [7, 11, 13, 17, END], [4])
    torch.testing.assert_close(first, seen[:, :, :1])  # row t has read what is before t, and that alone
    other = cross_attention(model, [7, 11, 13, 17, END], [4, 5, 6, 8])
    torch.testing.assert_close(other, seen)


def test_where_a_word_stands_in_the_source_is_where_its_column_stands():
    """Keys made to match one source token alone: all heads of the last layer look at its place, wherever it is."""
    model = translator("modern", positions="none")
    cross = model.decoder.blocks[-1].cross_attention
    for source in ([7, 1, 1, 1, 1], [1, 1, 1, 7, 1]):
        with torch.no_grad():
            vectors_SC = model.encode(torch.tensor([source])).vectors_BSC[0]
            odd = vectors_SC[source.index(7)] - vectors_SC[source.index(1)]
            cross.query.weight.zero_()
            cross.query.bias = torch.nn.Parameter(torch.ones(42))
            cross.key_value.weight[:42] = 100 * odd
            if cross.query_norm is not None:
                cross.query_norm.weight.fill_(30.0)
        assert cross_attention(model, source, [4, 5])[-1].argmax(dim=-1).flatten().tolist() == [source.index(7)] * 6


# ---- what is refused


@pytest.mark.parametrize(
    ("texts", "settings", "words"),
    [
        (["a", " \n"], {}, ["text 2 is empty", "leave it out"]),
        (["a"], {"batch_size": 0}, ["batch_size=0", "1 or more"]),
        (["a"], {"beam": 0}, ["beam=0", "1 (greedy) or more"]),
        (["on " * 40], {}, ["source 1 has 42 tokens", "37 at most", "cut it"]),
        (["a"], {"sampling": Sampling(), "n_best": 0}, ["samples=0", "1 or more"]),
        (["a"], {"sampling": Sampling(), "max_new_tokens": 0}, ["max_new_tokens=0", "1 or more"]),
    ],
)
def test_bad_input_is_one_line(texts, settings, words, tokenizer):
    with pytest.raises(UsageError) as error:
        answer(toy(tokenizer), tokenizer, texts, **settings)
    assert all(word in str(error.value) for word in words)


def test_no_texts_no_answers(tokenizer):
    assert answer(toy(tokenizer), tokenizer, []) == []


def test_other_models_are_refused(tokenizer):
    for call, words in (
        (lambda: answer(toy_model(), tokenizer, ["a"]), ["Decoder", "encoder-decoder is needed", "generate"]),
        (lambda: cross_attention(translator("seq2seq"), [4, 5], [6]), ["no cross-attention"]),
        (lambda: cross_attention(translator(), [4, 5], []), ["source and target", "a token each"]),
        (lambda: answer_ids(translator(), [[1], []]), ["source 2 is empty", "leave it out"]),
    ):
        with pytest.raises(UsageError) as error:
            call()
        assert all(word in str(error.value) for word in words), error.value
