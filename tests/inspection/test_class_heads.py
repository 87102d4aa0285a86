"""The lens and attribution on classifiers: of images, of texts, with one head over classes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stacks import TEXT, TOKENIZER, encoder
from toys import shaken

from glassformer.errors import UsageError
from glassformer.inspection import attribution, lens, look
from glassformer.models import Encoder, EncoderConfig

IMAGE = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(1))
LABELS = ["hat", "cat", "bat", "rat", "mat"]
MEAN = {"class_token": False, "pooling": "mean"}


def toy(**changes: Any) -> Encoder:
    shape: dict[str, Any] = {"n_layer": 2, "n_head": 3, "n_embd": 18, "vocab_size": 1, "n_classes": 5}
    images = {"stem": "patches", "image_size": 9, "patch_size": 3, "n_channels": 2}
    return shaken(Encoder(EncoderConfig.make(**{**shape, **images, **changes}))).eval()


@pytest.mark.parametrize("changes", [{}, MEAN, {"distillation": "heads"}, {"pooler": True}, {"norm_place": "post"}])
@torch.no_grad()
def test_each_row_is_the_answer_of_a_classifier_that_ends_there(changes: dict[str, Any]):
    model = toy(**changes)
    view = lens(model, None, IMAGE, pin="bat", labels=LABELS, top=5)
    for layers in range(3):
        short = copy.deepcopy(model)
        short.blocks = short.blocks[:layers]
        short.masks = short.masks[:layers]
        p_N = short.sequence_logits(short(IMAGE[None]))[0].softmax(dim=-1)
        assert view.pinned_probability[layers] == pytest.approx(float(p_N[2]), abs=1e-5)
        assert view.top_tokens[layers] == [LABELS[i] for i in p_N.argsort(descending=True).tolist()]
    T = model.config.block_size
    assert view.position == -1 and view.grid_ids.shape == (3, T) and "of the whole" in str(view)
    if model.config.pooling == "first" and not changes.get("distillation"):
        np.testing.assert_allclose(view.grid_probabilities[:, 0], view.top_probabilities[:, 0], atol=1e-5)


def test_a_place_of_its_own_is_read_as_if_it_were_all():
    model = toy(**MEAN)
    view = lens(model, None, IMAGE, position=4, labels=LABELS)
    with torch.no_grad():
        x_TC = model(IMAGE[None])[0]
        p_TN = model.classifier(x_TC).softmax(dim=-1)
    np.testing.assert_allclose(view.top_probabilities[-1], p_TN[4].sort(descending=True).values.numpy(), atol=1e-5)
    assert view.grid_ids[-1].tolist() == p_TN.argmax(dim=-1).tolist()


@pytest.mark.parametrize(
    "changes", [{}, {"norm_place": "post"}, {"distillation": "token"}, {"positions": "sinusoidal"}]
)
def test_the_parts_add_up_to_the_logit_of_a_class(changes: dict[str, Any]):
    model = toy(**changes)
    with torch.no_grad():
        logits_N = model.sequence_logits(model(IMAGE[None]))[0].double()
    view = attribution(model, None, IMAGE, token="rat", against="hat", check=2, labels=LABELS)
    assert view.logit == pytest.approx(float(logits_N[3] - logits_N[0]), abs=1e-5)
    assert view.total == pytest.approx(view.logit, abs=1e-5) and view.token == "rat" and view.against == "hat"
    assert view.probability == pytest.approx(float(logits_N.softmax(dim=-1)[3]), abs=1e-5)
    assert len(view.checks) == 2 and all(abs(c.here) > 1e-9 for c in view.checks)


def test_a_classifier_of_texts_too():
    model = encoder(token_head="none", n_classes=3)
    assert attribution(model, TOKENIZER, TEXT, labels="abc").token in "abc"
    assert look("lens", model, TOKENIZER, TEXT, labels=["a", "b", "c"], pin="c").pinned_id == 2
    assert lens(model, TOKENIZER, TEXT, pin="1").pinned == "1"  # without names: numbers


@pytest.mark.parametrize("changes", [MEAN, {"distillation": "heads"}, {"pooler": True}])
def test_a_logit_that_is_no_sum_at_one_place_is_refused(changes: dict[str, Any]):
    with pytest.raises(UsageError, match="no sum over the parts at one place"):
        attribution(toy(**changes), None, IMAGE)


def test_what_is_no_class_or_no_place_is_refused():
    with pytest.raises(UsageError, match=r"pin=bet is no class.*bat"):
        lens(toy(), None, IMAGE, pin="bet", labels=LABELS)
    with pytest.raises(UsageError, match="position=3"):
        attribution(toy(), None, IMAGE, position=3)
    with pytest.raises(UsageError, match="no head over tokens"):
        lens(toy(n_classes=1), None, IMAGE)  # one number: a regression
