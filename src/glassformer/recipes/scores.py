"""How good the answers of a sequence-to-sequence run are, in the measure of its trade."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glassformer.data.examples import Example, references
from glassformer.errors import UsageError
from glassformer.evaluation.phonemes import PronunciationErrors, pronunciation_errors
from glassformer.evaluation.translation import TranslationScores, translation_scores
from glassformer.generation.answers import Answer, answer
from glassformer.recipes.assemble import open_run
from glassformer.recipes.example_task import ExampleTask


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
    path: str | os.PathLike[str],
    *,
    split: str = "test",
    data: str | None = None,
    beam: int = 4,
    length_penalty: float = 0.6,
    limit: int | None = None,
) -> Scored:
    """Let a run answer every different source of a split, and compare.

    Args:
        limit: answer this many, spread evenly over the split.

    Raises:
        UsageError: the run does not answer sentences with sentences, or there is no such split.
    """
    model, task = open_run(path, data)
    if not isinstance(task, ExampleTask) or task.r.objective.kind != "target_sentence":
        raise UsageError(f"{path} does not answer sentences with sentences; leave out --answers")
    if not task.examples.get(split):
        raise UsageError(f"{task.r.data.source} has no {split} split; use train, validation or test")
    known = references(_spread([e for e in task.examples[split] if e.source.strip()], limit))
    sources = list(known)
    answers = answer(
        model,
        task.tokenizer,
        [task.fitting(source, model.config.block_size) for source in sources],
        source_tokenizer=task.source_tokenizer,
        beam=beam,
        length_penalty=length_penalty,
    )
    said = [each.text for each in answers]
    if task.tokenizer.kind == "words":
        scores: TranslationScores | PronunciationErrors = pronunciation_errors(said, list(known.values()))
    else:
        scores = translation_scores(said, [known[source][0] for source in sources])
    return Scored(scores, sources, answers, list(known.values()))


def _spread(examples: Sequence[Example], limit: int | None) -> list[Example]:
    n = len(examples) if limit is None else min(limit, len(examples))
    return [examples[i * len(examples) // n] for i in range(n)]
