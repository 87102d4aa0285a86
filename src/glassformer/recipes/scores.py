"""How good the answers of a sequence-to-sequence run, or the vectors of words, are in the measure of their trade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glassformer.data.examples import references, spread
from glassformer.errors import UsageError
from glassformer.evaluation.phonemes import PronunciationErrors, pronunciation_errors
from glassformer.evaluation.translation import TranslationScores, translation_scores
from glassformer.evaluation.word_vectors import WordVectorScores
from glassformer.generation.seq2seq import Answer, answer
from glassformer.recipes.example_task import ExampleTask
from glassformer.recipes.task import Task
from glassformer.recipes.word_task import WordTask


@dataclass(frozen=True)
class Scored:
    """scores: BLEU and chrF of sentences, or error rates where the target is a row of symbols. answers: one for each
    of `sources`; known: what each should be, every form of it."""

    scores: TranslationScores | PronunciationErrors
    sources: list[str]
    answers: list[Answer]
    known: list[list[str]]

    def told(self) -> list[str]:
        """The scores as lines to read."""
        s = self.scores
        if isinstance(s, TranslationScores):
            return [f"BLEU           {s.bleu}  ({s.n:,} sentences; {s.bleu.signature})", f"chrF           {s.chrf}"]
        low, high = (100 * end for end in s.word_interval)
        return [
            f"wrong words    {100 * s.word_error_rate:.2f} %  (95 %: {low:.2f} to {high:.2f}; {s.n:,} words)",
            f"wrong sounds   {100 * s.phoneme_error_rate:.2f} %",
        ]

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object a source."""
        for source, said, known in zip(self.sources, self.answers, self.known, strict=True):
            yield {"source": source, "answer": said.text, "references": known, "log_probability": said.log_probability}


def score_answers(
    model: Any,
    task: Task,
    *,
    split: str = "test",
    beam: int = 4,
    length_penalty: float = 0.6,
    limit: int | None = None,
) -> Scored:
    """Let a model answer every different source of a split, and compare.

    Args:
        model, task: as `open_run` gives them.
        limit: answer this many, spread evenly over the split.

    Raises:
        UsageError: the model does not answer sentences with sentences, there is no such split, or what counts the
            score is not installed.
    """
    if not isinstance(task, ExampleTask) or task.kind.data != "pairs":
        raise UsageError("this run does not answer sentences with sentences; leave out --answers")
    if not task.examples.get(split):
        raise UsageError(f"{task.r.data.source} has no {split} split; use train, validation or test")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} is out of range; use 1 or more")
    asked = [example for example in task.examples[split] if example.source.strip()]
    known = references(asked if limit is None else spread(asked, limit))
    sources, forms = list(known), list(known.values())
    measure = _pronunciations if task.tokenizer.kind == "words" else _translations
    measure([forms[0][0]], forms[:1])  # what is not installed is told before the long work
    answers = answer(
        model,
        task.tokenizer,
        sources,
        source_tokenizer=task.source_tokenizer,
        beam=beam,
        length_penalty=length_penalty,
        cut=True,
    )
    return Scored(measure([each.text for each in answers], forms), sources, answers, forms)


def score_vectors(model: Any, task: Task) -> WordVectorScores | None:
    """What `glassformer evaluate` tells of word vectors beside the loss; None of other models.

    Raises:
        DataError: the lists of words that people judged cannot be had.
    """
    return task.scores(model) if isinstance(task, WordTask) else None


def _pronunciations(said: list[str], known: list[list[str]]) -> PronunciationErrors:
    return pronunciation_errors(said, known)


def _translations(said: list[str], known: list[list[str]]) -> TranslationScores:
    return translation_scores(said, [forms[0] for forms in known])
