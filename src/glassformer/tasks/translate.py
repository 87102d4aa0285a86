"""Translate: the source has been read; word for word, how surprising is its target sentence?

source       the cat sleeps
target in    <start> le  chat dort        what the decoder reads
target out   le     chat dort <end>       what it should predict at each position
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from glassformer.data.encoding import tokenizer_from
from glassformer.data.examples import Example, references, spread
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.captions import CaptionScores
from glassformer.evaluation.phonemes import PronunciationErrors, pronunciation_errors
from glassformer.evaluation.speech import SpeechErrors
from glassformer.evaluation.translation import TranslationScores, translation_scores
from glassformer.generation.seq2seq import Answer, answer, answer_ids, plain_text
from glassformer.models import EncoderDecoder
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import END, SENTENCE_SPECIALS
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.examples import ExampleTask, shortened
from glassformer.tasks.losses import (
    IGNORED,
    check_not_empty,
    linear_cross_entropy,
    number_of,
    padded,
    summed_cross_entropy,
)
from glassformer.tasks.next_token import many_logits
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import ExampleSource, check_targets

Pair = tuple[Sequence[int], Sequence[int]]


class TranslateSettings(TaskSettings):
    """[task] of kind translate"""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """the share of each target that is spread over the vocabulary; 0.1 in the 2017 paper"""


class Translate(ExampleTask):
    """Cross-entropy of the target sentence given the source, with label smoothing.

    With smoothing e the target is (1 - e) of probability for the right token and e / V for each of the V: it keeps the
    model from becoming too sure, which costs perplexity and wins BLEU (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, section 5.4; the idea is Szegedy et al. 2015, https://arxiv.org/abs/1512.00567,
    section 7). The loss that is reported is without it.

    A batch is (source_BS, source_lengths_B, target_in_BT, target_out_BT). Where the target is padded, its -100 does not
    count; the model gets the lengths of sources, and a causal decoder does not look ahead.

    Args:
        start_token, end_token: what the target given to the model begins with, what it should end with.
    """

    Settings: ClassVar[type[TaskSettings]] = TranslateSettings
    asks: ClassVar[str] = "target"
    command: ClassVar[str] = "translate"
    specials: ClassVar[tuple[str, ...]] = SENTENCE_SPECIALS
    tokenizer_side: ClassVar[str] = "both"

    def __init__(self, *, start_token: int, end_token: int, **others: Any):
        super().__init__(**others)
        self.start_token, self.end_token = start_token, end_token

    @classmethod
    def arguments(cls, source: ExampleSource) -> dict[str, Any]:
        fields, names = source.fields(), ("start_token", "end_token")
        if missing := [name for name in names if name not in fields]:
            raise UsageError(
                f"the tokenizer has no {missing[0].replace('_', ' ')} ({', '.join(SENTENCE_SPECIALS)}); give another "
                "one, or leave out tokenizer.path"
            )
        return {**super().arguments(source), **{name: fields[name] for name in names}}

    @staticmethod
    def check_no_source(settings: TokenizerSettings, read: str) -> None:
        """Raise `UsageError` for a tokenizer of sources, of a task whose sources are no texts."""
        if settings.source_kind is not None:
            raise UsageError(f"tokenizer.source_kind is of texts that are read, and here {read} is; leave it out")

    @classmethod
    def writer(cls, targets: Sequence[str], settings: TokenizerSettings, choices: list[Choice]) -> Tokenizer:
        """The tokenizer of targets alone: the one that is named, or learned from the training targets."""
        if settings.path is not None:
            return load_tokenizer(settings.path)
        if settings.kind is None:
            choices.append(Choice("tokenizer.kind", *cls.default_kind))
        options: dict[str, Any] = {"vocab_size": settings.vocab_size, "specials": SENTENCE_SPECIALS}
        texts = [Example("", target) for target in targets]
        return tokenizer_from(texts, settings.kind or cls.default_kind[0], side="target", **options)

    def encode(self, split: str, T: int) -> list[Any]:
        """(source ids with their end, target ids). A training pair that is longer than the window is left out, since
        half a sentence is no translation of a whole one; a held-out one is cut."""
        examples, reader = self.source.examples[split], self.source.reader
        end = reader.special_tokens.get(END)
        check_targets(examples, "target")
        limit = T - (end is not None)
        targets = self.tokenizer.encode_documents([example.target for example in examples])
        rows = [*zip(self.source.encode(split), targets, strict=True)]
        fitting = [(s, t) for s, t in rows if len(s) <= limit and len(t) < T]
        what = f"longer than {T} tokens " + ("left out" if split == "train" else "cut")
        self.source.notice(len(rows) - len(fitting), "pair", split, what)
        if split != "train":
            fitting = [(s[:limit], t[: T - 1]) for s, t in rows]
        if not fitting:
            raise DataError(f"every pair is longer than {T} tokens; try a larger model.block_size")
        return [(s if end is None else np.append(s, end).astype(s.dtype), t) for s, t in fitting]

    def collate(self, examples: Sequence[Pair], random: np.random.Generator | None = None) -> Batch:
        """Pairs of (source ids, target ids) -> a batch. The source stays unchanged; the target may be empty.

        Raises:
            DataError: there is no pair, or a source is empty.
        """
        sources, targets = [source for source, _ in examples], [target for _, target in examples]
        check_not_empty(sources, "source")
        source_BS, source_lengths_B = padded(sources, self.pad_token)
        target_in_BT, _ = padded([[self.start_token, *target] for target in targets], self.pad_token)
        target_out_BT, _ = padded([[*target, self.end_token] for target in targets], IGNORED)
        return source_BS, source_lengths_B, target_in_BT, target_out_BT

    @property
    def label_smoothing(self) -> float:
        """Of the loss that is trained."""
        return float(self.settings.label_smoothing)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The smoothed loss of every target, piece by piece where the logits are many (`NextToken.loss`)."""
        target_out_BT, smoothing = batch[-1], self.label_smoothing
        if isinstance(model, EncoderDecoder) and many_logits(model.decoder, target_out_BT):
            hidden_BTC, head = model.hidden(*self.inputs(batch)), model.decoder.head
            loss, _ = linear_cross_entropy(
                hidden_BTC.flatten(0, 1), head.weight, target_out_BT.flatten(), head.bias, IGNORED, smoothing
            )
        else:
            loss = summed_cross_entropy(self.logits(model, batch), target_out_BT, smoothing)
        return Loss(loss, number_of(target_out_BT))

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, T, V)."""
        logits: Tensor = model(*self.inputs(batch))
        return logits

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the model is called with: source, target so far, lengths of the sources (None: all are whole)."""
        source_BS, source_lengths_B, target_in_BT, _ = batch
        return source_BS, target_in_BT, source_lengths_B

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """Source, what the model answers (the most probable token each time), and the target."""
        source, target = (ids.tolist() for ids in example)
        tokens = answer_ids(model, [source], beam=1)[0].tokens
        return "\n".join(
            [
                f"source: {shortened(plain_text(self.source.reader, source))}",
                f"model:  {shortened(plain_text(self.tokenizer, tokens))}",
                f"target: {shortened(plain_text(self.tokenizer, target))}",
            ]
        )

    def answerable(self, split: str, limit: int | None, text: Callable[[Any], str]) -> list[Any]:
        """The examples of a split whose `text` is not empty; `limit` of them, spread evenly.

        Raises:
            UsageError: there is no such split, or the limit is below 1.
        """
        examples = self.source.examples
        if not examples.get(split):
            raise UsageError(f"{self.source.name} has no {split} split; use train, validation or test")
        if limit is not None and limit < 1:
            raise UsageError(f"limit={limit} is out of range; use 1 or more")
        chosen = [example for example in examples[split] if text(example).strip()]
        return chosen if limit is None else spread(chosen, limit)

    def score_answers(self, model: Any, *, split: str = "test", beam: int = 4, limit: int | None = None) -> Scored:
        """Let the model answer every different source of a split, and compare with its references.

        Args:
            limit: answer this many, spread evenly over the split.

        Raises:
            UsageError: there is no such split, or what counts the score is not installed.
        """
        known = references(self.answerable(split, limit, lambda example: example.source))
        sources, forms = list(known), list(known.values())
        measure = pronunciation_errors if self.tokenizer.kind == "words" else _translations
        measure([forms[0][0]], forms[:1])  # a missing package is reported before the long work
        answers = answer(
            model,
            self.tokenizer,
            sources,
            source_tokenizer=self.source_tokenizer,
            beam=beam,
            length_penalty=0.6,
            cut=True,
        )
        return Scored(measure([each.text for each in answers], forms), sources, answers, forms)


@dataclass(frozen=True)
class Scored:
    """Answers and their scores.

    scores: BLEU and chrF of sentences, error rates where the target is a row of symbols or a sound was the source, or
        shares of captions that are right.
    answers: one for each of `sources`. references: what each should be, every form of it.
    """

    scores: TranslationScores | PronunciationErrors | SpeechErrors | CaptionScores
    sources: list[str]
    answers: list[Answer]
    references: list[list[str]]

    def lines(self) -> list[str]:
        """The scores as lines to read."""
        s = self.scores
        if isinstance(s, (SpeechErrors, CaptionScores)):
            return s.lines()
        if isinstance(s, TranslationScores):
            return [f"BLEU           {s.bleu}  ({s.n:,} sentences; {s.bleu.signature})", f"chrF           {s.chrf}"]
        low, high = (100 * end for end in s.word_interval)
        return [
            f"wrong words    {100 * s.word_error_rate:.2f} %  (95 %: {low:.2f} to {high:.2f}; {s.n:,} words)",
            f"wrong sounds   {100 * s.phoneme_error_rate:.2f} %",
        ]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One JSON object a source."""
        for source, found, known in zip(self.sources, self.answers, self.references, strict=True):
            yield {
                "source": source,
                "answer": found.text,
                "references": known,
                "log_probability": found.log_probability,
            }


def _translations(answers: list[str], known: list[list[str]]) -> TranslationScores:
    return translation_scores(answers, [forms[0] for forms in known])
