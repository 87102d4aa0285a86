"""Make the pictures of beyond-text/vision.md: `python docs/vision_pictures.py runs/mnist-1 runs/emoji-1`.

beyond-text/mnist-attention.svg   where each head of the last layer looks on a test image
beyond-text/emoji-answers.png     test emoji that were recognised, and those that were not
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from glassformer.data.example_splits import spread
from glassformer.figures import save
from glassformer.generation import classify
from glassformer.inspection.image_attention import image_attention
from glassformer.recipes.opening import open_run

HERE = Path(__file__).resolve().parent / "beyond-text"
ACROSS, SIDE, CELL = 8, 64, (104, 96)  # emoji a row; pixels of an emoji, and of it with what is said of it
SHORT = {"Animals & Nature": "Animals", "Travel & Places": "Places", "People & Body": "People", "Food & Drink": "Food",
         "Smileys & Emotion": "Smileys"}  # fmt: skip


def attention(run: str) -> None:
    model, task = open_run(run)
    image = task.source.examples["test"][7].image
    pixels_CHW = torch.from_numpy(task.processor.encode(image))
    save(image_attention(model, None, pixels_CHW).figures(), HERE / "mnist-attention.svg")


def answers(run: str) -> None:
    """Two rows of emoji that were recognised, and two of others, with what they were taken for."""
    model, task = open_run(run)
    images = task.source.examples["test"]
    probabilities = classify(model, task.processor, [image.image for image in images])
    given = [task.labels[i] for i in probabilities.argmax(dim=1).tolist()]
    pairs = list(zip(images, given, strict=True))
    right = spread([pair for pair in pairs if pair[0].label == pair[1]], 2 * ACROSS)
    wrong = spread([pair for pair in pairs if pair[0].label != pair[1]], 2 * ACROSS)
    sheet = Image.new("RGB", (ACROSS * CELL[0], 2 * 20 + 4 * CELL[1]), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for title, rows in (("recognised", right), ("taken for another category", wrong)):
        draw.text((4, y + 4), title, fill="black")
        for place, pair in enumerate(rows):
            _emoji(sheet, draw, pair, (place % ACROSS * CELL[0], y + 20 + place // ACROSS * CELL[1]))
        y += 20 + 2 * CELL[1]
    sheet.quantize(64).save(HERE / "emoji-answers.png", optimize=True)


def _emoji(sheet: Any, draw: Any, pair: tuple[Any, str], corner: tuple[int, int]) -> None:
    image, given = pair
    sheet.paste(Image.fromarray(image.image).resize((SIDE, SIDE), Image.Resampling.NEAREST), (corner[0] + 8, corner[1]))
    name, is_right = SHORT.get(given, given), image.label == given
    draw.text((corner[0] + 8, corner[1] + SIDE + 2), name, fill="darkgreen" if is_right else "darkred")
    if not is_right:
        draw.text((corner[0] + 8, corner[1] + SIDE + 15), f"is {SHORT.get(image.label, image.label)}", fill="gray")


if __name__ == "__main__":
    attention(sys.argv[1])
    answers(sys.argv[2])
