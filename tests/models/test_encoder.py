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


PATCHES: dict[str, Any] = {"stem": "patches", "image_size": 8, "patch_size": 4, "n_channels": 2, "vocab_size": 1}


def toy_vit(**changes: Any) -> Encoder:
    fields = {name: value for name, value in TEXT.items() if name != "block_size"} | PATCHES
    return shaken(Encoder(EncoderConfig.make(**{**fields, "n_classes": 3, **changes}))).eval()


def test_a_neighbourhood_mask_keeps_patches_to_those_beside_them():
    """graph(1) on 4 x 4 patches: one layer sees a square of 3 x 3 and the class token, two layers one of 5 x 5."""
    before = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[..., :4, :4] += 1  # the patch at row 0, column 0
    near_PP = torch.tensor([[max(r, c) for c in range(4)] for r in range(4)])
    for n_layer in (1, 2):
        shape = {"image_size": 16, "n_layer": n_layer, "pooling": "mean", "class_token": False}
        model = toy_vit(**shape, patterns=["graph(1)"])
        changed_PP = (model(before) - model(after)).abs().amax(dim=-1).reshape(4, 4) > 1e-6
        assert torch.equal(changed_PP, near_PP <= n_layer)
        full = toy_vit(**shape)
        full.load_state_dict(model.state_dict())
        assert ((full(before) - full(after)).abs().amax(dim=-1) > 1e-6).all()
    with_token = toy_vit(image_size=16, n_layer=1, patterns=["graph(1)"])
    assert with_token.embedding.distances(torch.device("cpu")).shape == (1, 17, 17)
    changed_T = (with_token(before) - with_token(after)).abs().amax(dim=-1)[0] > 1e-6
    assert changed_T[0] and torch.equal(changed_T[1:].reshape(4, 4), near_PP <= 1)


def toy_images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_convolutions_give_as_many_patches_and_read_each_image_by_itself():
    """Two convolutions of step 2 for patches of 4: a change in one corner reaches the patches that its field overlaps
    (3 + 2 * 2 = 7 pixels wide), and no other image of the batch changes."""
    model = toy_vit(patch_convolutions=True)
    images, pos = toy_images(), torch.arange(5)
    assert model.config.block_size == 5 and model(images).shape == (3, 5, 18)
    assert [conv.out_channels for conv in model.embedding.patch.halves] == [9, 18]
    torch.testing.assert_close(model.train()(images)[1:2], model.eval()(images[1:2]))
    other = images.clone()
    other[0, :, 7, 7] += 1
    here, there = (model.embedding(x, pos, model.positions) for x in (images, other))
    assert torch.equal(here[1:], there[1:]) and torch.equal(here[0, :4], there[0, :4])
    assert not torch.allclose(here[0, 4], there[0, 4])


def test_without_a_class_token_the_mean_of_the_patches_is_classified():
    model, images = toy_vit(class_token=False, pooling="mean"), toy_images()
    vectors_BTC = model(images)
    assert vectors_BTC.shape == (3, 4, 18) and model.config.n_before == 0
    torch.testing.assert_close(model.sequence_logits(vectors_BTC), model.classifier(vectors_BTC.mean(dim=1)))


def test_the_distillation_token_stands_second_and_has_a_head_of_its_own():
    model, images = toy_vit(distillation="heads"), toy_images()
    vectors_BTC = model(images)
    assert vectors_BTC.shape == (3, 6, 18)
    both = model.classifier(vectors_BTC[:, 0]), model.distillation_classifier(vectors_BTC[:, 1])
    torch.testing.assert_close(model.sequence_logits(vectors_BTC), sum(both) / 2)
    assert toy_vit(distillation="token").distillation_classifier is None


def test_sinusoidal_positions_do_not_drown_patches():
    """The scale of the 2017 paper, sqrt(C), is applied to patches as to words."""
    sines, zero = toy_vit(positions="sinusoidal"), torch.arange(5)
    assert sines.config.embedding_scale == pytest.approx(18**0.5)
    x_BTC = sines.embedding(toy_images(), zero, sines.positions)
    sines.embedding.scale = 1.0
    difference = x_BTC - sines.embedding(toy_images(), zero, sines.positions)
    patches = sines.embedding.patch(toy_images()).flatten(2).transpose(1, 2)
    torch.testing.assert_close(difference[:, 1:], patches * (18**0.5 - 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patch_convolutions": True, "image_size": 9, "patch_size": 3}, "patch_size=3 is no power of 2"),
        ({"class_token": False}, "pooling=first needs the class token"),
        ({"class_token": False, "pooling": "mean", "distillation": "token"}, "distillation=token needs"),
        ({"distillation": "heads", "n_classes": 0}, "distillation=heads needs classes"),
        ({"class_token": False, "pooling": "mean", "block_size": 5}, "use block_size=4"),
    ],
)
def test_stems_that_do_not_fit_are_refused(changes: dict[str, Any], named: str):
    with pytest.raises(UsageError, match=named):
        toy_vit(**changes)
    with pytest.raises(UsageError, match="leave them out"):
        toy_encoder(patch_convolutions=True)


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
        ({"pooling": "max"}, "model.pooling='max' is unknown; use first, mean or sum"),
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
        {
            "stem": "patches",
            "image_size": 8,
            "patch_size": 4,
            "block_size": 6,
            "vocab_size": 1,
            "n_classes": 3,
            "patch_convolutions": True,
            "distillation": "heads",
        },
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
