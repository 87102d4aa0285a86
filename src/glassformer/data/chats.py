"""Chats, prompts with answers, and preferences: one row of a JSON file, in the forms that people have.

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}      OpenAI
    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}        ShareGPT
    {"instruction": ..., "input": ..., "output": ...}                                 Alpaca
    {"prompt": ..., "completion": ...}                                                TRL; a text or messages
    {"prompt": ..., "chosen": ..., "rejected": ...}                                   preferences; the prompt may be
                                                                                      the common beginning of both, an
                                                                                      instruction, or conversations
    {"prompt": ..., "completion": ..., "label": true}                                 thumbs up or down (KTO)
    {"prompt": ..., "answer": 7}                                                      a prompt for a reward function,
                                                                                      which gets the other fields

A text stays a text and is continued as it is; messages go through the chat template of the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from glassformer.data.example_splits import HELD_OUT, SPLITS, split_by_group
from glassformer.errors import DataError, UsageError, did_you_mean

Turns = str | list[dict[str, Any]]
"""A text, or messages with a role and a content."""


@dataclass(frozen=True)
class ChatRow:
    """One row: a prompt and the answers to it.

    prompt: what stands before every answer; never trained on. answers: none (prompts for a reward function), one, or
    chosen and rejected. label: whether the answer is a good one, where the row states it. tools: JSON schemas that the
    chat template shows. columns: the other fields. place: file and line, for messages.
    """

    prompt: Turns
    answers: tuple[Turns, ...] = ()
    label: bool | None = None
    tools: list[Any] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    split: str | None = None

    @property
    def is_chat(self) -> bool:
        """Whether it consists of messages."""
        return not isinstance(self.prompt, str)

    @property
    def uses_tools(self) -> bool:
        """Whether its template must show tools or calls."""
        turns = (turn for turns in (self.prompt, *self.answers) if not isinstance(turns, str) for turn in turns)
        return bool(self.tools) or any(turn.get("tool_calls") for turn in turns)

    def to_json(self) -> str:
        """Everything that training depends on, as one text."""
        content = [self.prompt, self.answers, self.label, self.tools, self.columns]
        return json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)


ChatRows = dict[str, list[ChatRow]]
"""Rows by split: train, validation, test."""


def split_rows(rows: Sequence[ChatRow], name: str) -> ChatRows:
    """Rows by split; what no row names is held out of the training rows, equal prompts together.

    Raises:
        DataError: there are too few rows, or only some have a split.
    """
    if not rows:
        raise DataError(f"{name}: there are no rows")
    named = [row for row in rows if row.split is not None]
    if named and len(named) < len(rows):
        bare = next(row for row in rows if row.split is None)
        raise DataError(f"{bare.place}: some rows have a split and this one has none; give one to all or to none")
    found: ChatRows = {split: [row for row in named if row.split == split] for split in SPLITS}
    if not named:
        found["train"] = list(rows)
    missing = {split: 0.0 if found[split] else HELD_OUT for split in ("validation", "test")}
    if not any(missing.values()) or (named and not found["train"]):
        return found
    try:
        held = split_by_group([(row, _group(row)) for row in found["train"]], **missing)
    except DataError as error:
        raise DataError(f"{name}: too few rows to train on, validate and test; give three different ones") from error
    return {split: found[split] if missing.get(split) == 0.0 else held[split] for split in SPLITS}


def _group(row: ChatRow) -> str:
    """Rows of one group stay in one split: those with equal prompts, or equal first turns."""
    first = row.prompt or (row.answers[0][:1] if row.answers else "")
    return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()


# ---- the forms ----


def chat_row(row: dict[str, Any], where: str) -> ChatRow:
    """A row of any of the forms.

    Raises:
        DataError: it is of none of them, or a field is not as it must be.
    """
    rest = dict(row)
    split = rest.pop("split", None)
    if split is not None and split not in SPLITS:
        raise DataError(f"{where}: split={split!r} is unknown; {did_you_mean(str(split), SPLITS)}")
    sides = [name for name in ("chosen", "rejected") if row.get(name) is not None]
    if len(sides) == 1:
        missing = "rejected" if sides == ["chosen"] else "chosen"
        raise DataError(
            f"{where}: it has {sides[0]} and no {missing}; a preference needs both: add it, or leave it out"
        )
    for fields, read in FORMS.items():
        if all(name in row for name in fields):
            try:
                prompt, answers = read(rest)
                label, tools = _label(rest), _tools(rest)
                for turns in (prompt, *answers):
                    if not isinstance(turns, str) and turns:
                        _checked(turns)
            except UsageError as error:
                raise DataError(f"{where}: {error}") from None
            return ChatRow(prompt, answers, label, tools, rest, where, split)
    known = "; ".join(" and ".join(fields) for fields in FORMS)
    raise DataError(f"{where}: no known form; it has {', '.join(row) or 'no fields'}, and a row has {known}")


def _preference(row: dict[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    chosen, rejected = (_turns(row.pop(name), name) for name in ("chosen", "rejected"))
    if isinstance(row.get("prompt"), str) and not isinstance(chosen, str) and chosen[:1] == rejected[:1]:
        row.pop("prompt")  # UltraFeedback's: the text of the first message, which both sides repeat
    if "prompt" in row:
        prompt = _turns(row.pop("prompt"), "prompt")
    elif "conversations" in row or "messages" in row:
        prompt = _conversation(row)
    elif "instruction" in row:
        prompt = _instruction(row)
    else:
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise UsageError("chosen and rejected must both be texts, or both messages")
        pairs = enumerate(zip(chosen, rejected, strict=False))
        same = next((i for i, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
        if isinstance(chosen, str):
            same = chosen.rfind(" ", 0, same) + 1 if same < min(len(chosen), len(rejected)) else same
        prompt, chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
    answers = tuple(_answer(prompt, turns) for turns in (chosen, rejected))
    if answers[0] == answers[1]:
        raise UsageError("chosen and rejected are equal, so there is nothing to prefer")
    for name, turns in zip(("chosen", "rejected"), answers, strict=True):
        _check_answer(turns, name)
    return prompt, answers


def _completion(row: dict[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    prompt = _turns(row.pop("prompt"), "prompt")
    answer = _answer(prompt, _turns(row.pop("completion"), "completion"))
    _check_answer(answer, "completion")
    return prompt, (answer,)


def _messages(row: dict[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    name = "messages" if "messages" in row else "conversations"
    turns = _conversation(row)
    if "label" in row:  # a judgement is about the last turn
        _check_answer(turns[-1:], name)
        return turns[:-1], (turns[-1:],)
    _check_answer(turns, name)
    return [], (turns,)


def _conversation(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages or ShareGPT's conversations, after the text of a field `system`."""
    name = "messages" if "messages" in row else "conversations"
    return [*_system(row), *_checked(_turns(row.pop(name), name))]


def _system(row: dict[str, Any]) -> list[dict[str, Any]]:
    system = row.pop("system", None)
    return [{"role": "system", "content": str(system)}] if system else []


def _instruction(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Alpaca's system, history, instruction and input as messages."""
    instruction, extra, turns = str(row.pop("instruction")), str(row.pop("input", "") or ""), _system(row)
    for question, answer in row.pop("history", None) or []:
        turns += [{"role": "user", "content": question}, _assistant(answer)]
    return [*turns, {"role": "user", "content": f"{instruction}\n\n{extra}" if extra.strip() else instruction}]


def _alpaca(row: dict[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    turns, answer = _instruction(row), [_assistant(row.pop("output"))]
    _check_answer(answer, "output")
    return turns, (answer,)


def _prompt(row: dict[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    return _turns(row.pop("prompt"), "prompt"), ()


FORMS: dict[tuple[str, ...], Callable[[dict[str, Any]], tuple[Turns, tuple[Turns, ...]]]] = {
    ("chosen", "rejected"): _preference,
    ("prompt", "completion"): _completion,
    ("messages",): _messages,
    ("conversations",): _messages,
    ("instruction", "output"): _alpaca,
    ("prompt",): _prompt,
}
"""Fields that make a form, and its reader, which takes what it uses out of the row: (prompt, answers)."""

ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant", "bot": "assistant"}
"""Roles of ShareGPT, and what they are called here; other names stay."""


def _turns(value: Any, name: str) -> Turns:
    """A text, or messages in OpenAI's form."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise UsageError(f"{name} is a {type(value).__name__}; give a text or a list of messages")
    return [_shared(turn) if "from" in turn and "role" not in turn else turn for turn in value]


def _shared(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of ShareGPT as a message."""
    speaker, text = str(turn["from"]), turn.get("value")
    message = {"role": ROLES.get(speaker, speaker), "content": text}
    if speaker == "function_call":
        try:
            call = json.loads(text or "")
        except ValueError:
            raise UsageError("a function_call is no JSON object with name and arguments") from None
        message |= {"content": "", "tool_calls": [{"type": "function", "function": call}]}
    return message


def _answer(prompt: Turns, answer: Turns) -> Turns:
    """An answer in the form of its prompt: a text after messages is the assistant's turn."""
    if isinstance(prompt, str) and not isinstance(answer, str):
        raise UsageError("the prompt is a text and its answer a list of messages; give both in one form")
    return answer if isinstance(prompt, str) or not isinstance(answer, str) else [_assistant(answer)]


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _check_answer(turns: Turns, name: str) -> None:
    """Raise for an answer from which nothing can be learned."""
    if isinstance(turns, str):
        if not turns.strip():
            raise UsageError(f"{name} is empty; fill it or leave the row out")
        return
    spoken = [turn for turn in turns if turn.get("role") == "assistant"]
    if not spoken:
        raise UsageError(f"{name} has no turn of the assistant, so there is nothing to train; leave the row out")
    if any(not turn.get("tool_calls") and not str(turn.get("content") or "").strip() for turn in spoken):
        raise UsageError(f"{name} has an empty turn of the assistant; fill it or leave the row out")


def _checked(turns: Turns) -> list[dict[str, Any]]:
    from glassformer.processors.tokenizers.chat import (
        check_messages,
    )  # tokenizers load late, so that help does not wait

    return check_messages(turns)


def _label(row: dict[str, Any]) -> bool | None:
    label = row.pop("label", None)
    if label is not None and not isinstance(label, bool):
        raise UsageError(f"label={label!r} is neither true nor false")
    return label


def _tools(row: dict[str, Any]) -> list[Any] | None:
    tools = row.pop("tools", None)
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise UsageError("tools is no JSON list of schemas") from None
    if tools is not None and not isinstance(tools, list):
        raise UsageError(f"tools is a {type(tools).__name__}; give a list of JSON schemas")
    bare = (isinstance(tool, dict) and "function" not in tool for tool in tools or ())  # as OpenAI had them at first
    shown = zip(tools or (), bare, strict=True)
    return [{"type": "function", "function": tool} if is_bare else tool for tool, is_bare in shown] or None


def texts_of(rows: Iterable[ChatRow]) -> Iterator[tuple[str, str]]:
    """(prompt, answers) of each row as plain text without a template: what a new tokenizer is learned from."""
    for row in rows:
        yield _plain(row.prompt), "\n".join(map(_plain, row.answers))


def _plain(turns: Turns) -> str:
    if isinstance(turns, str):
        return turns
    calls = [json.dumps(turn["tool_calls"], ensure_ascii=False) for turn in turns if turn.get("tool_calls")]
    return "\n".join([*(str(turn.get("content") or "") for turn in turns), *calls])
