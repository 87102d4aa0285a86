"""Attention over an image, roll-out, and positions: by hand, by command, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from toys import shaken

from glassformer.errors import UsageError
from glassformer.hub import Bundle, save
from glassformer.inspection.attention import attention
from glassformer.inspection.image_attention import image_attention, positions, rolled_out, rollout
from glassformer.models import Decoder, Encoder, EncoderConfig, ModelConfig
from glassformer.processors.image import ImageProcessor
from glassformer.views import VIEWS

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 3, "n_embd": 18, "vocab_size": 1, "n_classes": 5}
IMAGES = {"stem": "patches", "image_size": 9, "patch_size": 3, "n_channels": 1}
IMAGE = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(1))


def toy(**changes: Any) -> Encoder:
    return shaken(Encoder(EncoderConfig.make(**{**SHAPE, **IMAGES, **changes}))).eval()


def test_a_head_on_the_image_is_its_row_of_the_pattern():
    model = toy(distillation="token")
    patterns = attention(model, None, IMAGE).patterns
    seen = image_attention(model, None, IMAGE, layer=0, query=1)
    assert seen.heads.shape == (3, 3, 3) and seen.layer == 0
    np.testing.assert_allclose(seen.heads[2].ravel(), patterns[0, 2, 1, 2:])
    assert seen.image.min() == 0 and seen.image.max() == 1 and len(seen.figures()) == 5


def test_roll_out_by_hand():
    first, second = np.array([[[1.0, 0.0], [0.5, 0.5]]]), np.array([[[0.25, 0.75], [1.0, 0.0]]])
    by_hand = (second[0] + np.eye(2)) / 2 @ ((first[0] + np.eye(2)) / 2)
    np.testing.assert_allclose(rolled_out(np.stack([first, second])), by_hand)
    seen = rollout(toy(), None, IMAGE)
    np.testing.assert_allclose(seen.rollout.sum(axis=-1), 1.0)
    np.testing.assert_allclose(seen.patches.ravel(), seen.rollout[0, 1:])


def test_positions_are_compared_where_they_lie():
    model = toy()
    view = positions(model)
    vectors = model.positions.weight.detach()
    expected = torch.nn.functional.cosine_similarity(vectors[1], vectors[6], dim=0)
    assert view.cosines[1, 6] == pytest.approx(float(expected), abs=1e-5)
    (grid,) = view.figures()
    assert grid.values.shape == (11, 11) and grid.values[1, 2] == pytest.approx(view.cosines[1, 6])
    assert np.isnan(grid.values[3]).all()  # patch (0, 0) to patch (1, 2): row 1, column 2 of the first tile
    text = ModelConfig.make(vocab_size=7, block_size=5, n_layer=1, n_head=1, n_embd=4, positions="sinusoidal")
    assert positions(Decoder(text)).figures()[0].values.shape == (5, 5)


def test_what_has_none_is_refused():
    text = Decoder(ModelConfig.make(vocab_size=7, block_size=5, n_layer=1, n_head=1, n_embd=4, positions="rotary"))
    with pytest.raises(UsageError, match="positions=rotary add no vectors"):
        positions(text)
    with pytest.raises(UsageError, match="and no images"):
        image_attention(text, None, "abc")
    with pytest.raises(UsageError, match="query=10"):
        rollout(toy(), None, IMAGE, query=10)


PICTURE = ["a.png"]
READS_PICTURES: dict[str, list[str]] = {
    "parameters": [],
    "tensors": [],
    "positions": [],
    "attention": PICTURE,
    "attention-grid": PICTURE,
    "ablation": PICTURE,
    "activations": PICTURE,
    "attention-walkthrough": PICTURE,
    "image-attention": PICTURE,
    "rollout": PICTURE,
    "residual": PICTURE,
    "lens": [*PICTURE, "--pin", "c"],
    "attribution": [*PICTURE, "--against", "c", "--token", "d"],
}
OTHERS = {
    "analogy": ["a", "b", "c"],
    "context": ["b", "a b", "b"],
    "components": ["a", "b"],
    "direction": ["a:b"],
    "neighbours": ["a"],
    "neurons": [],
    "induction": [],
    "vocabulary": [],
    "promoters": ["a"],
    "steering": [*PICTURE, "a=>b"],
    "links": [*PICTURE, "a", "b"],
    "patching": [*PICTURE, *PICTURE],
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A folder with a model of images and a picture."""
    PIL = pytest.importorskip("PIL.Image", reason="needs the package pillow")
    folder = tmp_path_factory.mktemp("picture")
    model, processor = toy(), ImageProcessor(size=(9, 9), mean=(0.5,), std=(0.5,))
    save(folder / "model", Bundle(model, processor, processor, tuple("abcde")))
    PIL.fromarray((IMAGE[0].numpy() * 255).astype(np.uint8)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_draws_a_picture_or_says_in_a_line_that_it_is_of_texts(name: str, glassformer, picture, monkeypatch):
    monkeypatch.chdir(picture)
    words = READS_PICTURES.get(name, OTHERS.get(name, PICTURE))
    shown = glassformer("look", name, "model", *words, "--json")
    if name in READS_PICTURES:
        assert shown.code == 0, shown.err
        assert json.loads(shown.out) and glassformer("look", name, "model", *words).code == 0
    else:
        assert shown.code == 2 and not shown.out, shown.out
        assert shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
        assert "text" in shown.err or "token" in shown.err, shown.err


def test_a_picture_that_is_not_there_is_one_line(glassformer, picture, monkeypatch):
    monkeypatch.chdir(picture)
    missing = glassformer("look", "rollout", "model", "none.png")
    assert missing.code == 1 and missing.err.startswith("error: none.png") and missing.err.count("\n") == 1
