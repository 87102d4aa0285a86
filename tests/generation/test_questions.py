"""Asking an encoder for classes and masked tokens, a span model for its gaps: against the model called by hand."""

from __future__ import annotations

import pytest
import torch
from toys import shaken, toy_model
from translators import translator

from glassformer.errors import UsageError
from glassformer.generation import Sampling, answer_ids, classify, commands_for, fill_masks, fill_spans
from glassformer.generation.fill_mask import sentinels_of, split_spans
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS, span_specials
from glassformer.tasks import Spans

TEXTS = ["a fine film", "the film was not so good , and the end was worse", "no", "a film of a film"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("bpe", TEXTS * 3, vocab_size=283, specials=MASKED_SPECIALS)


def encoder(tokenizer, **changes) -> Encoder:
    shape = {"n_layer": 2, "n_head": 3, "n_embd": 42, "n_hidden": 23, "block_size": 13, "pooling": "mean"}
    return shaken(Encoder(EncoderConfig.make(vocab_size=tokenizer.vocab_size, **{**shape, **changes}))).eval()


# ---- classes


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_each_text_has_the_class_that_it_has_alone(pooling, tokenizer):
    model = encoder(tokenizer, n_classes=3, pooling=pooling)
    p_NC = classify(model, tokenizer, TEXTS, batch_size=3)
    for text, p_C in zip(TEXTS, p_NC, strict=True):
        ids = torch.tensor([tokenizer.encode(text)])[:, :13]  # as in training: what is too long loses its end
        torch.testing.assert_close(p_C, model.sequence_logits(model(ids)).softmax(dim=-1)[0])
    assert len(tokenizer.encode(TEXTS[1])) > 13 and p_NC.argmax(dim=1).unique().numel() > 1


def test_dropout_is_off_and_put_back(tokenizer):
    model = encoder(tokenizer, n_classes=2)
    still = classify(model, tokenizer, TEXTS)
    model.set_dropout(0.5)
    model.train()
    assert torch.equal(classify(model, tokenizer, TEXTS), still) and model.training


def test_berts_tokenizer_puts_its_tokens_around_a_text(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "bad"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = build_tokenizer("wordpiece", path=str(tmp_path / "vocab.txt"))
    model = encoder(tokenizer, n_classes=2, token_head="vocabulary")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    torch.testing.assert_close(
        classify(model, tokenizer, ["a fine film"])[0], model.sequence_logits(model(ids)).softmax(dim=-1)[0]
    )
    ((first, *_),), filled = fill_masks(model, tokenizer, "a <mask> film")
    ids[0, 2] = 4
    assert first.token == model.token_logits(model(ids))[0, 2].argmax().item()
    assert filled.text.split()[::2] == ["a", "film"]


# ---- masks


def test_each_mask_gets_the_models_own_distribution(tokenizer):
    model = encoder(tokenizer, token_head="vocabulary")
    found, filled = fill_masks(model, tokenizer, "the <mask> was <mask>", alternatives=7)
    mask = tokenizer.special_tokens["<mask>"]
    ids = torch.tensor([[*tokenizer.encode("the"), mask, *tokenizer.encode(" was"), mask]])  # the space is the token's
    p_MV = model.token_logits(model(ids))[0, ids[0] == mask].softmax(dim=-1)
    assert len(found) == 2
    for row, p_V in zip(found, p_MV, strict=True):
        assert [a.token for a in row] == p_V.topk(7).indices.tolist()
        assert [a.probability for a in row] == pytest.approx(p_V.topk(7).values.tolist(), abs=1e-6)
        assert row[0].text == tokenizer.token_text(row[0].token)
    best = [row[0].token for row in found]
    ids[0, ids[0] == mask] = torch.tensor(best)
    assert filled.text == tokenizer.decode(ids[0])
    assert filled.log_probability == pytest.approx(p_MV.max(dim=1).values.log().sum().item(), abs=1e-5)


# ---- gaps


@pytest.fixture(scope="module")
def span_tokenizer():
    return build_tokenizer("bpe", TEXTS * 3, vocab_size=283, specials=span_specials(4))


def span_model(tokenizer):
    V, ids = tokenizer.vocab_size, tokenizer.special_tokens
    return translator(
        vocab_size=V, source_vocab_size=V, start_token=ids["<s>"], end_token=ids["</s>"], block_size=31, seed=2
    )


def test_gaps_are_the_sentinels_that_the_objective_trains(span_tokenizer):
    model, special = span_model(span_tokenizer), span_tokenizer.special_tokens
    objective = Spans(sentinels=sentinels_of(span_tokenizer), start_token=special["<s>"], end_token=special["</s>"])
    encode = span_tokenizer.encode  # of "the film was not so good", "film" and "so good" are missing
    source = [*encode("the"), special["<extra_id_0>"], *encode(" was not"), special["<extra_id_1>"], special["</s>"]]
    text = "the <mask> was not <mask>"
    found = fill_spans(model, span_tokenizer, text, n_best=3, max_new_tokens=9)
    (answer,) = answer_ids(model, [source], n_best=3, max_new_tokens=9)
    for filling, written in zip(found, (answer, *answer.alternatives), strict=True):
        assert filling.log_probability == written.log_probability
        whole = objective.decode(source, written.tokens)
        plain = [i for i in whole if i not in special.values()]
        assert filling.text == span_tokenizer.decode(plain) and len(filling.spans) == 2


def test_what_was_written_goes_into_its_gap(span_tokenizer, monkeypatch):
    """A model that says <extra_id_1> before <extra_id_0>, and one gap twice."""
    from glassformer.generation import Answer, fill_mask

    special, encode = span_tokenizer.special_tokens, span_tokenizer.encode
    written = [*encode("lost"), special["<extra_id_1>"], *encode(" film"), special["<extra_id_0>"], *encode(" no")]
    written += [special["<extra_id_0>"], *encode(" fine"), special["<pad>"]]
    monkeypatch.setattr(fill_mask, "answer_ids", lambda *a, **k: [Answer(tuple(written), -2.0, -1.0)])
    (found,) = fill_spans(span_model(span_tokenizer), span_tokenizer, "a <mask> <mask>, and <mask>.")
    assert found.text == "a fine film, and." and found.spans == ("fine", "film", "")
    assert split_spans([], [1]) == {}


def test_gaps_may_be_drawn(span_tokenizer):
    model = span_model(span_tokenizer)
    draws = [
        fill_spans(model, span_tokenizer, "a <mask>", n_best=3, max_new_tokens=7, sampling=Sampling(seed=seed))
        for seed in (1, 1, 4)
    ]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 3


# ---- which command, and what is refused


def test_every_model_knows_its_command(tokenizer, span_tokenizer):
    asked = {
        "generate": (toy_model(), tokenizer),
        "translate": (translator("seq2seq"), tokenizer),
        "fill translate": (span_model(span_tokenizer), span_tokenizer),
        "classify": (encoder(tokenizer, n_classes=2), tokenizer),
        "fill diffuse": (encoder(tokenizer, token_head="vocabulary"), tokenizer),
        "classify fill diffuse": (encoder(tokenizer, token_head="vocabulary", n_classes=2), tokenizer),
        "tag": (encoder(tokenizer, token_head="classes", n_classes=2), tokenizer),
    }
    for commands, (model, its) in asked.items():
        assert commands_for(model, its) == commands.split()
    image = {"stem": "patches", "image_size": 8, "patch_size": 4, "block_size": 5, "vocab_size": 1}
    for n_classes, commands in ((3, ["classify"]), (0, [])):
        pictures = Encoder(EncoderConfig.make(n_layer=1, n_head=1, n_embd=4, n_classes=n_classes, **image))
        assert commands_for(pictures, tokenizer) == commands


def test_bad_input_is_one_line(tokenizer, span_tokenizer):
    masked, classes = encoder(tokenizer, token_head="vocabulary"), encoder(tokenizer, n_classes=2)
    spans = span_model(span_tokenizer)
    for call, model, its, given, words in (
        (classify, toy_model(), tokenizer, TEXTS, ["Decoder", "an encoder of text is needed"]),
        (classify, masked, tokenizer, TEXTS, ["no classes", "task.kind=classify"]),
        (classify, classes, tokenizer, ["a", " "], ["text 2 is empty", "leave it out"]),
        (fill_masks, spans, tokenizer, "a <mask>", ["EncoderDecoder", "an encoder of text is needed"]),
        (fill_masks, classes, tokenizer, "a <mask>", ["no masks", "task.kind=masked_tokens"]),
        (fill_masks, masked, tokenizer, "a film", ["'a film'", "put <mask> where"]),
        (fill_masks, masked, tokenizer, "<mask>" * 14, ["14 tokens", "13 at most", "shorten"]),
        (fill_spans, masked, tokenizer, "a <mask>", ["no gaps", "task.kind=spans"]),
        (fill_spans, spans, span_tokenizer, "a", ["'a'", "put <mask> where"]),
        (fill_spans, spans, span_tokenizer, "<mask>" * 5, ["5 gaps", "knows 4", "fewer"]),
    ):
        with pytest.raises(UsageError) as error:
            call(model, its, given)
        assert all(word in str(error.value) for word in words), error.value
    with pytest.raises(UsageError, match=r"alternatives=0.*1 or more"):
        fill_masks(masked, tokenizer, "a <mask>", alternatives=0)
