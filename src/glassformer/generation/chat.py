"""A chat: turns that grow, with a model's chat template or as plain text, within what the model can read.

system: You are kind.                 a chat model: its template lays the turns out, its special tokens end them
Q: What is the capital of France?     a base model: a document that continues as a dialogue would, cut off
A: Paris.                             before the next speaker's name
Q:

A model may call tools where its template has a form for them (`tools/`): the call is run, its result is one more turn
that the model reads, and it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError
from glassformer.files import write_json
from glassformer.generation.engine import Engine
from glassformer.generation.grammar import Grammar
from glassformer.generation.requests import Piece, Request
from glassformer.generation.settings import Sampling, new_tokens_of, sampling_of
from glassformer.generation.stopping import StopStrings
from glassformer.generation.tools import Tool, Toolbox, ToolForm, ToolUse
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.text_files import decode, parse_json

NEW_TOKENS = 512  # of one answer
MIN_ANSWER = 16  # tokens that must be free for an answer
MAX_ROUNDS = 8  # how often one answer may call tools


@dataclass
class Speakers:
    """The names of the speakers in plain text, for models without a chat template."""

    user: str = "Q"
    assistant: str = "A"


@dataclass
class Chat:
    """Turns with a model. `ask` streams an answer and keeps it; the engine's cache keeps what it has read."""

    model: Decoder
    tokenizer: Tokenizer
    system: str | None = None  # what stands before all turns
    messages: list[dict[str, Any]] = field(default_factory=list)  # the turns so far, as {"role", "content"}
    sampling: Sampling = None  # type: ignore[assignment]  # None: the model's own, else temperature 1
    max_new_tokens: int | None = None  # None: the model's own, else 512
    alternatives: int = 5
    speakers: Speakers = field(default_factory=Speakers)
    dropped: int = 0  # how many of the oldest turns no longer fit into what the model reads
    tools: Toolbox | Iterable[Tool | Callable[..., Any]] = ()  # what the model may call
    grammar: Grammar | None = None  # what each answer must follow

    def __post_init__(self) -> None:
        self.sampling = self.sampling or sampling_of(self.model, {})
        self.engine = Engine(self.model, self.tokenizer, max_rows=1)
        self.tools = self.toolbox = Toolbox.of(self.tools)
        self.form = ToolForm.of(self.tokenizer) if self.toolbox.tools else None
        if self.form and self.grammar:
            raise UsageError("an answer that follows a grammar or a JSON schema calls no tools; give one of them")

    @property
    def has_template(self) -> bool:
        """Whether turns are laid out by the model's own template."""
        return self.tokenizer.chat_template is not None

    def ask(self, text: str) -> Iterator[Piece | ToolUse]:
        """Stream the answer to a turn, with the calls of tools in it and their results. All are kept when the answer is
        finished or the reader stops; nothing is kept if the model cannot answer.

        Raises:
            UsageError: this turn alone is too long, or the template refuses it.
        """
        turns: list[dict[str, Any]] = [*self.messages, {"role": "user", "content": text}]
        ids = self._read(turns)
        for _ in range(MAX_ROUNDS):
            answer = yield from self._written(turns, ids)
            content, calls = self.form.read(answer) if self.form else (answer, [])
            if not calls:
                break
            uses = [self.toolbox.use(call.name, call.arguments) for call in calls]
            turns, ids = self._with_results(turns, content, uses)
            self.messages = turns
            yield from uses
        else:
            yield from self._written(turns, ids)  # the last answer may say anything, and calls nothing
        for observe in self.toolbox.observers:
            observe(text, str(self.messages[-1]["content"]))

    def _written(self, turns: list[dict[str, Any]], ids: list[int]) -> Generator[Piece, None, str]:
        """Stream what the model writes after these turns, without calls of tools, and keep it. Returns all of it."""
        free = self.model.config.block_size - len(ids)
        request = Request(
            ids=tuple(ids),
            max_new_tokens=min(new_tokens_of(self.model, len(ids), self.max_new_tokens, NEW_TOKENS), free),
            sampling=self.sampling,
            stop=() if self.has_template else (f"\n{self.speakers.user}:", f"\n{self.speakers.assistant}:"),
            end_tokens=frozenset(self.tokenizer.chat.turn_ends) if self.has_template else None,
            alternatives=self.alternatives,
            grammar=self.grammar,
        )
        number, answer = self.engine.submit(request), ""
        shown = StopStrings([self.form.mark] if self.form else [])
        try:
            for event in self.engine.run():
                if event.piece is not None:
                    answer += event.piece.text
                    text = shown.push(event.piece.text)
                    if event.piece.finish_reason is not None:
                        text += shown.finish()
                    yield event.piece if self.form is None else replace(event.piece, text=text)
        finally:  # Ctrl-C in the middle of an answer: the text so far stays
            self.engine.cancel(number)
            kept = answer if self.has_template else answer.strip()  # unchanged, so that the cache fits the next turn
            self.messages = [*turns, {"role": "assistant", "content": kept}]
        return answer

    def _with_results(
        self, turns: list[dict[str, Any]], content: str, uses: list[ToolUse]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """The turns after these calls with their results, and their ids. Results that do not fit are errors, which the
        model reads instead."""
        names = [f"call{len(turns):03}{n:02}" for n in range(len(uses))]  # nine letters, as Mistral's template insists
        functions = [{"name": use.name, "arguments": use.arguments} for use in uses]
        calls = [{"type": "function", "id": i, "function": f} for i, f in zip(names, functions, strict=True)]
        before = [*turns, {"role": "assistant", "content": content, "tool_calls": calls}]
        results = [
            {"role": "tool", "name": use.name, "tool_call_id": i, "content": use.result}
            for i, use in zip(names, uses, strict=True)
        ]
        after = [*before, *results]
        try:
            return after, self._read(after)
        except UsageError:
            after = [*before, *({**result, "content": "error: the result is too long"} for result in results)]
            return after, self._read(after)

    def _read(self, turns: list[dict[str, Any]]) -> list[int]:
        """The ids of these turns; those that leave what the model reads are given to the tools that keep them."""
        before = self.dropped
        ids, self.dropped = self._fitting(turns)
        for turn in turns[before : self.dropped]:
            for keep in self.toolbox.left:
                keep(turn["role"], str(turn["content"]))
        return ids

    def reset(self) -> None:
        """Remove all turns; the system text stays."""
        self.messages, self.dropped = [], 0

    def save(self, path: str | Path) -> None:
        """Write the system text and the turns as JSON."""
        write_json(path, {"system": self.system, "messages": self.messages})

    def load(self, path: str | Path) -> None:
        """Continue with the system text and the turns of a file of `save`.

        Raises:
            UsageError: it is not such a file.
        """
        try:
            saved = parse_json(decode(Path(path).read_bytes()))
            messages = [{**m, "role": str(m["role"]), "content": str(m["content"])} for m in saved["messages"]]
            system = saved.get("system")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a saved chat ({error}); give a file that was saved from a chat") from None
        if any(message["role"] not in ("user", "assistant", "tool") for message in messages):
            raise UsageError(f"{path}: the role of a turn is not user, assistant or tool; change it to one of them")
        self.system, self.messages = system if isinstance(system, str) else None, messages

    def _fitting(self, turns: list[dict[str, Any]]) -> tuple[list[int], int]:
        """The ids of as many of the last turns as leave tokens for an answer, and how many were left out."""
        block_size = self.model.config.block_size
        free = min(MIN_ANSWER, max(1, block_size // 4))
        for start in (n for n, turn in enumerate(turns) if turn["role"] == "user"):
            ids = self._ids(turns[start:])
            if len(ids) + free <= block_size:
                return ids, start
        raise UsageError(
            f"the turn has {len(ids):,} tokens with its surroundings, and the model reads {block_size:,}; shorten it"
        )

    def _ids(self, turns: list[dict[str, Any]]) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        if self.has_template:
            return self.tokenizer.chat.encode([*system, *turns], tools=self.toolbox.schemas or None)
        names = {"user": self.speakers.user, "assistant": self.speakers.assistant, "tool": "tool"}
        lines = [*([self.system, ""] if self.system else []), *(f"{names[t['role']]}: {t['content']}" for t in turns)]
        start: list[Any] = [] if self.tokenizer.starts_with is None else [self.tokenizer.starts_with]
        return start + self.tokenizer.encode("\n".join([*lines, f"{self.speakers.assistant}:"]))
