"""The encoder: every token sees every token but padding; one class for texts, images and sound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import shaken, toy_ids

from glassformer.errors import UsageError
from glassformer.layers import POSITIONS
from glassformer.models import Encoder, EncoderConfig, parameter_count

TEXT: dict[str, Any] = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
FAMILIES = pytest.mark.parametrize("family", ["classic", "modern", "original"])


def toy_encoder(**changes: Any) -> Encoder:
    return shaken(Encoder(EncoderConfig.make(**{**TEXT, **changes}))).eval()


@FAMILIES
def test_padding_changes_nothing(family: str):
    """A sequence of 5 in a batch padded to 11 has the same vectors, classes and pooled vector as alone."""
    model = toy_encoder(family=family, n_classes=3, pooling="mean", token_head="vocabulary")
    ids_BT, lengths_B = toy_ids(2, 11), torch.tensor([11, 5])
    together, alone = model(ids_BT, lengths_B), model(ids_BT[1:, :5])
    torch.testing.assert_close(together[1:, :5], alone)
    logits = model.sequence_logits(together, lengths_B)
    torch.testing.assert_close(logits[1:], model.sequence_logits(alone))
    changed = ids_BT.clone()
    changed[1, 5:] += 1
    changed %= 61
    assert torch.equal(model(changed, lengths_B)[1, :5], together[1, :5])


@FAMILIES
def test_the_first_token_feels_the_last(family: str):
    model, ids_BT = toy_encoder(family=family), toy_ids(1, 7)
    other = ids_BT.clone()
    other[0, 6] = (other[0, 6] + 1) % 61
    assert not torch.allclose(model(ids_BT)[:, 0], model(other)[:, 0])


def test_pooling_by_hand():
    model = toy_encoder(n_classes=3, pooling="mean")
    vectors_BTC = torch.arange(24.0).view(1, 4, 6)
    mean = model.pool(vectors_BTC, torch.tensor([2]))
    assert mean.tolist() == [[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]
    assert toy_encoder(n_classes=3).pool(vectors_BTC).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]


def test_token_heads_ask_all_places_or_some():
    model = toy_encoder(token_head="vocabulary", token_transform=True, head_bias=True)
    vectors_BTC = model(toy_ids(2, 7))
    logits_BTV = model.token_logits(vectors_BTC)
    assert logits_BTV.shape == (2, 7, 61)
    torch.testing.assert_close(model.token_logits(vectors_BTC[0, [1, 4]]), logits_BTV[0, [1, 4]])
    assert model.head is not None and model.head.weight is model.embedding.token.weight
    assert toy_encoder(token_head="classes", n_classes=5).token_logits(vectors_BTC).shape == (2, 7, 5)


def test_logits_are_scaled_and_capped_as_those_of_a_decoder():
    model = toy_encoder(token_head="vocabulary", n_classes=3, logit_scale=0.5, logit_softcap=2.0)
    vectors_BTC = model(toy_ids(2, 7))
    for asked, head, vectors in (
        (model.token_logits(vectors_BTC), model.head, vectors_BTC),
        (model.sequence_logits(vectors_BTC), model.classifier, vectors_BTC[:, 0]),
    ):
        torch.testing.assert_close(asked, 2 * torch.tanh(head(0.5 * vectors) / 2))
    assert asked.abs().max() < 2


def test_segments_are_distinguished_and_the_first_is_the_default():
    model, ids_BT = toy_encoder(n_segments=2, embedding_norm=True), toy_ids(1, 7)
    zeros, ones = torch.zeros(1, 7, dtype=torch.int64), torch.ones(1, 7, dtype=torch.int64)
    assert torch.equal(model(ids_BT), model(ids_BT, segments_BT=zeros))
    assert not torch.allclose(model(ids_BT), model(ids_BT, segments_BT=ones))


def test_an_image_becomes_a_class_token_and_its_patches():
    """One patch changed: with no blocks' help only its own vector differs."""
    shape = {"stem": "patches", "image_size": 6, "patch_size": 3, "n_channels": 2, "block_size": 5, "vocab_size": 1}
    model = toy_encoder(**shape, n_classes=3)
    images = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert model(images).shape == (2, 5, 18)
    assert model.sequence_logits(model(images)).shape == (2, 3)
    other = images.clone()
    other[:, :, 0:3, 3:6] += 1  # the upper right patch, the second
    pos = torch.arange(5)
    stems = [model.embedding(x, pos, model.positions) for x in (images, other)]
    assert [not torch.equal(a, b) for a, b in zip(*(s.unbind(1) for s in stems), strict=True)] == [
        False, False, True, False, False,
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"images of shape \(2, 7, 6\) where \(2, 6, 6\) is needed; resize them"):
        model(torch.zeros(1, 2, 7, 6))


def test_sound_is_halved():
    model = toy_encoder(stem="frames", n_mels=7, vocab_size=1, positions="sinusoidal", sinusoid_layout="whisper")
    frames = torch.randn(2, 7, 21, generator=torch.Generator().manual_seed(0))
    assert model(frames).shape == (2, 11, 18)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "patches", "image_size": 28, "patch_size": 5}, "image_size=28 is not divisible by patch_size=5"),
        ({"stem": "patches", "image_size": 6, "patch_size": 3}, "block_size=13 where patches and class token are 5"),
        ({"token_head": "classes"}, "token_head=classes needs classes to choose from; set n_classes"),
        ({"pooling": "max"}, "model.pooling='max' is unknown; use first or mean"),
        ({"pooler_": True}, "unknown key model.pooler_; did you mean pooler?"),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], message: str):
    with pytest.raises(UsageError) as error:
        EncoderConfig.make(**{**TEXT, **changes})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_asked_must_be_there():
    model = toy_encoder()
    vectors_BTC = model(toy_ids(1, 3))
    with pytest.raises(UsageError, match="no head for sequences; set n_classes"):
        model.sequence_logits(vectors_BTC)
    with pytest.raises(UsageError, match="no head for tokens; set token_head=vocabulary"):
        model.token_logits(vectors_BTC)
    with pytest.raises(UsageError, match="14 tokens do not fit into block_size=13; shorten the input"):
        model(toy_ids(1, 14))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_classes": 3, "pooler": True, "token_head": "vocabulary", "token_transform": True, "head_bias": True},
        {"family": "original", "n_segments": 2, "embedding_norm": True, "token_head": "classes", "n_classes": 4},
        {"family": "modern", "token_head": "vocabulary", "tied_head": False, "n_expert": 3},
        {"stem": "patches", "image_size": 6, "patch_size": 3, "block_size": 5, "vocab_size": 1, "n_classes": 3},
        {"stem": "frames", "n_mels": 7, "vocab_size": 1},
    ],
)
def test_parameters_are_counted_without_building(changes: dict[str, Any]):
    config = EncoderConfig.make(**{**TEXT, **changes})
    assert parameter_count(config) == Encoder(config).parameter_count()


@FAMILIES
def test_every_parameter_is_used(family: str):
    model = toy_encoder(family=family, n_classes=3, pooler=True, token_head="vocabulary", tied_head=False)
    vectors_BTC = model(toy_ids(2, 7))
    (model.token_logits(vectors_BTC).square().sum() + model.sequence_logits(vectors_BTC).square().sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_only_positions_encode_the_order(positions: str):
    """Attention is about sets: without positions the vectors of shuffled tokens are the vectors, shuffled."""
    model, ids_BT = toy_encoder(positions=positions), toy_ids(2, 11)
    order_T = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    shuffled, moved = model(ids_BT)[:, order_T], model(ids_BT[:, order_T])
    if positions == "none":
        torch.testing.assert_close(shuffled, moved, atol=1e-5, rtol=1e-5)
    else:
        assert (shuffled - moved).abs().amax(dim=-1).min() > 1e-3  # for every token
