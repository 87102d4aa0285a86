"""A generalist: one decoder with one set of weights writes text and captions, draws digits and plays.

    text         T  o     b  e           every character is predicted
    draw         class:7  00 00 05 ...   every pixel
    caption      00 00 05 ...  s e v e n the name of the class
    play         R s s s s a  R s s ...  the actions

As Gato (Reed et al. 2022, https://arxiv.org/abs/2205.06175, equation 2): everything is a row of tokens of one
vocabulary (`processors/generalist.py`), each batch mixes rows of all kinds, and the loss is the cross-entropy of what
the model is to write; what it only sees (pixels before a caption, returns and states) is masked. A specialist is the
same with the weights of the other kinds at 0 (`task.text=0`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from glassformer.data.example_splits import spread
from glassformer.data.images import load_images
from glassformer.data.prepare import prepare
from glassformer.data.trajectories import Trajectory
from glassformer.data.trajectory_sets import load_trajectories
from glassformer.data.vocabulary import tokenizer_for
from glassformer.errors import DataError, MissingExtraError, UsageError
from glassformer.evaluation.estimate import Metric, Metrics, Share
from glassformer.evaluation.images import read_by_svm
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, HeatMap, Note
from glassformer.generation import generate
from glassformer.generation.generalist import TokenPlayer, drawing_part, write_captions
from glassformer.generation.image_tokens import draw_images
from glassformer.generation.settings import Sampling
from glassformer.processors.generalist import (
    MAX_BINS,
    MIN_BINS,
    GeneralistProcessor,
    caption_of,
    labels_of,
    specials_of,
)
from glassformer.processors.image_tokens import MAX_LEVELS, MAX_SIDE, ImageTokenProcessor, grid
from glassformer.processors.trajectory import LEAST_STD, TrajectoryProcessor
from glassformer.tasks.base import Batch, Batches, Loss, Opening
from glassformer.tasks.decision import DecisionSettings, processor_of
from glassformer.tasks.examples import EVAL_ROWS
from glassformer.tasks.generalist_rows import KINDS, GeneralistSource, MixedBatches, Row, collated
from glassformer.tasks.image_settings import side_of
from glassformer.tasks.next_token import trained_loss, trained_rows
from glassformer.tasks.returns import AskedAndGot, asked_and_got
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import classes_of
from glassformer.tasks.text import TextTask

JUDGED = 500  # images that a support vector machine reads, about as many of each class
CAPTIONS = 5  # of a sample


class GeneralistSettings(TaskSettings):
    """[task] of `generalist`."""

    images: str = Field(default="digits", min_length=1)
    """a set of images by name, or a folder with one folder a class"""
    image_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    """height and width that images are resized to; None: those of a named set, else of the first image"""
    levels: int = Field(default=16, ge=2, le=MAX_LEVELS)
    """of grey"""
    trajectories: str = Field(default="cartpole-mixed", min_length=1)
    """a set of trajectories by name, or an .npz file; with actions to choose from"""
    bins: int = Field(default=64, ge=MIN_BINS, le=MAX_BINS)
    """of each number of a state, and of returns"""
    text: float = Field(default=1.0, ge=0)
    """rows of text in a batch, in proportion to the next three"""
    draw: float = Field(default=1.0, ge=0)
    """rows that give a class and ask for its pixels"""
    caption: float = Field(default=1.0, ge=0)
    """rows that give the pixels and ask for the name of the class"""
    play: float = Field(default=1.0, ge=0)
    """rows of episodes"""
    ask: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=100)
    """returns that `evaluate` asks for; None: the best of training"""
    episodes: int = Field(default=20, ge=1, le=10_000)
    """that `evaluate` plays for each of them"""


class Generalist(TextTask):
    """Cross-entropy in nats, summed over what the model is to write. A batch is (inputs, targets), each (B, T) ids."""

    Settings = GeneralistSettings
    asks: ClassVar[str] = "next_token"
    head: ClassVar[dict[str, Any]] = {}
    defaults: ClassVar[dict[str, Any]] = {"block_size": 128, "positions": "learned"}
    placeholders: ClassVar[None] = None
    paths: ClassVar[tuple[str, ...]] = ("images", "trajectories")
    learns_specials: ClassVar[bool] = False
    command: ClassVar[str] = "generate"
    source: GeneralistSource

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> GeneralistSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("characters, grey levels and bins are the tokens; leave out the keys of [tokenizer]")
        images, known = load_images(asked.images)
        episodes, environment = load_trajectories(asked.trajectories)
        if opening.folder is not None:
            p = GeneralistProcessor.load(opening.folder)
        else:
            side = side_of(asked.image_size, images, known, choices)
            labels = classes_of((image.label for image in images["train"]), ())
            painter = ImageTokenProcessor.make(size=(side, side), levels=asked.levels, labels=labels)
            player = processor_of(episodes["train"], DecisionSettings(), environment)
            if not player.n_actions:
                raise DataError(f"{asked.trajectories}: continuous actions; give episodes with actions to choose from")
            tokenizer = tokenizer_for(
                data.source,
                "characters",
                specials=specials_of(painter, player, asked.bins),
                text_field=data.text_field,
                validation_fraction=data.validation_fraction,
            )
            p = GeneralistProcessor(
                tokenizer=tokenizer,
                images=painter,
                trajectories=player,
                bins=asked.bins,
                return_limits=limits_of(player, episodes["train"]),
                longest=max(len(e) for e in episodes["train"]),
            )
        store = prepare(
            data.source,
            p.tokenizer,
            validation_fraction=data.validation_fraction,
            text_field=data.text_field,
            max_tokens=data.max_tokens,
        )
        return GeneralistSource(
            store, p.tokenizer, data, opening.inherited, images=images, episodes=episodes, processor=p
        )

    @property
    def processor(self) -> GeneralistProcessor:
        return self.source.processor

    @property
    def kinds(self) -> dict[str, float]:
        """The weights of those that are learned."""
        return {kind: weight for kind in KINDS if (weight := getattr(self.settings, kind)) > 0}

    def facts(self) -> dict[str, Any]:
        images, episodes = (
            {split: len(rows) for split, rows in splits.items()}
            for splits in (self.source.images, self.source.episodes)
        )
        return {
            "images": images,
            "episodes": episodes,
            "labels": list(self.processor.images.labels),
            "characters": self.processor.image_ids.start,
        }

    def check(self, config: Any) -> None:
        super().check(config)
        p = self.processor
        if not self.kinds:
            raise UsageError(f"task: all of {', '.join(KINDS)} are 0, so there is nothing to learn; give one a weight")
        longest = p.images.n_pixels + max(len(caption_of(label)) for label in p.images.labels)
        if config is not None and min(config.block_size, self.run.sequence_length) < max(longest, p.tokens_a_step):
            raise UsageError(
                f"an image with its caption has {longest} tokens and a step {p.tokens_a_step}; "
                f"use model.block_size={max(longest, p.tokens_a_step)} or more, or a smaller task.image_size"
            )
        if config is not None and getattr(config, "n_gram", 1) > 1:
            raise UsageError("model.n_gram looks up neighbouring tokens, which are no text here; leave it out")

    def collate(self, examples: Sequence[Row], random: Any = None) -> Batch:
        """Rows -> a batch."""
        return collated(examples)

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        numbers = {"batch_size": self.run.batch_size // world_size, "rank": rank, "world_size": world_size}
        return MixedBatches(self.source, split, self.kinds, self.run.sequence_length, seed=self.run.seed, **numbers)

    # ---- losses ----

    def loss(self, model: Any, batch: Batch) -> Loss:
        return trained_loss(model, batch)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        return trained_rows(model, batch)

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        """The loss of each kind by name (`draw_loss`), and as `loss` their mean with the weights of the kinds."""
        found, T = dict[str, Metric](), model.config.block_size
        few = self.run.train_eval_rows if split == "train" else self.run.eval_batches * self.run.batch_size
        for kind in self.kinds:
            rows = self.source.rows_of(kind, split, T)
            rows = rows if whole or not few else spread(rows, max(1, few // len(self.kinds)))
            batches = (self.collate(rows[start : start + EVAL_ROWS]) for start in range(0, len(rows), EVAL_ROWS))
            found[f"{kind}_loss"] = evaluate_rows(model, self.rows, batches)[0].metrics()["loss"]
        pairs, total = list(zip(self.kinds.values(), found.values(), strict=True)), sum(self.kinds.values())
        half = math.sqrt(sum((weight * m.interval) ** 2 for weight, m in pairs)) / total
        mean = sum(weight * m.value for weight, m in pairs) / total
        return Metrics({"loss": Metric(mean, sum(m.n for _, m in pairs), half), **found})

    def example_batch(self, model: Any) -> Batch:
        T = model.config.block_size
        return self.collate([self.source.rows_of(kind, "validation", T)[0] for kind in self.kinds])

    # ---- what it makes ----

    def sample(self, model: Any, step: int) -> list[Figure]:
        """A text, an image of each of the first ten classes, and captions of held-out images."""
        p, r, made = self.processor, self.run, list[Figure]()
        sampling = Sampling(seed=r.seed + step)
        if "text" in self.kinds:
            text = generate(model, p.tokenizer, r.sample_prompt, max_new_tokens=r.sample_tokens, seed=r.seed + step)
            made.append(Note(r.sample_prompt + text[0].text))
        if "draw" in self.kinds:
            drawn = draw_images(drawing_part(model, p), p.images, p.images.labels[:10], sampling=sampling)
            whole = grid([[p.images.picture(each.ravel()) for each in drawn]]) / 255
            title = ", ".join(p.images.labels[:10])
            made.append(HeatMap(title, whole, [""] * len(whole), [""] * whole.shape[1], highest=1.0))
        if "caption" in self.kinds:
            levels_ND, classes_N = self.source.levels("validation")
            pairs = zip(write_captions(model, p, levels_ND[:CAPTIONS]), classes_N, strict=False)
            made.append(Note("\n".join(f"{p.images.labels[c]}: {text!r}" for text, c in pairs), "Captions"))
        return made

    def extra_scores(self, model: Any, split: str = "validation") -> GeneralistScores:
        """Bits of a character and of a pixel, what a support vector machine reads in drawn images, captions that are
        right, and returns."""
        metrics, p = self.evaluate(model, split), self.processor
        bits = {k: metrics[f"{k}_loss"] for k in ("text", "draw") if k in self.kinds}
        scores = GeneralistScores(
            {k: Metric(m.value / math.log(2), m.n, m.interval / math.log(2)) for k, m in bits.items()}
        )
        if "draw" in self.kinds:
            labels = p.images.labels
            classes = np.arange(max(len(labels), JUDGED // len(labels) * len(labels))) % len(labels)
            asked, sampling = [labels[c] for c in classes], Sampling(seed=self.run.seed)
            drawn = draw_images(drawing_part(model, p), p.images, asked, sampling=sampling)
            read = read_by_svm(*self.source.levels("train")).predict(drawn.reshape(len(drawn), -1))
            scores.shares["drawn digits read as asked"] = Share.of((read == classes).tolist())
        if "caption" in self.kinds:
            levels_ND, classes_N = self.source.levels(split)
            named = labels_of(write_captions(model, p, levels_ND), p.images.labels)
            right = [name == p.images.labels[c] for name, c in zip(named, classes_N, strict=True)]
            scores.shares["captions right"] = Share.of(right)
        if "play" in self.kinds and p.trajectories.environment is not None:
            asks = self.settings.ask or (p.trajectories.best_return,)
            try:
                scores.played = asked_and_got(TokenPlayer(model, p), p.trajectories, asks, self.settings.episodes)
            except (MissingExtraError, UsageError) as error:
                raise DataError(f"no episodes were played: {error}") from None
        return scores


def limits_of(processor: TrajectoryProcessor, episodes: Sequence[Trajectory]) -> tuple[float, float]:
    """The lowest and the highest scaled return-to-go; 0 is between them."""
    returns = np.concatenate([processor.encode(episode).returns for episode in episodes])
    return min(0.0, float(returns.min())), max(LEAST_STD, float(returns.max()))


@dataclass
class GeneralistScores:
    """bits: of a character (text) and of a pixel (draw). shares: by what was counted. played: returns."""

    bits: dict[str, Metric]
    shares: dict[str, Share] = field(default_factory=dict)
    played: AskedAndGot | None = None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {f"{kind}_bits": list(m) for kind, m in self.bits.items()}
        found |= {name.replace(" ", "_"): share._asdict() for name, share in self.shares.items()}
        return found | (self.played.to_dict() if self.played else {})

    def lines(self) -> list[str]:
        """A line for each figure."""
        names = {"text": "bits per character", "draw": "bits per pixel"}
        bits = [f"{names[kind]:<27}{m.value:.3f} ± {m.interval:.3f}" for kind, m in self.bits.items()]
        shares = [f"{name:<27}{share}" for name, share in self.shares.items()]
        return [*bits, *shares, *(self.played.lines() if self.played else ())]
