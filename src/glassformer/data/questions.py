"""Suites: questions with known answers, one JSON object a line, by which language models are judged.

    {"question": "Which planet is red?", "choices": ["Mars", "Venus"], "answer": 0}     Question: ...\\nAnswer: Mars
    {"context": "The cat sat on the", "choices": ["mat", "moon"], "answer": 0}          The cat sat on the mat
    {"context": "It rained.", "question": "Was it wet?", "choices": [...], "answer": 0} It rained.\\nQuestion: ...
    {"prompt": "2 + 2 =", "answer": "4"}                                                generated, and compared

Rows with `"split": "train"` are examples to show; the others are asked. `prompt` and `context` stand as they are. An
example shows `worked` (a solution with its steps) in place of its answer; right answers are also counted by `group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glassformer.errors import DataError, UsageError, did_you_mean

FIELDS = ("id", "prompt", "context", "question", "choices", "answer", "split", "group", "worked")
TRAIN = "train"


@dataclass(frozen=True)
class Question:
    """A question with known answers.

    prompt: the text before the answer. answers: right answers, any of which will do; of multiple choice the one.
    choices: of multiple choice; () where the answer is generated. right: the place of the right choice. place: its
    `id`, else file and line. group: counted by itself too. worked: shown in place of the answer where the question is
    an example.
    """

    prompt: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    right: int = 0
    split: str | None = None
    place: str = ""
    group: str | None = None
    worked: str | None = None

    @property
    def kind(self) -> str:
        """ "multiple choice" or "exact match"."""
        return "multiple choice" if self.choices else "exact match"

    @property
    def shown(self) -> str:
        """The question with its answer, as an example."""
        return f"{self.prompt}{self.delimiter}{self.answer_shown}"

    @property
    def answer_shown(self) -> str:
        """The answer of an example."""
        return self.answers[0] if self.worked is None else self.worked

    @property
    def delimiter(self) -> str:
        """What stands between prompt and answer: a space, unless one is there."""
        ends = self.prompt[-1:].isspace() or not self.prompt
        return "" if ends or (self.choices or self.answers)[0][:1].isspace() else " "


def question(row: dict[str, Any], place: str = "") -> Question:
    """One row of a suite.

    Raises:
        DataError: a field is missing, unknown or out of range.
    """
    if unknown := next((key for key in row if key not in FIELDS), None):
        raise DataError(f"{place}: the field {unknown!r} is unknown; {did_you_mean(unknown, FIELDS)}")
    if "answer" not in row:
        raise DataError(f"{place}: the field 'answer' is missing; it has: {', '.join(row) or 'none'}")
    prompt, name = _prompt(row, place), str(row.get("id", place))
    for key, such in (("split", "train or test"), ("group", "easy"), ("worked", "2 and 2 is 4")):
        if (text := row.get(key)) is not None and (not isinstance(text, str) or not text.strip()):
            raise DataError(f"{place}: {key} is {text!r}; give a text, such as {such}")
    texts: Any = {"split": row.get("split"), "group": row.get("group"), "worked": row.get("worked"), "place": name}
    if "choices" not in row:
        return Question(prompt, _answers(row["answer"], place), **texts)
    if texts["worked"] is not None:
        raise DataError(f"{place}: worked goes with an answer that is written, and not with choices; leave it out")
    choices, right = row["choices"], row["answer"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{place}: choices must be a list of two texts or more; it is {choices!r}")
    if bad := next((i for i, text in enumerate(choices) if not isinstance(text, str) or not text.strip()), None):
        raise DataError(f"{place}: choice {bad} is {choices[bad]!r}; give a text that is not empty")
    if len(set(choices)) < len(choices):
        raise DataError(f"{place}: two choices are equal; leave one out")
    if isinstance(right, bool) or not isinstance(right, int):
        raise DataError(f"{place}: answer is {right!r}; give the place of the right choice, from 0 on")
    if not 0 <= right < len(choices):
        raise DataError(
            f"{place}: answer {right} is out of range for {len(choices)} choices; use 0 to {len(choices) - 1}"
        )
    return Question(prompt, (choices[right],), tuple(choices), right, **texts)


def _prompt(row: dict[str, Any], place: str) -> str:
    """The text before the answer, from whichever fields state it."""
    parts = {key: row[key] for key in ("prompt", "context", "question") if row.get(key) is not None}
    for key, text in parts.items():
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: {key} is {text!r}; give a text that is not empty")
    if "prompt" in parts and len(parts) > 1:
        raise DataError(f"{place}: a prompt stands alone; leave out {' and '.join(k for k in parts if k != 'prompt')}")
    if not parts:
        raise DataError(f"{place}: no prompt, context or question; give one")
    if "question" not in parts:
        return parts.get("prompt") or parts["context"]
    context = f"{parts['context']}\n" if "context" in parts else ""
    return f"{context}Question: {parts['question']}\nAnswer:"


def _answers(given: Any, place: str) -> tuple[str, ...]:
    """Texts that count as right; a number is its digits."""
    found = given if isinstance(given, list) else [given]
    texts = [str(a) if isinstance(a, (int, float)) and not isinstance(a, bool) else a for a in found]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{place}: answer is {given!r}; give a text, a number, or a list of them")
    return tuple(texts)


def examples_and_questions(
    rows: Sequence[Question], shots: int, split: str | None = None
) -> tuple[list[Question], list[Question]]:
    """(examples to show, questions to ask): the rows of the split `train` and the others; without such rows the first
    `shots` and the rest.

    split: of the questions; None: all that are not `train`.

    Raises:
        UsageError: there are fewer examples than `shots`, or no questions.
    """
    if shots < 0:
        raise UsageError(f"--shots {shots} is too small; use 0 or more")
    if split == TRAIN and shots:
        raise UsageError("--split train are the examples of --shots; ask another split, or leave out --shots")
    examples = [row for row in rows if row.split == TRAIN]
    asked = [row for row in rows if row.split != TRAIN]
    if split == TRAIN:
        examples, asked = [], examples
    elif not examples:
        examples, asked = asked[:shots], asked[shots:]
    if split is not None and not (asked := [row for row in asked if row.split == split]):
        known = {row.split for row in rows if row.split}
        hint = did_you_mean(split, known) if known else "its rows name no split: leave out --split"
        raise UsageError(f"no questions of the split {split!r} are left to ask; {hint}")
    if len(examples) < shots:
        raise UsageError(f"--shots {shots} is more than the {len(examples)} examples that there are; use fewer")
    if not asked:
        raise UsageError(f"{len(rows)} rows leave no question to ask; use fewer --shots, or add rows")
    return examples, asked
