"""Sinusoidal positions: the three layouts that exist in the wild, by hand and against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.whisper.modeling_whisper import sinusoids

from glassformer.errors import UsageError
from glassformer.layers import SINUSOID_LAYOUTS, SinusoidalPositions


def table(n_embd: int, length: int, layout: str) -> torch.Tensor:
    """What is added to a zero at positions 0 ... length - 1."""
    positions = SinusoidalPositions(n_embd=n_embd, block_size=length, sinusoid_layout=layout)
    return positions.add(torch.zeros(1, length, n_embd), torch.arange(length))[0]


def test_the_paper_by_hand():
    """Sect. 3.5 with four channels: wavelengths 2 pi and 100 times that, sine and cosine side by side."""
    sin, cos = math.sin, math.cos
    for pos, row in enumerate(table(4, 6, "interleaved").tolist()):
        assert row == pytest.approx([sin(pos), cos(pos), sin(pos / 100), cos(pos / 100)], abs=1e-7)


@pytest.mark.parametrize("n_embd", [2, 10, 64])
def test_halves_equal_marians(n_embd: int):
    theirs = MarianSinusoidalPositionalEmbedding(37, n_embd).create_weight()
    torch.testing.assert_close(table(n_embd, 37, "halves"), theirs, rtol=0, atol=1e-6)
    by_halves = torch.cat((table(n_embd, 37, "interleaved")[:, 0::2], table(n_embd, 37, "interleaved")[:, 1::2]), 1)
    assert torch.equal(by_halves, table(n_embd, 37, "halves"))


@pytest.mark.parametrize("n_embd", [4, 10, 64])
def test_whispers_reach_the_last_wavelength(n_embd: int):
    """Computed in single precision there, hence the tolerance; Marian's spacing is far outside of it."""
    theirs = sinusoids(37, n_embd)
    torch.testing.assert_close(table(n_embd, 37, "whisper"), theirs, rtol=0, atol=1e-5)
    assert (table(n_embd, 37, "halves") - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("layout", SINUSOID_LAYOUTS)
def test_two_positions_are_as_alike_as_their_distance(layout: str):
    """The dot product of two rows is the sum of cos(frequency * distance): the same all along the table."""
    rows = table(10, 41, layout).double()
    alike = rows @ rows.T
    for distance in (0, 1, 7):
        along = alike.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-5)
    assert alike[0, 0] == pytest.approx(5) and alike[0, 7] < 4.9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 5}, "n_embd=5 is odd; sines and cosines come in pairs: try n_embd=6"),
        (
            {"n_embd": 2, "sinusoid_layout": "whisper"},
            "n_embd=2 is too small for sinusoid_layout='whisper'; use 4 or more",
        ),
        ({"n_embd": 4, "sinusoid_layout": "halfs"}, "sinusoid_layout='halfs' is unknown; did you mean halves?"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message: str):
    with pytest.raises(UsageError) as error:
        SinusoidalPositions(block_size=7, **fields)
    assert str(error.value) == message
