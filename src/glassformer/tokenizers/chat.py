"""Chats: a list of messages to the one text, and the ids, that a chat model was trained on.

    tokenizer.chat.render([{"role": "user", "content": "Hello"}])   # '<|im_start|>user\\nHello<|im_end|>\\n<|im_...'
    tokenizer.chat.encode([{"role": "user", "content": "Hello"}])   # [1, 4093, 198, 19556, 2, 198, 1, 520, 9531, 198]
    tokenizer.chat.turn_ends                                        # (2,): <|im_end|>, where an answer stops

How messages become text is written in the model's chat template, a Jinja template that comes with its tokenizer. It is
somebody else's program, so it runs in `sandbox.py`, and what it makes is text in which only the template's own special
tokens count (`marks.py`): a message that says `<|im_end|>` does not end a turn, it talks about one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from glassformer.errors import GlassformerError, UsageError
from glassformer.tokenizers.alphabet import whole_characters

if TYPE_CHECKING:
    from glassformer.tokenizers.marks import Marks
    from glassformer.tokenizers.sandbox import Program
    from glassformer.tokenizers.tokenizer import Tokenizer

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXAMPLE = '{"role": "user", "content": "Hello"}'
_PROBE = "(this is the answer)"
_MAX_DEPTH = 32


class ChatTemplate:
    """The chat template of a tokenizer; `Tokenizer.chat` gives it.

    Args:
        source: the template, in Jinja as Hugging Face's `apply_chat_template` takes it.
        tokenizer: its special tokens are the markers, and `bos_token` and the like in its settings are variables.
    """

    def __init__(self, source: str, tokenizer: Tokenizer):
        self.source = source
        self._tokenizer = tokenizer

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a chat, markers and contents alike: to be read, not to be encoded (see `encode`).

        Args:
            messages: the turns so far, each with a role ("system", "user", "assistant", "tool") and a content.
            add_generation_prompt: end with what the assistant's answer begins with.
            variables: what else the template knows, such as `tools` or `enable_thinking`: plain data. One that is
                called `bos_token`, or as another of the tokenizer's tokens, takes its place, and is text.

        Raises:
            UsageError: the messages are malformed, or the template refuses them (two users in a row, say).
            TokenizerError: the template is no Jinja, fails, or takes too much time or room.
        """
        return self._marks.plain(self._rendered(messages, add_generation_prompt, variables))

    def encode(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids of a chat: those of `apply_chat_template` in `transformers`, except that only special tokens which
        the template itself writes become special ids. Text in messages and variables never does.

        Args, Raises: as for `render`.
        """
        return self._tokenizer.encode_parts(
            self._marks.parts(self._rendered(messages, add_generation_prompt, variables))
        )

    @cached_property
    def turn_ends(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn: end-of-text, and the special token that the template puts after an answer.

        Raises:
            TokenizerError: the template is no Jinja.
        """
        ends = set(self._tokenizer.ends)
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _PROBE}]
        program = self._program
        try:
            parts = self._marks.parts(program.run(_variables(messages, False, self._named_tokens)))
        except GlassformerError:  # a template with other wishes tells nothing here
            parts = []
        for part, following in zip(reversed(parts[:-1]), reversed(parts[1:]), strict=True):
            if isinstance(part, str) and _PROBE in part:
                if not part.rpartition(_PROBE)[2].strip() and isinstance(following, int):
                    ends.add(following)
                break
        return tuple(sorted(ends))

    @cached_property
    def _marks(self) -> Marks:
        from glassformer.tokenizers.marks import Marks

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
        from glassformer.tokenizers.marks import Marker
        from glassformer.tokenizers.sandbox import Program

        return Program(whole_characters(self.source), Marker(self._marks, named_tokens).visit, self._marks.plain)

    def _rendered(self, messages: Any, add_generation_prompt: bool, variables: Mapping[str, Any]) -> str:
        checked = check_messages(messages)
        given = {name: _plain(value, name) for name, value in variables.items()}
        named = {name: token for name, token in self._named_tokens.items() if name not in given}
        program = self._program if len(named) == len(self._named_tokens) else self._compiled(named)
        return program.run(_variables(checked, add_generation_prompt, named | given))


def _variables(messages: Any, add_generation_prompt: bool, others: Mapping[str, Any]) -> dict[str, Any]:
    own = {"messages": messages, "add_generation_prompt": bool(add_generation_prompt)}
    return {"tools": None, "documents": None, **others, **own}


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Messages as plain data, checked: what is missing or of the wrong kind is one line.

    An assistant's message that calls tools may come without a content. Any role goes; a template that knows only some
    says so itself. As in `transformers`, entries that are None are left out.

    Raises:
        UsageError: there are none, or one is not as it must be.
    """
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
        if not isinstance(value, str):
            raise UsageError(f"{name}: its {key} is a {type(value).__name__}, and must be text")
    if not message["role"].strip():
        raise UsageError(f"{name}: its role is empty; give system, user, assistant or tool")
    return _plain({key: value for key, value in message.items() if value is not None}, name)


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
