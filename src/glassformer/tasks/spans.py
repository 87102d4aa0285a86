"""Removed spans: stretches of a text are taken out, and the target names what stood in each gap.

    text      Thank you for inviting me to your party last week
    removed             ~~~~~~~~~~~~                       ~~~~
    source    Thank you <extra_id_0> me to your party last <extra_id_1> <end>
    target    <extra_id_0> for inviting <extra_id_1> week <end>

The decoder reads the target with `start_token` before it, as in `Translate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from glassformer.errors import UsageError
from glassformer.generation.fill_mask import sentinels_of
from glassformer.generation.seq2seq import answer_ids
from glassformer.processors.tokenizers.special_tokens import span_specials
from glassformer.tasks.base import Batch, Task
from glassformer.tasks.losses import IGNORED, check_not_empty
from glassformer.tasks.settings import TaskSettings
from glassformer.tasks.sources import ExampleSource
from glassformer.tasks.translate import Translate


class SpanSettings(TaskSettings):
    """[task] of kind spans"""

    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """the share of tokens that are removed"""
    mean_length: float = Field(default=3.0, ge=1)
    """of a removed span, in tokens"""


class Spans(Translate):
    """T5's span corruption for an encoder-decoder (Raffel et al. 2019, https://arxiv.org/abs/1910.10683, sections
    3.1.4 and 3.3.4), without label smoothing.

    Both sides end with `end_token`; `decode` puts the spans back. Batch, loss and report are those of `Translate`.

    Args:
        sentinels: the ids of <extra_id_0>, <extra_id_1>, ... in this order: as many as a text may have gaps.
        others: as of `Translate`.
    """

    Settings: ClassVar[type[TaskSettings]] = SpanSettings
    command: ClassVar[str] = "fill"
    specials: ClassVar[tuple[str, ...]] = span_specials()
    tokenizer_side: ClassVar[str] = "source"
    by_chance: ClassVar[bool] = True
    label_smoothing = 0.0

    def __init__(self, *, sentinels: Sequence[int], **others: Any):
        super().__init__(**others)
        self.sentinels = list(sentinels)

    @classmethod
    def arguments(cls, source: ExampleSource) -> dict[str, Any]:
        return {**super().arguments(source), "sentinels": sentinels_of(source.tokenizer)}

    score_answers = Task.score_answers

    def encode(self, split: str, T: int) -> list[Any]:
        """The ids of all texts, in pieces of at most T tokens."""
        return self.source.pieces(split, T)

    def collate(self, examples: Sequence[Any], random: np.random.Generator | None = None) -> Batch:
        """Texts as ids -> a batch with its gaps, all drawn from `random`.

        Raises:
            DataError: there is no example, or one has no token.
            UsageError: a text has more gaps than there are sentinels.
        """
        check_not_empty(examples, "text")
        random = np.random.default_rng(0) if random is None else random
        return super().collate([self.remove(ids, random) for ids in examples])

    def remove(self, ids: Sequence[int], random: np.random.Generator) -> tuple[list[int], list[int]]:
        """One text -> (source with its end, target without), see the top of this file.

        Raises:
            UsageError: there are more gaps than sentinels.
        """
        removed_T = random_spans(len(ids), self.settings.noise_density, self.settings.mean_length, random)
        source = self._with_sentinels(ids, removed_T)
        return [*source, self.end_token], self._with_sentinels(ids, ~removed_T)

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """A text with spans taken out, what the model puts there, and what stood there."""
        source_BS, _, _, target_BT = self.collate([example[:64]], np.random.default_rng(number))
        source, target = source_BS[0].tolist(), [t for t in target_BT[0].tolist() if t != IGNORED]
        tokens = answer_ids(model, [source], beam=1)[0].tokens
        lines = (("source: ", source), ("model:  ", tokens), ("target: ", target))
        return "\n".join(name + self.text_with_specials(ids) for name, ids in lines)

    def decode(self, source: Sequence[int], target: Sequence[int]) -> list[int]:
        """Put the spans of a target, a model's perhaps, back into the gaps of its source: the text as ids. A sentinel
        that the target does not hold leaves nothing in its gap; of ends nothing remains."""
        gaps, found = set(self.sentinels), dict[int, list[int]]()
        span: list[int] = []  # what comes before the first sentinel belongs nowhere
        for token in target:
            if token == self.end_token:
                break
            if token in gaps:
                span = found.setdefault(token, [])
            else:
                span.append(token)
        parts = (found.get(token, []) if token in gaps else [token] for token in source)
        return [token for part in parts for token in part if token != self.end_token]

    def _with_sentinels(self, ids: Sequence[int], out_T: np.ndarray) -> list[int]:
        """The ids, with every stretch of `out` replaced by the next sentinel."""
        first_T = out_T & ~np.concatenate(([False], out_T[:-1]))
        if first_T.sum() > len(self.sentinels):
            raise UsageError(
                f"a text of {len(ids)} tokens has {first_T.sum()} gaps and there are {len(self.sentinels)} sentinels; "
                "give shorter texts, more sentinels, or a larger task.mean_length"
            )
        kept_T = np.asarray(ids, dtype=np.int64).copy()
        kept_T[first_T] = self.sentinels[: first_T.sum()]
        return kept_T[first_T | ~out_T].tolist()


def random_spans(length: int, noise_density: float, mean_length: float, random: np.random.Generator) -> np.ndarray:
    """Which tokens are removed, (T,) bool: `random_spans_noise_mask` of T5's code (t5/data/preprocessors.py).

    The number of removed tokens (the share, rounded) and of spans (that over the mean length, rounded) are fixed, each
    at least one. Removed tokens and kept tokens are both cut at random into so many stretches of at least one token,
    and these take turns, a kept one first and a removed one last. One token alone is kept.

    Where T5's code would want more stretches than there are kept tokens, there are as many as kept tokens.
    """
    n = max(length, 2)  # one token could not be cut in two
    removed = min(max(round(n * noise_density), 1), n - 1)
    spans = min(max(round(removed / mean_length), 1), n - removed)
    removed_S, kept_S = (_cut(total, spans, random) for total in (removed, n - removed))
    stretches = np.stack((kept_S, removed_S), axis=1).ravel()  # (2 S,), taking turns
    return np.repeat(np.arange(2 * spans) % 2 == 1, stretches)[:length]


def _cut(total: int, pieces: int, random: np.random.Generator) -> np.ndarray:
    """Lengths (pieces,) of at least 1 that add up to `total`, each way of cutting equally likely."""
    cuts = np.sort(random.choice(total - 1, pieces - 1, replace=False)) + 1 if pieces > 1 else np.array([], dtype=int)
    return np.diff(np.concatenate(([0], cuts, [total])))
