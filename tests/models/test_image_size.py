"""A Vision Transformer at another image size: equal to transformers' interpolation, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import shaken

from glassformer.errors import UsageError
from glassformer.hub import save
from glassformer.models import Encoder, EncoderConfig
from glassformer.models.image_size import at_image_size

SHAPE: dict[str, Any] = {
    "n_layer": 2, "n_head": 3, "n_embd": 18, "vocab_size": 1, "n_classes": 5,
    "stem": "patches", "image_size": 12, "patch_size": 4, "n_channels": 2,
}  # fmt: skip


def toy(**changes: Any) -> Encoder:
    return shaken(Encoder(EncoderConfig.make(**{**SHAPE, **changes}))).eval()


@pytest.mark.parametrize(("size", "distillation"), [(20, "none"), (8, "none"), (20, "heads"), (16, "token")])
@torch.no_grad()
def test_logits_are_those_of_transformers(size: int, distillation: str, tmp_path: Path):
    import transformers

    ours = toy(distillation=distillation)
    save(tmp_path, ours)
    name = {"none": "ViTForImageClassification", "token": "DeiTForImageClassification"}.get(
        distillation, "DeiTForImageClassificationWithTeacher"
    )
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    pixels = torch.randn(2, 2, size, size, generator=torch.Generator().manual_seed(0))
    larger = at_image_size(ours, size)
    expected = theirs(pixels, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(larger.sequence_logits(larger(pixels)), expected, atol=1e-5, rtol=1e-4)
    assert larger.config.image_size == size and ours.config.image_size == 12
    assert larger.blocks[0].attention.qkv.weight.data_ptr() == ours.blocks[0].attention.qkv.weight.data_ptr()


def test_the_same_size_is_the_same_model_and_positions_stay_where_they_are():
    model = toy()
    assert at_image_size(model, 12) is model
    with torch.no_grad():  # a ramp along rows stays one, whatever the number of patches
        model.positions.weight[1:] = torch.arange(3.0).repeat_interleave(3)[:, None]
    rows = at_image_size(model, 24).positions.weight[1:].view(6, 6, 18)
    assert torch.allclose(rows[:, :1], rows) and (rows.diff(dim=0) >= 0).all() and rows[0, 0, 0] < 0.5
    torch.testing.assert_close(at_image_size(model, 24).positions.weight[0], model.positions.weight[0])


@pytest.mark.parametrize(
    ("changes", "size", "named"),
    [
        ({}, 10, "image_size=10 is not divisible"),
        ({"positions": "sinusoidal"}, 24, "positions=sinusoidal number"),
        ({"patterns": ("bidirectional_window(2)",)}, 24, "patterns="),
    ],
)
def test_what_would_be_another_model_is_refused(changes: dict[str, Any], size: int, named: str):
    with pytest.raises(UsageError, match=named):
        at_image_size(toy(**changes), size)


def test_a_neighbourhood_mask_follows_the_image():
    larger = at_image_size(toy(patterns=["graph(1)", "full"]), 24)
    assert larger.embedding.distances(torch.device("cpu")).amax() == 5
    assert larger(torch.zeros(1, 2, 24, 24)).shape == (1, 37, 18)


def test_without_positions_there_is_nothing_to_interpolate():
    assert at_image_size(toy(positions="none"), 24)(torch.zeros(1, 2, 24, 24)).shape == (1, 37, 18)
