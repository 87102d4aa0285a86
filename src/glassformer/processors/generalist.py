"""Text, images and episodes as tokens of one vocabulary, as Gato reads them (Reed et al. 2022, section 2.1).

    characters   images                        return   each number of a state   actions
    a b c ...    levels 0 ... 15, classes      bins     bins    bins    ...      0 1
    0            65                            96       160     224              416

    text         To be, or not to be           characters
    draw         class:7 00 00 05 13 ...       a class, then its pixels
    caption      00 00 05 13 ... seven         pixels, then the characters of the class's name and a line end
    play         R s s s s a  R s s s s a      what is still asked for, what is seen, what is done

Each range is written out as special tokens of a character tokenizer (`<image:05>`, `<state:2:017>`), so that a text
never becomes one of them, and an ordinary decoder in an ordinary folder reads all of it. Numbers are companded by the
mu-law and cut into bins (`Bins`). Gato shares its bins among all numbers and adds an embedding of their place in the
observation; here each number has bins of its own.

    https://arxiv.org/abs/2205.06175
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, ModelFolderError, UsageError, one_line
from glassformer.files import write_json
from glassformer.processors.image_tokens import ImageTokenProcessor
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.trajectory import TrajectoryProcessor, Triples, load_trajectory_processor
from glassformer.text_files import read_json

FILE = "generalist.json"
TYPE = "GeneralistProcessor"
IMAGES, TRAJECTORIES = "images", "trajectories"  # the folders of its parts
MAX_JSON_BYTES = 1 << 20
MIN_BINS, MAX_BINS = 4, 1024
MU = 10.0
"""Of the mu-law; Gato's 100 is for numbers of any size, these have mean 0 and deviation 1."""
STATE_LIMIT = 5.0
"""Deviations from the mean, from which on a number of a state is in the last bin."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTION_END = "\n"


@dataclass(frozen=True)
class Bins:
    """Numbers as whole numbers 0 ... n - 1: sgn(x) log(mu |x| + 1) / log(mu limit + 1), from -1 (`signed`, else from 0)
    to 1, in n equal bins (Gato, equation 3). Bins near 0 are the narrowest.

    >>> Bins(8, 1.0).encode([-1.0, -0.01, 0.0, 0.3, 5.0]).tolist()
    [0, 3, 4, 6, 7]
    """

    n: int
    limit: float
    signed: bool = True

    def encode(self, numbers: Any) -> np.ndarray:
        """Of any shape, int64."""
        x = np.asarray(numbers, dtype=np.float64)
        companded = np.sign(x) * np.log1p(MU * np.abs(x)) / math.log1p(MU * self.limit)
        share = (companded + 1) / 2 if self.signed else companded
        return np.clip(np.floor(share * self.n), 0, self.n - 1).astype(np.int64)

    def decode(self, bins: Any) -> np.ndarray:
        """The middles of bins, fp32."""
        share = (np.asarray(bins, dtype=np.float64) + 0.5) / self.n
        companded = share * 2 - 1 if self.signed else share
        sizes = np.expm1(np.abs(companded) * math.log1p(MU * self.limit)) / MU
        return (np.sign(companded) * sizes).astype(np.float32)


@dataclass(frozen=True)
class GeneralistProcessor:
    """What makes tokens of everything that one model for all reads.

    images: its words follow the characters. trajectories: of discrete actions. bins: of each number. return_limits: the
    lowest and the highest scaled return; others are in their bins. longest: steps of the longest episode.
    """

    tokenizer: Tokenizer
    images: ImageTokenProcessor
    trajectories: TrajectoryProcessor
    bins: int
    return_limits: tuple[float, float]
    longest: int

    def __post_init__(self) -> None:
        missing = [token for token in specials_of(self.images, self.trajectories, self.bins) if token not in self._ids]
        if missing:
            raise UsageError(f"the tokenizer has no {missing[0]}; make it with the tokens of `specials_of`")
        known = set(self.tokenizer.decode(range(self.image_ids.start)))
        if unknown := sorted({c for label in self.images.labels for c in caption_of(label)} - known):
            raise DataError(f"the text has no {unknown[0]!r}, which captions have; rename the class")

    @property
    def _ids(self) -> dict[str, int]:
        return self.tokenizer.special_tokens

    # ---- the ranges of ids ----

    @cached_property
    def image_ids(self) -> range:
        """Of the words of an image, in the order of `images.tokenizer`."""
        first = self._ids[image_token(self.images, 0)]
        return range(first, first + self.images.tokenizer.vocab_size)

    @cached_property
    def first_return(self) -> int:
        """The id of the first bin of returns; the bins of the numbers of a state follow, then the actions."""
        return self._ids[number_token("return", 0)]

    @property
    def action_ids(self) -> range:
        first = self.first_return + self.bins * (1 + self.state_size)
        return range(first, first + self.trajectories.n_actions)

    @property
    def state_size(self) -> int:
        """Numbers of an observation."""
        return len(self.trajectories.state_mean)

    @property
    def tokens_a_step(self) -> int:
        """Return, numbers of the state, action."""
        return self.state_size + 2

    @property
    def return_bins(self) -> Bins:
        """Of scaled returns: of both signs where training had both."""
        low, high = self.return_limits
        return Bins(self.bins, max(-low, high), signed=low < 0)

    # ---- raw data to ids ----

    def text(self, text: str) -> np.ndarray:
        """The ids of a text."""
        return np.array(self.tokenizer.encode(text), dtype=np.int64)

    def image(self, image: Any, label: str) -> np.ndarray:
        """The ids of a class and an image of it: (1 + height x width,)."""
        return self.images.encode(image, label) + self.image_ids.start

    def caption(self, label: str) -> np.ndarray:
        """The ids of the name of a class and a line end."""
        return self.text(caption_of(label))

    def steps(self, triples: Triples) -> np.ndarray:
        """The ids of T steps: (T, `tokens_a_step`)."""
        returns_T = self.return_bins.encode(triples.returns)
        states_TS = Bins(self.bins, STATE_LIMIT).encode(triples.states) + self.bins * (1 + np.arange(self.state_size))
        actions_T = np.asarray(triples.actions).argmax(axis=-1) + self.action_ids.start
        return np.concatenate(
            [returns_T[:, None] + self.first_return, states_TS + self.first_return, actions_T[:, None]], axis=1
        )

    # ---- in a folder ----

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files, `generalist.json`, and the parts in folders of their own."""
        self.tokenizer.save(folder)
        self.images.save(Path(folder) / IMAGES)
        self.trajectories.save(Path(folder) / TRAJECTORIES)
        fields = {"bins": self.bins, "return_limits": list(self.return_limits), "longest": self.longest}
        write_json(Path(folder) / FILE, {"processor_type": TYPE, **fields})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> GeneralistProcessor:
        """The processor of a model folder.

        Raises:
            ModelFolderError: it is missing or damaged, or does not belong to the tokenizer.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise ModelFolderError(f"{folder}: no model for text, images and episodes; train one: task.kind=generalist")
        given: Any = read_json(file, ModelFolderError, most=MAX_JSON_BYTES)
        images = ImageTokenProcessor.load(Path(folder) / IMAGES)
        trajectories = load_trajectory_processor(Path(folder) / TRAJECTORIES)
        bins, limits, longest = given.get("bins"), given.get("return_limits"), given.get("longest")
        numbers = type(bins) is int and type(longest) is int and isinstance(limits, list) and len(limits) == 2
        finite = numbers and all(type(limit) is float and math.isfinite(limit) for limit in limits)
        fits = finite and MIN_BINS <= bins <= MAX_BINS and max(-limits[0], limits[1]) > 0 and longest > 0
        if given.get("processor_type") != TYPE or trajectories is None or not trajectories.n_actions or not fits:
            raise ModelFolderError(f"{file}: damaged; copy the folder again, whole")
        try:
            return cls(load_tokenizer(folder), images, trajectories, bins, tuple(limits), longest)
        except (UsageError, DataError) as error:
            raise ModelFolderError(f"{file}: {one_line(error, most=200)}; copy the folder again, whole") from None


def specials_of(images: ImageTokenProcessor, trajectories: TrajectoryProcessor, bins: int) -> list[str]:
    """The tokens behind the characters, in the order of their ids."""
    names = ["return", *(f"state:{i}" for i in range(len(trajectories.state_mean)))]
    return [
        *(image_token(images, i) for i in range(images.tokenizer.vocab_size)),
        *(number_token(name, i) for name in names for i in range(bins)),
        *(number_token("action", i) for i in range(trajectories.n_actions)),
    ]


def image_token(images: ImageTokenProcessor, word: int) -> str:
    """`<image:05>`, `<image:class:7>`: a word of an image."""
    return f"<image:{images.tokenizer.token_text(word).strip('<>')}>"


def number_token(name: str, number: int) -> str:
    """`<return:017>`."""
    return f"<{name}:{number:03d}>"


def caption_of(label: str) -> str:
    """What is written about an image of a class: digits as words.

    >>> caption_of("7"), caption_of("a cat")
    ('seven\\n', 'a cat\\n')
    """
    return (DIGITS[int(label)] if label in map(str, range(len(DIGITS))) else label) + CAPTION_END


def labels_of(captions: Sequence[str], labels: Sequence[str]) -> list[str | None]:
    """The classes of captions that were written; None: of no class."""
    known = {caption_of(label): label for label in labels}
    return [known.get(caption) for caption in captions]
