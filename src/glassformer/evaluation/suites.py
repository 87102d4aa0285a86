"""Answers of a language model to a suite, as accuracies with intervals.

acc            multiple choice: the choice of the highest log-likelihood is the right one
acc_norm       the same with log-likelihoods divided by the characters of each choice, since long ones are less likely
exact_match    what was generated is a right answer, letter for letter

The first two are those of lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.data.questions import Question
from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Share
from glassformer.evaluation.translation import CorpusScore, translation_scores
from glassformer.scratchpad import answer_of


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    text: the choice of the highest log-likelihood, or what was generated. right: whether that is right, by name of the
    accuracy. log_probs: of each choice, in nats; () where the answer was generated.
    """

    question: Question
    text: str
    right: dict[str, bool]
    log_probs: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the question's place, the answer, and what would have been right."""
        row = {"question": self.question.place, "answer": self.text, "expected": list(self.question.answers)}
        scores = {"log_probs": list(self.log_probs)} if self.log_probs else {}
        return {**row, **self.right, **scores}


def chosen(question: Question, log_probs: Sequence[float]) -> Answer:
    """The answer to a question of multiple choice. log_probs: of the choices, in nats."""
    sums = np.asarray(log_probs)
    by_length = sums / [len(choice) for choice in question.choices]
    right = {"acc": int(sums.argmax()) == question.right, "acc_norm": int(by_length.argmax()) == question.right}
    return Answer(question, question.choices[int(sums.argmax())], right, tuple(map(float, log_probs)))


def matched(question: Question, text: str, pattern: re.Pattern[str] | None = None) -> Answer:
    """The answer that was generated, without white space around it and without scratchpads.

    pattern: what is compared is its first group (without groups: all it matches) where it first matches.
    """
    found = answer_of(text)
    if pattern is not None:
        match = pattern.search(found)
        found = "" if match is None else (match.group(1 if pattern.groups else 0) or "").strip()
    return Answer(question, text, {"exact_match": found in [answer.strip() for answer in question.answers]})


def compiled_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """A regular expression.

    Raises:
        UsageError: it is none.
    """
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--pattern {pattern!r} is no regular expression ({error}); mend it") from None


@dataclass(frozen=True)
class SuiteScores:
    """The answers to a suite, in its order, and how they were asked for. chrf: how near generated answers come to the
    first right one, letter by letter, where that was asked for."""

    suite: str
    shots: int
    seed: int
    chat: bool
    answers: list[Answer]
    chrf: CorpusScore | None = None

    @property
    def shares(self) -> dict[str, Share]:
        """Each accuracy, over the questions that have it."""
        return _shares(self.answers)

    @property
    def groups(self) -> dict[str, dict[str, Share]]:
        """The same of each group of questions, in the order of the suite; {} where none has one."""
        names = dict.fromkeys(a.question.group for a in self.answers if a.question.group is not None)
        return {name: _shares([a for a in self.answers if a.question.group == name]) for name in names}

    @property
    def by_chance(self) -> float | None:
        """The accuracy of a blind guess at the questions of multiple choice; None: there are none."""
        guesses = [1 / len(a.question.choices) for a in self.answers if a.log_probs]
        return sum(guesses) / len(guesses) if guesses else None

    def to_dict(self) -> dict[str, Any]:
        asked = {key: getattr(self, key) for key in ("suite", "shots", "seed", "chat")}
        found = {**asked, **_plain(self.shares), "by_chance": self.by_chance}
        if self.chrf is not None:
            found["chrf"] = self.chrf.to_dict()
        return {**found, "groups": {g: _plain(shares) for g, shares in self.groups.items()}} if self.groups else found

    def rows(self) -> list[dict[str, Any]]:
        """Every answer, for JSON."""
        return [{"suite": self.suite, "shots": self.shots, **answer.to_dict()} for answer in self.answers]

    def lines(self) -> list[str]:
        """For a person: one line an accuracy."""
        found = [f"{name:<12} {share}" for name, share in self.shares.items()]
        for group, shares in self.groups.items():
            found += [f"{name:<12} {share}, {group}" for name, share in shares.items()]
        if self.chrf is not None:
            found.append(f"{'chrF':<12} {self.chrf}")
        return found if self.by_chance is None else [*found, f"{'by chance':<12} {100 * self.by_chance:.1f} %"]


def _shares(answers: Sequence[Answer]) -> dict[str, Share]:
    names = dict.fromkeys(name for answer in answers for name in answer.right)
    return {name: Share.of([a.right[name] for a in answers if name in a.right]) for name in names}


def _plain(shares: Mapping[str, Share]) -> dict[str, Any]:
    return {name: share._asdict() for name, share in shares.items()}


def suite_lines(results: Sequence[SuiteScores]) -> list[str]:
    """Several suites, or one with several numbers of examples, for a person: the lines of each behind its name."""
    if len(results) == 1:
        return results[0].lines()
    width = max(len(r.suite) for r in results)
    return [f"{r.suite:<{width}} {r.shots:>3} examples  {line}" for r in results for line in r.lines()]


def chrf_of(answers: Sequence[Answer]) -> CorpusScore | None:
    """See `evaluation.translation`; None where no answer was generated.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    pairs = [(a.text.strip(), a.question.answers[0]) for a in answers if not a.log_probs]
    return translation_scores([text for text, _ in pairs], [right for _, right in pairs]).chrf if pairs else None
