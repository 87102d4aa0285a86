"""Text to image, judged: do classifiers see in written images what was asked for, in scenes that no one was trained on?

    python benchmarks/text_to_image.py RUN [--images 600] [--temperature 1] [--guidance 1] [--seed 0] [--sheet FILE.png]

Prints JSON. For each scene that `digit_scenes.unseen` names, the run's model writes equally many images of it. Four
classifiers judge digit, colour, size and place: support vector machines of scikit-learn, which learned from the real
training images alone. `digit` sees the part of the image that holds the digit, grey and resized to 12 x 12; `colour`
the mean colour of lit pixels; `size` and `place` the edges of that part. `written` has the share of images in which
they read what was asked for, with Wilson's 95 % interval: each, `all four` at once, and by why the scene is held out.
`real` has the classifiers' own accuracy on the real test images, which are of the same scenes.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import glassformer as gf
from glassformer.data.captions import load_captioned
from glassformer.data.digit_scenes import COLOURS, DIGITS, PLACES, SIZES, Scene, caption, scenes, unseen
from glassformer.evaluation.estimate import Share
from glassformer.generation import Sampling
from glassformer.generation.image_tokens import draw_images
from glassformer.hub import model_folder_of
from glassformer.processors.image_tokens import ImageTokenProcessor, grid
from glassformer.threads import set_threads

SIDE = 12  # of the digit that the classifier sees
LEARNED_FROM = 8_000  # training images
ENLARGED = 4  # a pixel of the sheet
DARK = 60  # a pixel whose brightest channel is not above is black


def features(image_HW3: np.ndarray) -> dict[str, np.ndarray]:
    """What the classifier of each attribute sees of an image."""
    light = image_HW3.max(axis=2)
    lit = light > DARK
    if not lit.any():
        lit[:] = True
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    part = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    digit = np.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=float)
    shape = np.log(len(rows) / len(columns)) * SIDE  # that a one is narrow
    edges = np.array([rows[0], rows[-1], columns[0], columns[-1]], dtype=float)
    colour = image_HW3[lit].astype(float)
    return {
        "digit": np.append(digit.ravel() / max(digit.max(), 1) * SIDE, shape),
        "colour": colour.mean(axis=0) / max(colour.mean(axis=0).max(), 1),
        "size": edges,
        "place": edges,
    }


def scene_of(text: str) -> Scene | None:
    """The scene of a caption that names everything."""
    words = text.replace(",", "").replace(":", "")
    found = [next((name for name in names if name in words), "") for names in (COLOURS, SIZES, PLACES)]
    digit = next(i for i, name in enumerate(DIGITS) if name in words.split())
    return Scene(digit, *found) if all(found) else None


def judges(images: list[Any]) -> dict[str, Any]:
    """A classifier for each attribute, by its name in `Scene`."""
    named = [(scene, image.image) for image in images if (scene := scene_of(image.label))][:LEARNED_FROM]
    seen = [features(image) for _, image in named]
    made = {}
    for name in Scene._fields:
        machine = SVC(C=10.0) if name == "digit" else make_pipeline(StandardScaler(), SVC(C=10.0))
        made[name] = machine.fit([each[name] for each in seen], [str(getattr(scene, name)) for scene, _ in named])
    return made


def read(classifiers: dict[str, Any], images: list[np.ndarray], asked: list[Scene]) -> dict[str, np.ndarray]:
    """Whether each classifier reads what was asked for: (images,) by attribute, and "all four"."""
    seen = [features(image) for image in images]
    found = {
        name: machine.predict([each[name] for each in seen]) == [str(getattr(scene, name)) for scene in asked]
        for name, machine in classifiers.items()
    }
    return {**found, "all four": np.all(list(found.values()), axis=0)}


def shares(right: dict[str, np.ndarray], where: np.ndarray | None = None) -> dict[str, Any]:
    chosen = {name: values if where is None else values[where] for name, values in right.items()}
    return {name: Share.of(values.tolist())._asdict() for name, values in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", help="Write the first 48 images as a picture.")
    options = parser.parse_args()
    set_threads(1)
    real, _ = load_captioned("digit-scenes")
    classifiers = judges(real["train"])
    processor = ImageTokenProcessor.load(model_folder_of(options.run))
    model, _ = gf.load(options.run)
    held_out = [scene for scene in scenes() if unseen(scene)]
    order = np.random.default_rng(options.seed).permutation(len(held_out))
    asked = [held_out[order[i % len(held_out)]] for i in range(options.images)]
    sampling = Sampling(temperature=options.temperature, seed=options.seed)
    drawn = draw_images(
        model, processor, [caption(scene) for scene in asked], sampling=sampling, guidance=options.guidance
    )
    images = [processor.picture(each.ravel()) for each in drawn]
    right = read(classifiers, images, asked)
    why = np.array([unseen(scene) for scene in asked])
    real_scenes = [scene for image in real["test"] if (scene := scene_of(image.label))]
    real_right = read(classifiers, [image.image for image in real["test"]], real_scenes)
    if options.sheet:
        sheet = Image.fromarray(grid([images[start : start + 12] for start in range(0, 48, 12)]))
        sheet.resize((sheet.width * ENLARGED, sheet.height * ENLARGED), Image.Resampling.NEAREST).save(options.sheet)
    result = {
        "images": len(images),
        "temperature": options.temperature,
        "guidance": options.guidance,
        "written": {
            **shares(right),
            "of pairs never seen": shares(right, why == "pair"),
            "of other scenes": shares(right, why == "scene"),
        },
        "real": {"images": len(real_scenes), **shares(real_right)},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
