"""The objectives with the models they are made for: padding, pieces, and masks that lower the loss."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from test_every_task import alone
from torch import nn
from toys import shaken

from glassformer.history import build_history
from glassformer.models import Encoder, EncoderConfig, EncoderDecoder, EncoderDecoderConfig
from glassformer.taps import listening
from glassformer.tasks import Classify, MaskedTokens, Spans, Tag, Translate
from glassformer.tasks import losses as cross_entropy

SHAPE = {"vocab_size": 61, "block_size": 31, "n_layer": 2, "n_head": 3, "n_embd": 42, "n_hidden": 23}
TOKENS = {"start_token": 1, "end_token": 2}


def encoder(family: str, **heads) -> Encoder:
    model: Encoder = shaken(Encoder(EncoderConfig.make(family=family, **SHAPE, **heads))).double().eval()
    return model


def translator(family: str, **changes) -> EncoderDecoder:
    config = EncoderDecoderConfig.make(family=family, **SHAPE, **TOKENS, **changes)
    model: EncoderDecoder = shaken(EncoderDecoder(config)).double().eval()
    return model


def searching_lstm() -> nn.Module:
    model = build_history("seq2seq-attention", vocab_size=61, block_size=31, n_embd=13, n_hidden=17, **TOKENS)
    return shaken(model).double().eval()


def texts(n: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [random.integers(10, 61, 9 + (7 * i) % 12) for i in range(n)]


MASKED = MaskedTokens(mask_token=3, vocab_size=61, special_tokens=(0, 1, 2))
SPANS = Spans(sentinels=[9, 8, 7, 6, 5], **TOKENS)
SENTENCE = Translate(**TOKENS)
PAIRS = [(text, text[::-1][: 3 + i]) for i, text in enumerate(texts())]
CASES = {
    "masked, post-norm": (MASKED, lambda: encoder("original", token_head="vocabulary", token_transform=True), texts()),
    "masked, rotary": (MASKED, lambda: encoder("modern", token_head="vocabulary"), texts()),
    "class of the mean": (
        Classify(n_classes=3),
        lambda: encoder("classic", n_classes=3, pooling="mean"),
        [(text, i % 3) for i, text in enumerate(texts())],
    ),
    "class of the first": (
        Classify(n_classes=3),
        lambda: encoder("modern", n_classes=3, pooler=True),
        [(text, i % 3) for i, text in enumerate(texts())],
    ),
    "classes of tokens": (
        Tag(n_classes=4),
        lambda: encoder("classic", n_classes=4, token_head="classes"),
        [(text, np.where(text % 3 == 0, -100, text % 4)) for text in texts()],
    ),
    "translation of 2017": (SENTENCE, lambda: translator("original"), PAIRS),
    "translation, modern": (SENTENCE, lambda: translator("modern", n_decoder_layer=1), PAIRS),
    "translation by an LSTM": (SENTENCE, searching_lstm, PAIRS),
    "spans": (SPANS, lambda: translator("classic"), texts()),
}


@pytest.mark.parametrize("case", CASES)
def test_pads_change_nothing(case: str):
    """Each example by itself costs what it costs beside longer ones, in float64 to 1e-9."""
    asked, make, examples = CASES[case]
    model, batch = make(), asked.collate(examples, np.random.default_rng(0))
    with torch.no_grad():
        together, count, _ = asked.loss(model, batch)
        singly = [asked.loss(model, alone(batch, row)) for row in range(len(examples))]
        rows, each = asked.rows(model, batch), [asked.rows(model, alone(batch, row)) for row in range(len(examples))]
    torch.testing.assert_close(together, sum(loss for loss, _, _ in singly), rtol=1e-9, atol=0)
    assert count == sum(n for _, n, _ in singly) == rows.counts_B.sum()
    for shown, parts in zip(rows, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(shown, torch.cat(parts), rtol=1e-9, atol=0)


@pytest.mark.parametrize("family", ["classic", "modern"])  # both with tied heads
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_translators_head_and_loss_go_in_pieces(monkeypatch, family: str, smoothing: float):
    """Loss and gradients are those of all logits at once, and somebody who listens to the logits gets them whole."""
    asked = Translate(**TOKENS, label_smoothing=smoothing)
    batch = asked.collate(PAIRS)
    results = []
    for form in ("whole", "pieces"):
        model = translator(family)
        if form == "pieces":
            monkeypatch.setitem(cross_entropy.PIECE_BYTES, "cpu", 5 * 4 * 61)
            with mock.patch.object(type(model.decoder), "logits", side_effect=AssertionError("all logits were made")):
                loss, count, _ = asked.loss(model, batch)
            heard = []
            with listening(model, "decoder.logits", lambda _, x, heard=heard: heard.append(x.shape)):
                asked.loss(model, batch)
            assert heard == [(5, 8, 61)]
        else:
            loss, count, _ = asked.loss(model, batch)
        loss.backward()
        assert count == sum(len(target) + 1 for _, target in PAIRS)
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)


def test_what_is_masked_is_found_from_both_sides():
    """Texts count upwards from anywhere. Of the first tokens, which only what stands behind them tells, more than half
    are found after 60 steps; one that reads from left to right would guess 1 in 50."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Encoder(EncoderConfig.make(family="modern", token_head="vocabulary", **{**SHAPE, "n_layer": 1}))
    asked = MaskedTokens(mask_token=3, vocab_size=61, special_tokens=(0, 1, 2), share=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        batch = asked.collate([np.arange(start, start + 7) for start in random.integers(4, 54, 64)], random)
        loss, count, _ = asked.loss(model, batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    inputs = torch.stack([torch.arange(start, start + 7) for start in range(4, 54)])
    targets = torch.full_like(inputs, -100)
    targets[:, 0], inputs[:, 0] = inputs[:, 0], 3
    rows = asked.rows(model.eval(), (inputs, torch.full((50,), 7), targets))
    assert rows.counts_B.tolist() == [1] * 50 and rows.correct_B.sum() > 25
