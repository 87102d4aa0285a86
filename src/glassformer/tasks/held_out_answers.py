"""Answers to held-out prompts, before and after: what a person looks at while a model is tuned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glassformer.data.chats import ChatRow, Turns
from glassformer.data.example_splits import spread
from glassformer.figures.primitives import Figure, Note
from glassformer.tasks.chats import ChatTask, prompt_ids
from glassformer.tasks.examples import shortened
from glassformer.tasks.rollouts import roll_out

LOOKED_AT = 10
"""Held-out prompts that are answered to look at."""


def answers_to_look_at(task: ChatTask, model: Any) -> list[Figure]:
    """Greedy answers to the first `LOOKED_AT` held-out prompts, as a sample."""
    prompts = [(row, prompt_ids(task.tokenizer, row)) for row in map(question_of, _some_rows(task)) if row.prompt]
    fitting = [(row, ids) for row, ids in prompts if len(ids) < model.config.block_size]
    if not fitting:
        return []
    n = task.run.sample_tokens
    rollouts = roll_out(model, task.tokenizer, fitting, samples=1, max_new_tokens=n, temperature=0.0)
    lines = [
        f"{place}. {shortened(last_text(r.row.prompt))}\n   {shortened(r.text) or '(nothing)'}"
        for place, r in enumerate(rollouts, 1)
    ]
    return [Note("\n".join(lines))]


def _some_rows(task: ChatTask) -> list[ChatRow]:
    rows: list[ChatRow] = spread(task.source.examples["validation"], LOOKED_AT)
    return rows


def question_of(row: ChatRow) -> ChatRow:
    """A row whose prompt is everything before the assistant's last turn."""
    if isinstance(row.prompt, str):
        return row
    turns = [*row.prompt, *(row.answers[0] if row.answers else ())]
    places = [i for i, turn in enumerate(turns) if isinstance(turn, dict) and turn.get("role") == "assistant"]
    return replace(row, prompt=turns[: places[-1]] if places else turns, answers=())


def last_text(prompt: Turns) -> str:
    """A prompt as a text: the last turn."""
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content") or "")
