"""The mean over shifted copies of an image: copies as scipy moves them, and their mean; the command and its scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glassformer.generation.shifts import class_probabilities, moved

ndimage = pytest.importorskip("scipy.ndimage", reason="needs the package scipy")
PLACES = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


class Pixels(torch.nn.Module):
    """Logits that are the first three pixels."""

    def forward(self, images_BCHW):
        return images_BCHW.flatten(1)[:, :3]

    def sequence_logits(self, logits_BC):
        return logits_BC


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_copies_are_moved_as_scipy_does(shift):
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    found = moved(torch.from_numpy(images), shift).numpy()
    for copy, (down, right) in zip(found, PLACES, strict=True):
        distance = (0, 0, down * shift, right * shift)
        np.testing.assert_allclose(copy, ndimage.shift(images, distance, order=1, mode="nearest"), atol=1e-5)


def test_probabilities_are_the_mean_of_the_copies():
    images = torch.randn(4, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    wanted = torch.stack([class_probabilities(Pixels(), copy) for copy in moved(images, 0.5)]).mean(dim=0)
    torch.testing.assert_close(class_probabilities(Pixels(), images, 0.5), wanted)
    assert not torch.allclose(wanted, class_probabilities(Pixels(), images))
