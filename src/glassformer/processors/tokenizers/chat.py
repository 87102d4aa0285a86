"""Chats: a list of messages to the one text, and the ids, that a chat model was trained on.

    tokenizer.chat.render([{"role": "user", "content": "Hello"}])   # '<|im_start|>user\\nHello<|im_end|>\\n<|im_...'
    tokenizer.chat.encode([{"role": "user", "content": "Hello"}])   # [1, 4093, 198, 19556, 2, 198, 1, 520, 9531, 198]
    tokenizer.chat.turn_ends                                        # (2,): <|im_end|>, where an answer stops

The model's chat template, a Jinja template that comes with its tokenizer, makes text of messages. It is a program from
a file, so it runs in `template_sandbox.py`, and in its text only the template's own special tokens count (`marks.py`):
a message with `<|im_end|>` in it does not end a turn.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from glassformer.errors import GlassformerError, UsageError
from glassformer.processors.tokenizers.alphabet import whole_characters
from glassformer.processors.tokenizers.template_meter import OverLimit

if TYPE_CHECKING:
    from glassformer.processors.tokenizers.marks import Marks
    from glassformer.processors.tokenizers.template_sandbox import Program

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXAMPLE = '{"role": "user", "content": "Hello"}'
_PROBE = "(this is the answer)"
_AS_DATA = re.compile(r"""["']text["']\s*:""")  # a list that was printed whole
_MAX_DEPTH = 32


class ChatTemplate:
    """The chat template of a tokenizer; `Tokenizer.chat` gives it.

    Args:
        source: the template, in Jinja as Hugging Face's `apply_chat_template` takes it.
        tokenizer: a `Tokenizer`; its special tokens are the markers, and `bos_token` and the like in its settings are
            variables.
    """

    def __init__(self, source: str, tokenizer: Any):
        self.source = source
        self._tokenizer = tokenizer
        self._too_much = False

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a chat, markers and contents alike: to be read, not to be encoded (see `encode`).

        Args:
            messages: the turns so far, each with a role ("system", "user", "assistant", "tool") and a content: a text,
                or parts of text (`[{"type": "text", "text": ...}]`), whichever form the template takes. An assistant's
                message that calls tools may come without a content.
            add_generation_prompt: end with what the assistant's answer begins with.
            variables: plain data for the template, such as `tools` or `enable_thinking`; `bos_token` and the like
                replace the tokenizer's own and are text.

        Raises:
            UsageError: the messages are malformed, or the template refuses them (such as two users in a row).
            TokenizerError: the template is no Jinja, fails, or takes too much time or memory.
        """
        return self._marks.plain(self._rendered(messages, add_generation_prompt, variables))

    def encode(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids of a chat: those of `apply_chat_template` in `transformers`, except that only special tokens which
        the template itself writes become special ids. Text in messages and variables never does.

        Args, Raises: as for `render`.
        """
        rendered = self._rendered(messages, add_generation_prompt, variables)
        return self._tokenizer.encode_parts(self._marks.parts(rendered))

    @cached_property
    def turn_ends(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn: those that end a text, and the special token that the template puts after
        an answer."""
        conversations = _conversations("text" if self.takes_text or not self.takes_parts else "parts")
        found = (self._end_of_answer(messages) for messages in conversations)
        first = next((end for end in found if end is not None), None)
        return tuple(sorted(self._tokenizer.ends if first is None else self._tokenizer.ends | {first}))

    @cached_property
    def takes_text(self) -> bool:
        """Whether the template shows contents that are texts."""
        return any(_PROBE in self._tried(messages) for messages in _conversations("text"))

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the template shows contents in parts, `[{"type": "text", "text": ...}]`."""
        shown = (self._tried(messages) for messages in _conversations("parts"))
        return any(_PROBE in text and not _AS_DATA.search(text) for text in shown)

    def _end_of_answer(self, messages: Any) -> int | None:
        """The special token right behind the answer in a conversation, if the template writes one there."""
        parts = self._marks.parts(self._tried(messages))
        for part, following in zip(reversed(parts[:-1]), reversed(parts[1:]), strict=True):
            if isinstance(part, str) and _PROBE in part:
                if not part.rpartition(_PROBE)[2].strip() and isinstance(following, int):
                    return following
                break
        return None

    def _tried(self, messages: Any) -> str:
        """A conversation as rendered; empty where the template refuses it."""
        program = self._program  # an error of its own is raised
        if self._too_much:
            return ""
        try:
            return program.run(_variables(messages, False, self._named_tokens))
        except GlassformerError as error:
            self._too_much = isinstance(error.__cause__, OverLimit)  # one attempt is enough
            return ""

    @cached_property
    def _marks(self) -> Marks:
        from glassformer.processors.tokenizers.marks import Marks

        return Marks(self._tokenizer.special_tokens)

    @cached_property
    def _named_tokens(self) -> dict[str, str]:
        """`bos_token`, `eos_token` and so on, as the tokenizer's settings have them."""
        tokenizer = self._tokenizer
        ends = [token for token, i in tokenizer.special_tokens.items() if i == tokenizer.end_of_text]
        stated = {name: tokenizer.settings.get(name) for name in _NAMED_TOKENS}
        return ({"eos_token": ends[0]} if ends else {}) | {n: t for n, t in stated.items() if isinstance(t, str)}

    @cached_property
    def _program(self) -> Program:
        return self._compiled(self._named_tokens)

    def _compiled(self, named_tokens: Mapping[str, str]) -> Program:
        from glassformer.processors.tokenizers.marks import Marker
        from glassformer.processors.tokenizers.template_sandbox import Program

        return Program(whole_characters(self.source), Marker(self._marks, named_tokens).visit, self._marks.plain)

    def _rendered(self, messages: Any, add_generation_prompt: bool, variables: Mapping[str, Any]) -> str:
        checked = [self._in_form(message) for message in check_messages(messages)]
        given = {name: _plain(value, name) for name, value in variables.items()}
        named = {name: token for name, token in self._named_tokens.items() if name not in given}
        program = self._program if len(named) == len(self._named_tokens) else self._compiled(named)
        return program.run(_variables(checked, add_generation_prompt, named | given))

    def _in_form(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with its content as the template takes it."""
        content = message.get("content")
        if isinstance(content, str) and not self.takes_text and self.takes_parts:
            return {**message, "content": [{"type": "text", "text": content}]}
        if isinstance(content, list) and not self.takes_parts:
            return {**message, "content": "".join(part["text"] for part in content)}
        return message


def _conversations(form: str) -> list[list[dict[str, Any]]]:
    """Small conversations with an answer, the plainest first: templates may insist on a system message, or close a
    turn only when the next one begins."""

    def turn(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": text if form == "text" else [{"type": "text", "text": text}]}

    system, user, answer = turn("system", "Be kind."), turn("user", "Hello"), turn("assistant", _PROBE)
    return [[user, answer], [system, user, answer], [user, answer, user], [system, user, answer, user]]


def _variables(messages: Any, add_generation_prompt: bool, others: Mapping[str, Any]) -> dict[str, Any]:
    own = {"messages": messages, "add_generation_prompt": bool(add_generation_prompt)}
    return {"tools": None, "documents": None, **others, **own}


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Messages as plain data, without entries that are None, as in `transformers`; any role is allowed."""
    if not isinstance(messages, (list, tuple)):
        raise UsageError(f"messages is a {type(messages).__name__}; give a list of objects such as {_EXAMPLE}")
    if not messages:
        raise UsageError(f"messages is empty; give at least one object such as {_EXAMPLE}")
    return [_checked(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _checked(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UsageError(f"{name} is a {type(message).__name__}; give an object such as {_EXAMPLE}")
    for key in ("role", "content"):
        value = message.get(key)
        if value is None and key == "content" and message.get("tool_calls"):
            continue
        if value is None:
            raise UsageError(f"{name} has no {key}; give an object such as {_EXAMPLE}")
        if key == "content" and isinstance(value, (list, tuple)):
            _check_parts(value, name)
        elif not isinstance(value, str):
            raise UsageError(f"{name}: its {key} is a {type(value).__name__}, and must be text")
    if not message["role"].strip():
        raise UsageError(f"{name}: its role is empty; give system, user, assistant or tool")
    return _with_objects(_plain({key: value for key, value in message.items() if value is not None}, name))


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose calls have objects as arguments, as templates take them: OpenAI's API has JSON texts."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(function["arguments"])
                if isinstance(arguments, dict):
                    function["arguments"] = _plain(arguments, "arguments")
    return message


def _check_parts(parts: Any, name: str) -> None:
    """Raise `UsageError` for a content with a part that is no text."""
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            example = '{"type": "text", "text": ...}'
            raise UsageError(f"{name}: a part of its content is {str(kind)[:40]!r}; only text is read: give {example}")


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """A copy of plain data without half characters, which stand for the template's own markers (see `marks.py`)."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return whole_characters(str.__str__(value))  # an enumeration would write out its name
    if depth >= _MAX_DEPTH:
        raise UsageError(f"{name} is nested more than {_MAX_DEPTH} deep; give flatter data")
    if isinstance(value, Mapping):
        return {whole_characters(str(key)): _plain(inner, name, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, name, depth + 1) for inner in value]
    raise UsageError(f"{name} holds a {type(value).__name__}; a chat template takes text, numbers, lists and objects")
