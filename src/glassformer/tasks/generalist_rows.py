"""The rows of a generalist: what the model reads and what it is to write, of each kind, and batches that mix them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from glassformer.data.batches import SeededBatches, philox
from glassformer.data.images import LabelledImage
from glassformer.data.trajectories import Trajectory
from glassformer.errors import UsageError, did_you_mean
from glassformer.processors.generalist import GeneralistProcessor
from glassformer.tasks.base import Batch
from glassformer.tasks.decision import shares_of
from glassformer.tasks.losses import IGNORED, padded
from glassformer.tasks.sources import numbers_of
from glassformer.tasks.text import TextSource

STREAM = 95  # of random numbers
KINDS = ("text", "draw", "caption", "play")


class Row(NamedTuple):
    """What the model reads and what it is to write, (L,) ids each; -100: nothing."""

    inputs: Any
    targets: Any


def collated(rows: Sequence[Row]) -> Batch:
    """(inputs, targets), (B, T) each, shorter rows filled up behind."""
    return padded([row.inputs for row in rows], 0)[0], padded([row.targets for row in rows], IGNORED)[0]


@dataclass(kw_only=True)
class GeneralistSource(TextSource):
    """A prepared text, and images and episodes by split. kept: what was encoded already."""

    images: dict[str, list[LabelledImage]]
    episodes: dict[str, list[Trajectory]]
    processor: GeneralistProcessor
    kept: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation example, or how it is read, does."""
        digest = hashlib.sha256(f"{super().key} {self.processor.tokenizer.hash} {self.processor.trajectories}".encode())
        for split in ("train", "validation"):
            digest.update(repr([image.key + image.label for image in self.images.get(split, ())]).encode())
            for episode in self.episodes.get(split, ()):
                digest.update(b"".join(part.tobytes() for part in episode))
        return digest.hexdigest()[:16]

    def examples(self, name: str, split: str) -> list[Any]:
        """The `images` or `episodes` of a split.

        Raises:
            UsageError: there is no such split.
        """
        found: dict[str, list[Any]] = getattr(self, name)
        if split not in found:
            raise UsageError(f"there is no {split} split of {name}; {did_you_mean(split, found)}")
        return found[split]

    def text_part(self, split: str) -> tuple[int, int]:
        """First and last + 1 token of a split in the store's own one: the held-out text is halved for test."""
        if split == "train":
            return 0, len(self.store.split("train"))
        middle = (n := len(self.store.split("validation"))) // 2
        return (0, middle) if split == "validation" else (middle, n)

    def rows_of(self, kind: str, split: str, T: int) -> list[Row]:
        """Every token of a split once: text in windows of T tokens, episodes in windows of as many steps as fit."""
        return self.once(f"{kind} {T}", split, lambda: self._rows_of(kind, split, T))

    def _rows_of(self, kind: str, split: str, T: int) -> list[Row]:
        if kind == "text":
            first, end = self.text_part(split)
            return [self.text_row(split, start, T) for start in range(first, end - T, T)]
        if kind == "play":
            K = T // self.processor.tokens_a_step
            parts = [ids_TN[start : start + K] for ids_TN in self.steps(split) for start in range(0, len(ids_TN), K)]
            return [self.play_row(ids_KN) for ids_KN in parts]
        return [self.image_row(kind, image, caption) for image, caption in self.pictures(split)]

    def text_row(self, split: str, start: int, T: int) -> Row:
        """A window of a text."""
        ids = self.store.split("train" if split == "train" else "validation").read(start, T + 1)
        return Row(ids[:-1], ids[1:])

    def image_row(self, kind: str, image_ids: np.ndarray, caption_ids: np.ndarray) -> Row:
        """A class and its pixels, or pixels and their caption; the first part is only seen."""
        if kind == "draw":
            return Row(image_ids[:-1], image_ids[1:])
        pixels = image_ids[1:]
        ids = np.concatenate([pixels, caption_ids])
        return Row(ids[:-1], np.concatenate([np.full(len(pixels) - 1, IGNORED), caption_ids]))

    def play_row(self, ids_KN: np.ndarray) -> Row:
        """Steps; the actions are targets, at the last number of their state."""
        targets_KN = np.full_like(ids_KN, IGNORED)
        targets_KN[:, -1] = ids_KN[:, -1]
        return Row(ids_KN.ravel()[:-1], targets_KN.ravel()[1:])

    def pictures(self, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(class and pixels, caption) of each image of a split, as ids."""
        p, images = self.processor, self.examples("images", split)
        return self.once("pictures", split, lambda: [(p.image(x.image, x.label), p.caption(x.label)) for x in images])

    def steps(self, split: str) -> list[np.ndarray]:
        """The ids of each episode of a split, (steps, tokens of a step)."""
        p, episodes = self.processor, self.examples("episodes", split)
        return self.once("steps", split, lambda: [p.steps(p.trajectories.encode(e)) for e in episodes])

    def once(self, name: str, split: str, make: Callable[[], list[Any]]) -> list[Any]:
        """What `make` gives, made once."""
        if (name, split) not in self.kept:
            self.kept[name, split] = make()
        return self.kept[name, split]

    def levels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(grey levels (N, D), numbers of the classes (N,)) of the images of a split."""
        p = self.processor
        levels_ND = np.stack([ids[1:] for ids, _ in self.pictures(split)]) - p.image_ids.start
        return levels_ND, np.array(numbers_of([x.label for x in self.examples("images", split)], p.images.labels))


class MixedBatches(SeededBatches):
    """Training batches with rows of all kinds, in the proportions of the settings: rows of text and steps of episodes
    begin anywhere, episodes are drawn by their return (as `decision` does by default), images evenly.

    weights: of each kind that is mixed. T: tokens of the longest row.
    """

    def __init__(self, source: GeneralistSource, split: str, weights: Mapping[str, float], T: int, **numbers: int):
        super().__init__(**numbers)
        self.source, self.split, self.T, self.text = source, split, T, source.text_part(split)
        self.kinds, shares = list(weights), np.array(list(weights.values()))
        self.ends = np.cumsum(shares / shares.sum())[:-1]
        if "play" in self.kinds:
            episodes = source.examples("episodes", split)
            shares_E = shares_of([e.value for e in episodes], np.array([len(e) for e in episodes]), "return")
            self.episode_ends = np.cumsum(shares_E)[:-1]

    def batch(self, step: int) -> Batch:
        return collated(list(self._rows(step)))

    def _rows(self, step: int) -> Iterator[Row]:
        """Our rows of a step. Kinds are spread evenly over the rows, so that their numbers differ little by step."""
        random, n = philox(self.seed, STREAM, step), self.together
        kinds = np.searchsorted(self.ends, (random.permutation(n) + random.random()) / n, side="right")
        where_N2 = random.random((n, 2))
        for number in range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size):
            yield self._row(self.kinds[kinds[number]], *where_N2[number].tolist())

    def _row(self, kind: str, which: float, where: float) -> Row:
        source = self.source
        if kind == "text":
            first, end = self.text
            return source.text_row(self.split, first + int(where * (end - first - self.T)), self.T)
        if kind == "play":
            ids_TN = source.steps(self.split)[int(np.searchsorted(self.episode_ends, which, side="right"))]
            start = int(where * len(ids_TN))
            return source.play_row(ids_TN[start : start + self.T // source.processor.tokens_a_step])
        pictures = source.pictures(self.split)
        return source.image_row(kind, *pictures[int(which * len(pictures))])
