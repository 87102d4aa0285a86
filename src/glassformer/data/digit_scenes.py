"""Scenes: a handwritten digit in a colour, small or large, somewhere on a black canvas, with a caption.

    Scene(7, "red", "large", "top left")      "a large red seven, top left"      16 x 16 pixels, RGB

They are made of MNIST by a fixed seed. 600 scenes differ in digit, colour, size or place; those that `unseen` names are
in no training image, so that a model which draws one has put together what it knows of the parts. The test split is of
these alone; the validation split is of known scenes in other handwriting.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from glassformer.data.images import LabelledImage, LabelledImages

CANVAS = 16
"""Height and width in pixels."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (255, 48, 48),
    "green": (48, 216, 48),
    "blue": (72, 96, 255),
    "yellow": (255, 224, 0),
    "purple": (192, 64, 240),
    "white": (255, 255, 255),
}
SIZES: Mapping[str, int] = {"small": 7, "large": 11}
"""Heights of a digit in pixels."""
PLACES: Mapping[str, tuple[float, float]] = {
    "top left": (0, 0),
    "top right": (0, 1),
    "bottom left": (1, 0),
    "bottom right": (1, 1),
    "in the middle": (0.5, 0.5),
}
"""Down and across, as shares of the room that a digit leaves."""
BRIGHTNESSES = 3
"""Of a colour, beside black."""
COUNTS: Mapping[str, int] = {"train": 24_000, "validation": 600, "test": 1_200}
LEFT_OUT = 0.1
"""How often a training caption goes without the size, the colour, the place; each by itself."""
HELD_OUT = 1 / 6
"""Share of the scenes that are in no training image."""


class Scene(NamedTuple):
    """What is to be seen; words of `COLOURS`, `SIZES` and `PLACES`."""

    digit: int
    colour: str
    size: str
    place: str


@cache
def scenes() -> tuple[Scene, ...]:
    """All there are."""
    return tuple(Scene(*each) for each in product(range(10), COLOURS, SIZES, PLACES))


def unseen(scene: Scene) -> str:
    """Why a scene is in no training image: "pair" (the digit never has this colour), "scene" (this scene alone is
    held out); "": it is in some.

    >>> unseen(Scene(1, "red", "small", "top left")), unseen(Scene(2, "red", "small", "top left"))
    ('pair', '')
    """
    if scene.digit == (3 * list(COLOURS).index(scene.colour) + 1) % 10:
        return "pair"
    return "scene" if hashlib.sha256(repr(tuple(scene)).encode()).digest()[0] < 256 * HELD_OUT else ""


def caption(scene: Scene, form: int = 0) -> str:
    """One of four captions of a scene; an attribute that is "" is left out.

    >>> for form in range(4): print(caption(Scene(7, "red", "large", "top left"), form))
    a large red seven, top left
    top left: a large red seven
    a red seven, large, top left
    seven in red, large, top left
    >>> caption(Scene(7, "", "", "top left"), 3)
    'seven, top left'
    """
    digit, colour, size, place = DIGITS[scene.digit], scene.colour, scene.size, scene.place
    forms: tuple[tuple[str, ...], ...] = (
        (" ".join(("a", size, colour, digit)), place),
        (" ".join(("a", size, colour, digit)),),
        (" ".join(("a", colour, digit)), size, place),
        (f"{digit} in {colour}" if colour else digit, size, place),
    )
    text = ", ".join(" ".join(part.split()) for part in forms[form] if part).replace("a eight", "an eight")
    return f"{place}: {text}" if form == 1 and place else text


def described(text: str) -> dict[str, str]:
    """Which digit, colour, size and place a caption names; what it does not is left out.

    >>> described("seven in red, top left")
    {'digit': 'seven', 'colour': 'red', 'place': 'top left'}
    """
    known = {"digit": DIGITS, "colour": COLOURS, "size": SIZES, "place": PLACES}
    found = {what: [name for name in names if re.search(rf"\b{name}\b", text)] for what, names in known.items()}
    return {what: names[0] for what, names in found.items() if names}


def draw_scene(digit: Any, scene: Scene, margins: Sequence[int] = (0, 0)) -> Any:
    """A scene with a given handwritten digit, (28, 28) uint8 -> (CANVAS, CANVAS, 3) uint8.

    margins: pixels between the digit and the edges that its place is at, down and across.
    """
    import numpy as np
    from PIL import Image

    rows, columns = (np.flatnonzero(digit.max(axis=axis) > 60) for axis in (1, 0))
    ink = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height = SIZES[scene.size]
    width = max(2, min(height, round(height * ink.shape[1] / ink.shape[0])))
    small = Image.fromarray(ink).resize((width, height), Image.Resampling.BOX)
    level_HW = np.rint(np.asarray(small) / 255 * BRIGHTNESSES) / BRIGHTNESSES
    canvas = np.zeros((CANVAS, CANVAS, 3), dtype=np.uint8)
    starts = []
    for share, margin, extent in zip(PLACES[scene.place], margins, (height, width), strict=True):
        room = CANVAS - extent
        starts.append({0: margin, 1: room - margin}.get(share, room // 2))  # type: ignore[call-overload]
    colour = level_HW[..., None] * np.array(COLOURS[scene.colour])
    canvas[starts[0] : starts[0] + height, starts[1] : starts[1] + width] = np.rint(colour)
    return canvas


def compose(digits: LabelledImages, counts: Mapping[str, int] = COUNTS, seed: int = 0) -> LabelledImages:
    """Scenes with captions by split, each split with its own handwriting."""
    import numpy as np

    found: LabelledImages = {}
    held_out = [scene for scene in scenes() if unseen(scene)]
    known = [scene for scene in scenes() if not unseen(scene)]
    for number, split in enumerate(("train", "validation", "test")):
        random = np.random.default_rng((seed, number))
        handwriting: dict[int, list[Any]] = {}
        for image in digits[split]:
            handwriting.setdefault(int(image.label), []).append(image.image)
        scenes_of_split, rows = (held_out if split == "test" else known), []
        for i in range(counts[split]):
            scene = scenes_of_split[random.integers(len(scenes_of_split))]
            samples = handwriting[scene.digit]
            picture = draw_scene(samples[random.integers(len(samples))], scene, random.integers(0, 2, size=2).tolist())
            kept = [name if split != "train" or random.random() >= LEFT_OUT else "" for name in scene[1:]]
            text = caption(Scene(scene.digit, *kept), int(random.integers(4)))
            rows.append(LabelledImage(picture, text, f"{seed} {split} {i}"))
        found[split] = rows
    return found
