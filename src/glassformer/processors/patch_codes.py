"""Patches of an image as tokens: a book of codes, one for each square of pixels that training images have.

    levels (H, W)  --encode-->  codes (H / p, W / p)  --decode-->  levels (H, W)

As the learned image tokens of DALL-E (Ramesh et al. 2021, https://arxiv.org/abs/2102.12092, section 2.1), with a book
that is counted and not trained (as "visual words" were: Sivic and Zisserman 2003): a patch of the book comes back as it
is, another one as the nearest. An image of n pixels has n / p^2 tokens, and the pixels of a patch are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_CODES = 4096
MAX_PATCH = 8
"""Height and width of a patch in pixels."""
Codes = tuple[tuple[int, ...], ...]
"""The p^2 levels of each patch in raster order."""
AT_ONCE = 1024  # patches whose distances to all codes are in memory


def patches_of(levels_NHW: np.ndarray, p: int) -> np.ndarray:
    """(N, H, W) -> (N, H/p, W/p, p^2)."""
    N, H, W = levels_NHW.shape
    return levels_NHW.reshape(N, H // p, p, W // p, p).transpose(0, 1, 3, 2, 4).reshape(N, H // p, W // p, p * p)


def codes_of(levels_NHW: np.ndarray, p: int) -> Codes:
    """The patches of images, in their numbers' order: all of them, or where they are more than `MAX_CODES`, the most
    frequent ones."""
    found, counts = np.unique(patches_of(levels_NHW, p).reshape(-1, p * p), axis=0, return_counts=True)
    if len(found) > MAX_CODES:
        found = found[np.sort(np.argsort(-counts, kind="stable")[:MAX_CODES])]
    return tuple(map(tuple, found.tolist()))


class PatchCodes:
    """To codes and back.

    Args:
        codes: the levels of each patch.
        colours: of the levels, (levels,) or (levels, 3): the nearest patch is that of the least squares between them.
    """

    def __init__(self, codes: Codes, colours: np.ndarray):
        self.levels_CP = np.array(codes, dtype=np.int64)
        self.p = round(self.levels_CP.shape[1] ** 0.5)
        self.colours = colours.astype(np.float32).reshape(len(colours), -1)
        self.numbers = {code: number for number, code in enumerate(codes)}

    def encode(self, levels_HW: np.ndarray) -> np.ndarray:
        """(H, W) levels -> (H / p, W / p) int64."""
        patches = patches_of(levels_HW[None], self.p)[0]
        flat = patches.reshape(-1, self.p**2)
        numbers = np.array([self.numbers.get(code, -1) for code in map(tuple, flat.tolist())], dtype=np.int64)
        for start in range(0, len(unknown := np.flatnonzero(numbers < 0)), AT_ONCE):
            part = unknown[start : start + AT_ONCE]
            numbers[part] = self._nearest(flat[part])
        return numbers.reshape(patches.shape[:2])

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """(..., H / p, W / p) -> (..., H, W) levels."""
        *rows, h, w = numbers.shape
        squares = self.levels_CP[numbers].reshape(-1, h, w, self.p, self.p)
        return squares.transpose(0, 1, 3, 2, 4).reshape(*rows, h * self.p, w * self.p)

    def _nearest(self, patches_NP: np.ndarray) -> np.ndarray:
        asked_NX, known_CX = (self.colours[each].reshape(len(each), -1) for each in (patches_NP, self.levels_CP))
        squares_NC = (known_CX**2).sum(axis=1) - 2 * asked_NX @ known_CX.T
        return squares_NC.argmin(axis=1)


def check_codes(codes: Sequence[Sequence[int]], p: int, levels: int) -> None:
    """Raise `ValueError` where codes do not fit the size of a patch, or name no level."""
    if not 1 <= len(codes) <= MAX_CODES or {len(code) for code in codes} != {p * p}:
        raise ValueError(f"give 1 to {MAX_CODES} codes of {p * p} levels")
    if len(set(map(tuple, codes))) != len(codes) or not all(0 <= level < levels for code in codes for level in code):
        raise ValueError("a code is there twice, or is no level")
