"""Answers of a language model to a suite, as accuracies with intervals.

acc            multiple choice: the choice of the highest log-likelihood is the right one
acc_norm       the same with log-likelihoods divided by the characters of each choice, since long ones are less likely
exact_match    what was generated is a right answer, letter for letter

The first two are those of lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.data.suites import Question
from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Share


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
    """The answer that was generated, without white space around it.

    pattern: what is compared is its first group (without groups: all it matches) where it first matches.
    """
    found = text.strip()
    if pattern is not None:
        match = pattern.search(text)
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
    """The answers to a suite, in its order, and how they were asked for."""

    suite: str
    shots: int
    seed: int
    chat: bool
    answers: list[Answer]

    @property
    def shares(self) -> dict[str, Share]:
        """Each accuracy, over the questions that have it."""
        names = dict.fromkeys(name for answer in self.answers for name in answer.right)
        return {name: Share.of([a.right[name] for a in self.answers if name in a.right]) for name in names}

    @property
    def by_chance(self) -> float | None:
        """The accuracy of a blind guess at the questions of multiple choice; None: there are none."""
        guesses = [1 / len(a.question.choices) for a in self.answers if a.log_probs]
        return sum(guesses) / len(guesses) if guesses else None

    def to_dict(self) -> dict[str, Any]:
        asked = {key: value for key, value in vars(self).items() if key != "answers"}
        return {**asked, **{name: share._asdict() for name, share in self.shares.items()}, "by_chance": self.by_chance}

    def lines(self) -> list[str]:
        """For a person: one line an accuracy."""
        found = [f"{name:<12} {share}" for name, share in self.shares.items()]
        return found if self.by_chance is None else [*found, f"{'by chance':<12} {100 * self.by_chance:.1f} %"]
