"""A chat: turns that grow, with a model's chat template or as plain text, within what the model can read.

system: You are kind.                 a chat model: its template lays the turns out, its special tokens end them
Q: What is the capital of France?     a base model: a document that continues as a dialogue would, cut off
A: Paris.                             before the next speaker's name
Q:
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError
from glassformer.files import write_json
from glassformer.generation.engine import Engine
from glassformer.generation.requests import Piece, Request
from glassformer.generation.settings import Sampling, new_tokens_of, sampling_of
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.text_files import decode, parse_json

NEW_TOKENS = 512  # of one answer
MIN_ANSWER = 16  # tokens that must be free for an answer


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
    messages: list[dict[str, str]] = field(default_factory=list)  # the turns so far, as {"role", "content"}
    sampling: Sampling = None  # type: ignore[assignment]  # None: the model's own, else temperature 1
    max_new_tokens: int | None = None  # None: the model's own, else 512
    alternatives: int = 5
    speakers: Speakers = field(default_factory=Speakers)
    dropped: int = 0  # how many of the oldest turns no longer fit into what the model reads

    def __post_init__(self) -> None:
        self.sampling = self.sampling or sampling_of(self.model, {})
        self.engine = Engine(self.model, self.tokenizer, max_rows=1)

    @property
    def has_template(self) -> bool:
        """Whether turns are laid out by the model's own template."""
        return self.tokenizer.chat_template is not None

    def ask(self, text: str) -> Iterator[Piece]:
        """Stream the answer to a turn. Both are kept when the answer is finished or the reader stops; nothing is kept
        if the model cannot answer.

        Raises:
            UsageError: this turn alone is too long, or the template refuses it.
        """
        turns = [*self.messages, {"role": "user", "content": text}]
        ids, self.dropped = self._fitting(turns)
        free = self.model.config.block_size - len(ids)
        request = Request(
            ids=tuple(ids),
            max_new_tokens=min(new_tokens_of(self.model, len(ids), self.max_new_tokens, NEW_TOKENS), free),
            sampling=self.sampling,
            stop=() if self.has_template else (f"\n{self.speakers.user}:", f"\n{self.speakers.assistant}:"),
            end_tokens=frozenset(self.tokenizer.chat.turn_ends) if self.has_template else None,
            alternatives=self.alternatives,
        )
        number, answer = self.engine.submit(request), ""
        try:
            for event in self.engine.run():
                if event.piece is not None:
                    answer += event.piece.text
                    yield event.piece
        finally:  # Ctrl-C in the middle of an answer: the text so far stays
            self.engine.cancel(number)
            kept = answer if self.has_template else answer.strip()  # unchanged, so that the cache fits the next turn
            self.messages = [*turns, {"role": "assistant", "content": kept}]

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
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in saved["messages"]]
            system = saved.get("system")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not a saved chat ({error}); give a file that was saved from a chat") from None
        if any(message["role"] not in ("user", "assistant") for message in messages):
            raise UsageError(f"{path}: the role of a turn is neither user nor assistant; change it to one of them")
        self.system, self.messages = system if isinstance(system, str) else None, messages

    def _fitting(self, turns: list[dict[str, str]]) -> tuple[list[int], int]:
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

    def _ids(self, turns: list[dict[str, str]]) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        if self.has_template:
            return self.tokenizer.chat.encode([*system, *turns])
        names = {"user": self.speakers.user, "assistant": self.speakers.assistant}
        lines = [*([self.system, ""] if self.system else []), *(f"{names[t['role']]}: {t['content']}" for t in turns)]
        start: list[Any] = [] if self.tokenizer.starts_with is None else [self.tokenizer.starts_with]
        return start + self.tokenizer.encode("\n".join([*lines, f"{self.speakers.assistant}:"]))
