"""Images with captions: a set by name, or a folder of your own in the form of Hugging Face's ImageFolder.

digit-scenes                   coloured digits on a canvas: "a large red seven, top left"    made of MNIST
FOLDER/metadata.jsonl          {"file_name": "1.png", "text": "a cat on a mat"}, a line for each image
FOLDER/train/metadata.jsonl    the same with splits of your own: train, validation, test
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glassformer.data.digit_scenes import CANVAS, COUNTS, compose, described
from glassformer.data.emoji import PICTURES, SIZE, TEST, VALIDATION, read_emoji
from glassformer.data.example_splits import HELD_OUT, SPLITS, split_strata
from glassformer.data.images import IMAGE_SETS, MAX_IMAGES, LabelledImage, LabelledImages, file_key, split_images
from glassformer.data.json_lines import json_rows
from glassformer.errors import DataError, did_you_mean
from glassformer.fetch import PackageSource, fetch

FILE = "metadata.jsonl"


@dataclass(frozen=True)
class CaptionedSet:
    """A named set of images with captions."""

    name: str
    about: str
    license: str
    source: PackageSource
    read: Callable[[Path], LabelledImages]
    """images by split, each with its caption as its `label`"""
    count: int
    size: tuple[int, int]
    """height and width of its images in pixels"""
    described: Callable[[str], dict[str, str]] | None = None
    """what a caption says, by names such as `colour`; None: captions are compared as words"""

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return self.source.origin


def load_captioned(name_or_path: str, *, quiet: bool = False) -> tuple[LabelledImages, CaptionedSet | None]:
    """The images of a set or a folder by split, the caption of each as its `label`, and the set, if it is one.

    Raises:
        DataError: there is no such set or folder, it has no metadata.jsonl, or a line of it is not as above.
    """
    if (known := CAPTIONED_SETS.get(name_or_path)) is not None:
        return known.read(fetch(known.source, quiet=quiet)), known
    root = Path(name_or_path).expanduser()
    if not root.is_dir():
        wanted = did_you_mean(name_or_path, CAPTIONED_SETS)
        raise DataError(f"{name_or_path}: no such folder or set of images with captions; {wanted}")
    if (root / FILE).is_file():
        return split_images(list(_captioned(root))), None
    images = {split: list(_captioned(root / split)) for split in SPLITS if (root / split / FILE).is_file()}
    if "train" not in images:
        raise DataError(f"{root}: no {FILE} there; write one line an image: {{'file_name': '1.png', 'text': 'a cat'}}")
    missing = {split: 0.0 if split in images else HELD_OUT for split in ("validation", "test")}
    held_out = split_images(images["train"], missing) if any(missing.values()) else {}
    return {**images, **{split: rows for split, rows in held_out.items() if rows}}, None


def _captioned(folder: Path) -> Iterator[LabelledImage]:
    for where, number, row in json_rows(folder / FILE):
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: needs file_name and text, both strings with something in them")
        if number > MAX_IMAGES:
            raise DataError(f"{where}: more than {MAX_IMAGES:,} images; give a part of them")
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
            raise DataError(f"{where}: no file {name!r} in this folder; correct the line")
        yield LabelledImage(file, text, file_key(file, folder))


def _emoji_names(archive: Path) -> LabelledImages:
    """Each emoji with its name; variants of another skin tone, which have the same name, are left out."""
    rows = [
        (LabelledImage(emoji.pixels, emoji.name, emoji.code), emoji.group, emoji.category)
        for emoji in read_emoji(archive)
        if not emoji.skin_tones
    ]
    return split_strata(rows, validation=VALIDATION, test=TEST)


CAPTIONED_SETS: dict[str, CaptionedSet] = {
    "digit-scenes": CaptionedSet(
        name="digit-scenes",
        about="handwritten digits of MNIST on a canvas of 16 x 16 pixels, in 6 colours, 2 sizes and 5 places",
        license=IMAGE_SETS["mnist"].license,
        source=IMAGE_SETS["mnist"].source,
        read=lambda archive: compose(IMAGE_SETS["mnist"].split(archive)),
        count=sum(COUNTS.values()),
        size=(CANVAS, CANVAS),
        described=described,
    ),
    "emoji-names": CaptionedSet(
        name="emoji-names",
        about="emoji with their names, 32 x 32 pixels in colour, no variants of skin tone",
        license=PICTURES.license,
        source=PICTURES,
        read=_emoji_names,
        count=1_911,
        size=(SIZE, SIZE),
    ),
}
