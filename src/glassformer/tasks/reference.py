"""A frozen model beside the one that is trained: the reference of DPO and KTO, the teacher of distillation.

The reference's log-probabilities of all answers that a run reads are computed once, before the first step, on the
device of the training; then it goes, so that only one model is in memory while the other is trained.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from glassformer.data.chats import ChatRow, Turns
from glassformer.errors import DataError, GlassformerError, UsageError, plural
from glassformer.figures.primitives import Figure
from glassformer.hub import load_model, model_folder_of
from glassformer.models import Decoder, kind_of
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.progress import LINE_SECONDS
from glassformer.tasks.chats import ChatSettings, ChatTask, chat_sequences, collate_tokens, inputs_and_targets
from glassformer.tasks.held_out_answers import answers_to_look_at
from glassformer.tasks.losses import token_log_probs

REFERENCE_ROWS = 8
"""Answers that the reference reads together."""

Side = tuple[np.ndarray, np.ndarray]
"""Inputs and targets of a prompt with an answer, both (T,)."""


def frozen_model(key: str, name: str, tokenizer: Tokenizer, device: str = "cpu") -> Any:
    """A decoder of the same vocabulary, in eval mode and frozen.

    key: of the recipe, for messages. name: a run, a model folder, or a pulled model.

    Raises:
        UsageError: there is no such model, it is no decoder, or its tokens are others than the tokenizer's.
    """
    folder = vocabulary_of(key, name, tokenizer)
    model = load_model(folder, device=device)
    if not isinstance(model, Decoder):
        raise UsageError(f"{key}={name} is a {type(model).__name__}, which continues no text; name a decoder")
    return model.eval().requires_grad_(False)


def vocabulary_of(key: str, name: str, tokenizer: Tokenizer) -> Path:
    """The folder of a model whose tokens are the tokenizer's. Raises as `frozen_model`."""
    try:
        folder = model_folder_of(name)
        theirs = load_tokenizer(folder)
    except GlassformerError as error:
        raise UsageError(f"{key}: {error}") from None
    if theirs != tokenizer:
        raise UsageError(
            f"{key}={name} has another vocabulary ({theirs.kind}, {theirs.vocab_size:,} tokens) than the model that is "
            f"trained ({tokenizer.kind}, {tokenizer.vocab_size:,}), so their probabilities cannot be compared; name a "
            "model with the same tokenizer"
        )
    return folder


class ReferenceSettings(ChatSettings):
    """[task] of tasks that are held to a reference."""

    reference: str | None = None
    """the model to be held to; None: the one that the run starts from"""


class ReferenceTask(ChatTask):
    """A task that compares log-probabilities with those of a reference; see `ChatTask`."""

    paths: ClassVar[tuple[str, ...]] = ("template", "reference")
    stays_near_start: ClassVar[bool] = True
    extra_passes = 1
    asks_reference: bool = True
    """whether `encoded` gives the log-probabilities of the reference too"""
    reference: Any = None
    """the reference itself, while it is needed"""
    begun: bool = False
    """whether a run has begun, which asks the reference about those training answers alone that it reads"""

    def check(self, config: Any) -> None:
        if config is not None and kind_of(config) != "decoder":
            raise UsageError(f"{type(self).__name__} trains decoders; start from one with training.start_from=MODEL")
        if self.asks_reference and config is not None:
            vocabulary_of(*self._named(), self.tokenizer)
        alone = copy.copy(self)
        alone.asks_reference = False
        super(ReferenceTask, alone).check(config)

    def begin(self, model: Any) -> None:
        self.begun, T = True, model.config.block_size
        rows = self.encoded("train", T)
        self.encoded("validation", T)
        if self.asks_reference:
            read: Any = self.batches("train")
            places = {*read.read_within(self.run.steps), *self.train_eval_examples(range(len(rows)), T)}
            self._ask(rows, "train", places)
        self.reference = None

    def encoded(self, split: str, T: int) -> list[Any]:
        """The rows of `encode`, tuples that begin with two sides and have a field `reference`: both log-probabilities,
        which `encode` leaves None. Training answers are measured as they are trained, so that they are read once; a run
        that has begun has measured those that it reads."""
        rows = super().encoded(split, self.run.sequence_length if split == "train" else T)
        if self.asks_reference and not (split == "train" and self.begun):
            self._ask(rows, split, range(len(rows)))
        return rows

    def _ask(self, rows: list[Any], split: str, places: Iterable[int]) -> None:
        """Fill in the reference's log-probabilities of the rows at some places."""
        unknown = [i for i in sorted(places) if rows[i].reference is None]
        if unknown:
            known = self.reference_log_probs([side for i in unknown for side in rows[i][:2]], split)
            for n, i in enumerate(unknown):
                rows[i] = rows[i]._replace(reference=(known[2 * n], known[2 * n + 1]))

    def side(self, row: ChatRow, answer: Turns, T: int) -> tuple[Side | None, bool]:
        """Inputs and targets of an answer (None: T tokens leave nothing of it), and whether it was cut."""
        sequence = chat_sequences(self.tokenizer, row, answer)[-1]
        return inputs_and_targets(sequence, T), len(sequence.ids) > T + 1

    def kept(self, rows: Sequence[tuple[Sequence[tuple[Side | None, bool]], Any]], split: str, T: int) -> list[Any]:
        """(sides, what stands beside them) of the rows of which something is left; counts the others for `warnings`.

        Raises:
            DataError: there is none.
        """
        whole = [(sides, rest) for sides, rest in rows if all(side is not None for side, _ in sides)]
        cut = sum(any(was_cut for _, was_cut in sides) for sides, _ in whole)
        self.source.notice(cut, "row", split, f"cut to {T} tokens")
        self.source.notice(len(rows) - len(whole), "row", split, f"left out: an answer begins after {T} tokens")
        if not whole:
            raise DataError(f"no answer begins within {T} tokens; use a larger training.sequence_length")
        return [([side for side, _ in sides], rest) for sides, rest in whole]

    @torch.no_grad()
    def reference_log_probs(self, sides: Sequence[Side], split: str) -> list[float]:
        """The reference's log-probability of each answer, in order; their time is among `warnings`."""
        if self.reference is None:
            self.reference = frozen_model(*self._named(), self.tokenizer, self.run.device)
        model, began = self.reference, time.monotonic()
        device, shown = next(model.parameters()).device, began
        found = np.zeros(len(sides))
        order = np.argsort([len(inputs) for inputs, _ in sides], kind="stable")
        for start in range(0, len(order), REFERENCE_ROWS):
            chosen = order[start : start + REFERENCE_ROWS]
            inputs_BT, targets_BT = (part.to(device) for part in collate_tokens([sides[i] for i in chosen]))
            found[chosen] = token_log_probs(model, inputs_BT, targets_BT).sum(dim=1).cpu().numpy()
            if time.monotonic() - shown > LINE_SECONDS:
                shown = time.monotonic()
                self.log(f"the reference has read {start + len(chosen):,} of {plural(len(order), 'answer')} ({split})")
        seconds = time.monotonic() - began
        self.source.notices.append(
            f"the reference's log-probabilities of {plural(len(sides), 'answer')} ({split}) took {seconds:.1f} s, once"
        )
        return [float(value) for value in found]

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Answers to held-out prompts, and some rows with their rewards."""
        return [*answers_to_look_at(self, model), *super().sample(model, step)]

    def _named(self) -> tuple[str, str]:
        """The key of the recipe that names the reference, and the name."""
        if self.settings.reference is not None:
            return "task.reference", self.settings.reference
        if self.run.start_from is None:
            raise UsageError(
                f"{type(self).__name__} starts from a model, which is its reference; set training.start_from=MODEL"
            )
        return "training.start_from", self.run.start_from
