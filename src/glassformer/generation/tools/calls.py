"""The form in which a chat template writes calls of tools, and reading them out of what a model wrote.

    <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>      Hermes, Qwen, our own templates
    {"name": "add", "parameters": {"a": 1}}                            Llama 3
    [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]              Mistral

The template itself shows its form: it is given a call, and the text around the JSON object is the mark.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from glassformer.errors import GlassformerError, UsageError
from glassformer.processors.tokenizers import Tokenizer

MAX_CALLS = 16  # in one turn
_NAME, _RESULT = "probe_tool", "probe result"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}
_CALL = {"type": "function", "id": "probe0001", "function": {"name": _NAME, "arguments": {"x": 7}}}
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True)
class Call:
    """One call. arguments: an object; a text where the model wrote no valid JSON."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolForm:
    """mark: what stands before the first call; "": a turn that is a call begins with its object. before: everything
    that the template writes before that object. key: what the arguments are called. after: what it writes after it."""

    mark: str
    before: str
    key: str
    after: str = ""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ToolForm:
        """The form of a tokenizer's chat template.

        Raises:
            UsageError: it has no template, or one that shows no tools or writes calls in another form than JSON.
        """
        refused = "the chat template has no form for tools; fine-tune on rows with tools and task.template=chatml"
        if tokenizer.chat_template is None:
            raise UsageError("the model has no chat template, so it cannot be shown tools; use a chat model")
        user = {"role": "user", "content": "Hello"}
        called = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
        result = {"role": "tool", "name": _NAME, "tool_call_id": "probe0001", "content": _RESULT}
        try:
            asked = tokenizer.chat.render([user], tools=[_TOOL])
            answered = tokenizer.chat.render([user, called, result], add_generation_prompt=False, tools=[_TOOL])
        except GlassformerError as error:
            raise UsageError(f"{refused} ({error})") from None
        shared = next((i for i, (a, b) in enumerate(zip(asked, answered, strict=False)) if a != b), len(asked))
        written = answered[shared:]
        start = written.rfind("{", 0, max(written.find(f'"{_NAME}"'), 0))
        call, end = _decoded(written, start) if start >= 0 else (None, 0)
        key = next((key for key in _ARGUMENTS if isinstance(call, dict) and call.get(key) == {"x": 7}), None)
        if _NAME not in asked or _RESULT not in answered or key is None:
            raise UsageError(refused)
        words = written[:start].rstrip("[ \n").split()
        after = written[end:].partition(_RESULT)[0]
        ends = [tokenizer.token_text(i) for i in tokenizer.chat.turn_ends]
        after = after[: min((place for place in map(after.find, ends) if place >= 0), default=0)]
        return cls(words[-1] if words else "", written[:start], key, after)

    def opening(self, name: str | None = None) -> str:
        """How a call begins, up to the name of the function, or up to the arguments of this one."""
        return self.before + ('{"name": "' if name is None else self.opening_of(name))

    def opening_of(self, name: str) -> str:
        """How the object of a call begins, up to the arguments."""
        return f'{{"name": {json.dumps(name)}, "{self.key}": '

    def special_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The special tokens that stand before and after the object of a call."""
        known = tokenizer.special_tokens
        return [i for token, i in known.items() if token in self.before or token in self.after]

    def opening_ids(self, tokenizer: Tokenizer, name: str | None = None) -> list[int]:
        """The ids of `opening`; special tokens that the template itself writes are ids."""
        known = tokenizer.special_tokens
        special = "|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)"
        parts = re.split(f"({special})", self.opening(name))
        return tokenizer.encode_parts([known.get(part, part) for part in parts if part])

    def starts(self, text: str) -> int:
        """Where calls begin in a text; -1: there are none."""
        if self.mark:
            return text.find(self.mark)
        begin = len(text) - len(text.lstrip())
        return begin if text[begin : begin + 1] == "{" else -1

    def read(self, text: str) -> tuple[str, list[Call]]:
        """(the text before the calls, the calls). An object that is no valid JSON, or names no function, is a call
        with a text as arguments where a mark announces it, and text where none does."""
        start = self.starts(text)
        if start < 0:
            return text, []
        rest, at, calls = text[start + len(self.mark) :], 0, list[Call]()
        while len(calls) < MAX_CALLS and (at := rest.find("{", at)) >= 0:
            value, end = _decoded(rest, at)
            name = value.get("name") if isinstance(value, dict) else None
            if not isinstance(name, str):
                calls += [_damaged(rest[at:])] if self.mark else []
                break
            calls.append(Call(name, next((value[key] for key in _ARGUMENTS if key in value), {})))
            at = end
        if not calls:
            return (text[:start].rstrip(), [_damaged(rest)]) if self.mark else (text, [])
        return text[:start].rstrip(), calls


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """(the JSON value that begins at a place, where it ends); (None, start): none does."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _damaged(text: str) -> Call:
    """A call that cannot be read, under the name that it seems to have."""
    name = re.search(r'"name"\s*:\s*"([^"]{1,64})"', text)
    arguments = re.search(r'"(?:arguments|parameters)"\s*:\s*(.*?)\s*(?:</\w+>|$)', text, re.DOTALL)
    return Call(name[1] if name else "", arguments[1] if arguments else text.strip())
