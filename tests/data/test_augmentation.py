"""Images changed at random: exactly as their numbers say, and the same for the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from glassformer.data.augmentation import Augmentation
from glassformer.data.batches import philox

IMAGE = np.random.default_rng(0).random((2, 7, 7), dtype=np.float32)


class Fixed:
    """Random numbers that are known: turn, scale, shear, down, right, and the coin."""

    def __init__(self, *numbers: float, coin: float = 0.9):
        self.numbers, self.coin = numbers, coin

    def uniform(self, low: float, high: float, n: int) -> list[float]:
        assert (low, high, n) == (-1, 1, 5)
        return list(self.numbers)

    def random(self) -> float:
        return self.coin


@pytest.mark.parametrize(
    ("augmentation", "random", "expected"),
    [
        (Augmentation(rotation=90), Fixed(1, 0, 0, 0, 0), np.rot90(IMAGE, -1, axes=(1, 2))),
        (Augmentation(rotation=90), Fixed(-1, 0, 0, 0, 0), np.rot90(IMAGE, 1, axes=(1, 2))),
        (Augmentation(flip=True), Fixed(0, 0, 0, 0, 0, coin=0.1), IMAGE[..., ::-1]),
        (Augmentation(flip=True), Fixed(0, 0, 0, 0, 0, coin=0.6), IMAGE),
        (Augmentation(), Fixed(1, 1, 1, 1, 1, coin=0.1), IMAGE),
    ],
    ids=["turned", "turned back", "mirrored", "not mirrored", "nothing"],
)
def test_an_image_is_changed_as_the_numbers_say(augmentation, random, expected):
    np.testing.assert_allclose(augmentation(IMAGE, random), expected, atol=1e-5)


def test_moved_images_repeat_their_edge():
    moved = Augmentation(translation=2 / 7)(IMAGE, Fixed(0, 0, 0, 0, 1))  # two columns to the right
    np.testing.assert_allclose(moved[:, :, 2:], IMAGE[:, :, :5], atol=1e-6)
    np.testing.assert_allclose(moved[:, :, :2], np.repeat(IMAGE[:, :, :1], 2, axis=2), atol=1e-6)


def test_scaling_and_shear():
    ramp = np.broadcast_to(np.arange(7, dtype=np.float32), (1, 7, 7))
    larger = Augmentation(scaling=0.5)(ramp, Fixed(0, 1, 0, 0, 0))
    np.testing.assert_allclose(larger[0, 3], 3 + (np.arange(7) - 3) / 1.5, atol=1e-5)
    sheared = Augmentation(shear=1.0)(ramp, Fixed(0, 0, 1, 0, 0))
    np.testing.assert_allclose(sheared[0, :, 3], np.arange(7), atol=1e-5)  # row r reads r - 3 columns further right


def test_the_same_random_numbers_give_the_same_image_and_others_another():
    augmentation = Augmentation(15, 0.15, 0.2, 0.15, True)
    first, same, other = (augmentation(IMAGE, philox(7, 4, n)) for n in (0, 0, 1))
    assert np.array_equal(first, same) and not np.allclose(first, other)
    assert first.shape == IMAGE.shape and first.dtype == np.float32 and not Augmentation().changes
    assert IMAGE.min() <= first.min() and first.max() <= IMAGE.max()
