"""Chats as ids: which tokens of a chat are read, and which are trained.

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n  Hello!<|im_end|>  \\n<|im_start|>user ...
    -------------------- read ------------------------------- ---- trained ----  ---- read ----

Training ids are serving ids: what stands before an answer is the very list of ids that `chat` gives the model. A
template that changes earlier turns once a new one comes (some drop their reasoning) makes one sequence of each answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from glassformer.data.batches import IGNORED
from glassformer.data.chat_sets import load_chats
from glassformer.data.chats import ChatRow, ChatRows, Turns, texts_of
from glassformer.data.encoding import tokenizer_from
from glassformer.data.example_splits import Example, spread
from glassformer.data.packing import PADDING
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.generation.tools import ToolForm
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.gpt2 import END_OF_TEXT
from glassformer.tasks.base import Batch, Opening
from glassformer.tasks.examples import ExampleTask
from glassformer.tasks.losses import padded
from glassformer.tasks.settings import Choice, DataSettings, TaskSettings, TokenizerSettings
from glassformer.text_files import read_text

_TOOLS = (
    "You may call these functions:\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'To call one, write <tool_call>{"name": ..., "arguments": {...}}</tool_call>'
)
_CALLS = (
    "{% for call in message['tool_calls'] %}{% set f = call['function'] or call %}<tool_call>"
    "{{ {'name': f['name'], 'arguments': f['arguments']} | tojson }}</tool_call>{% endfor %}"
)
_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}" + _TOOLS
_TURNS = "{% for message in messages %}{% if not (tools and loop.first and message['role'] == 'system') %}"
TEMPLATES = {
    "chatml": (
        "{% if tools %}<|im_start|>system\n"
        + _SYSTEM
        + "<|im_end|>\n{% endif %}"
        + _TURNS
        + "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        + _CALLS
        + "<|im_end|>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "plain": (
        "{% if tools %}### System\n"
        + _SYSTEM
        + "\n\n{% endif %}"
        + _TURNS
        + "### {{ message['role'] | capitalize }}\n{{ message['content'] }}"
        + _CALLS
        + "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}### Assistant\n{% endif %}"
    ),
}
"""Chat templates for tokenizers without one. `plain` needs no tokens but the end of a text. Calls of tools are written
as Hermes writes them; their results are turns of their own, which are read and never trained."""
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
CHAT_SPECIALS = (END_OF_TEXT, *CHAT_TOKENS)
"""Tokens of a tokenizer that is learned from chats: answers end with one, whatever the template."""


class ChatSettings(TaskSettings):
    """[task] of every task on chats."""

    template: str | None = None
    """chatml, plain, or a file with a Jinja template; None: the tokenizer's own"""


@dataclass
class ChatSource:
    """Rows by split, and the tokenizer with its chat template."""

    name: str
    examples: ChatRows
    tokenizer: Tokenizer
    notices: list[str] = field(default_factory=list)
    encoded: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    source_tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Changes when a row, the vocabulary or the template does."""
        digest = hashlib.sha256(f"{self.tokenizer.hash}\0{self.tokenizer.chat_template}".encode())
        for split in ("train", "validation"):
            for row in self.examples[split]:
                digest.update(f"{split}\0{row.to_json()}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    @property
    def n_train(self) -> int:
        return len(self.examples["train"])

    @property
    def is_chat(self) -> bool:
        """Whether rows consist of messages, and so need a template."""
        return any(row.is_chat for row in self.examples["train"])

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that the tokenizer decides."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def notice(self, count: int, noun: str, split: str, what: str) -> None:
        """Note how many rows of a split were changed, for `Task.warnings`."""
        if count:
            self.notices.append(f"{plural(count, noun)} of {len(self.examples[split]):,} ({split}) {what}")


class TokenSequence(NamedTuple):
    """ids of a chat, and which of them are trained, both (T,)."""

    ids: np.ndarray
    trained: np.ndarray


class ChatTask(ExampleTask):
    """A task on chats, prompts with answers, or preferences; see `ExampleTask`. A subclass states in `form` what a row
    must have."""

    Settings: ClassVar[type[TaskSettings]] = ChatSettings
    asks: ClassVar[str] = "next_token"
    tuned: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = ("template",)
    form: ClassVar[str] = "one answer"
    n_row_answers: ClassVar[int | None] = 1
    source: ChatSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> ChatSource:
        data, tokenizer = opening.data, opening.tokenizer
        asked: Any = cls.Settings.make(**opening.settings)
        rows = load_chats(data.source)
        if data.max_examples:
            rows = {**rows, "train": spread(rows["train"], data.max_examples)}
        cls.check_rows(rows)
        folder = opening.folder or (None if tokenizer.path is None else Path(tokenizer.path))
        writer = tokenizer_of(rows["train"], asked.template, choices, tokenizer, folder)
        source = ChatSource(data.source, rows, writer)
        if not source.is_chat and writer.end_of_text is None:
            source.notices.append(
                "the tokenizer has no token that ends a text, so the model never learns to end an answer; start from "
                "another model, or use a new tokenizer (tokenizer.kind=bpe)"
            )
        return source

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        return {}

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        return (f"{prompt}\n{answers}" for prompt, answers in texts_of(load_chats(data.source, quiet=True)["train"]))

    @classmethod
    def check_rows(cls, rows: ChatRows) -> None:
        """Raise `DataError` for a row of another form than this task learns from."""
        for row in (row for split in rows.values() for row in split):
            if cls.n_row_answers is not None and len(row.answers) != cls.n_row_answers:
                found = ("a prompt alone", "one answer", "chosen and rejected")[len(row.answers)]
                raise DataError(f"{row.place}: a row has {found}, and this task needs {cls.form}")

    @property
    def command(self) -> str:  # type: ignore[override]
        """Plain texts are continued as they are; a chat goes through the template."""
        return "chat" if self.source is None or self.source.is_chat else "generate"

    @property
    def longest(self) -> int:
        lengths = [max(row, default=0) for row in self._first_lengths()]
        return int(np.quantile(lengths, 0.95)) if lengths else 0

    @property
    def usual(self) -> float:
        sums = [sum(row) for row in self._first_lengths()]
        return sum(sums) / max(1, len(sums))

    def _first_lengths(self) -> list[list[int]]:
        """The lengths of the sequences of each of the first 200 rows."""
        return [[len(s.ids) for s in self.row_sequences(row)] for row in self.source.examples["train"][:200]]

    def row_sequences(self, row: ChatRow) -> list[TokenSequence]:
        """All answers of a row after its prompt."""
        return [sequence for answer in row.answers for sequence in chat_sequences(self.tokenizer, row, answer)]


def tokenizer_of(
    rows: Sequence[ChatRow],
    template: str | None,
    choices: list[Choice],
    settings: TokenizerSettings | None = None,
    folder: Path | None = None,
) -> Tokenizer:
    """The tokenizer for rows, with its chat template where they are messages: that of a folder, or one that is learned
    from them.

    Raises:
        UsageError, TokenizerError: as `use_template`; or there is no such tokenizer.
    """
    settings = settings or TokenizerSettings()
    if folder is not None:
        found = load_tokenizer(folder)
    else:
        kind = settings.kind or "bpe"
        takes_specials = kind not in TOKENIZERS or getattr(TOKENIZERS[kind], "specials", ()) is not None
        options: dict[str, Any] = {"specials": CHAT_SPECIALS} if takes_specials else {}
        texts = [Example(*texts) for texts in texts_of(rows)]
        found = tokenizer_from(texts, kind, side="both", vocab_size=settings.vocab_size, **options)
    if any(row.is_chat for row in rows):
        use_template(found, template, choices)
        if (first := next((row for row in rows if row.uses_tools), None)) is not None:
            try:
                ToolForm.of(found)
            except UsageError as error:  # its calls would be trained as empty turns
                raise UsageError(f"{first.place} has tools: {error}") from None
    elif template is not None:
        raise UsageError(f"task.template={template}: the rows are plain texts, which go through none; write messages")
    return found


def use_template(tokenizer: Tokenizer, asked: str | None, choices: list[Choice]) -> None:
    """Give a tokenizer its chat template: the one that was asked for, its own, or one that its tokens allow.

    Raises:
        UsageError: there is no such template, the tokenizer lacks a token of it, or it never shows an answer.
    """
    name = asked
    if name is None and tokenizer.chat_template is None:
        name = "chatml" if all(token in tokenizer.special_tokens for token in CHAT_TOKENS) else "plain"
        choices.append(Choice("task.template", name, "the tokenizer has no chat template"))
    if name in TEMPLATES:
        needed = CHAT_TOKENS if name == "chatml" else ()
        if missing := [token for token in needed if token not in tokenizer.special_tokens]:
            raise UsageError(f"task.template={name} needs the token {missing[0]}; use task.template=plain")
        if name == "plain" and tokenizer.end_of_text is None:
            raise UsageError(
                "task.template=plain ends answers with the token that ends a text, and this tokenizer has none; start "
                "from another model, or use a new tokenizer (tokenizer.kind=bpe)"
            )
        tokenizer.chat_template = TEMPLATES[name]
    elif name is not None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UsageError(f"task.template={name!r} is no template and no file; {did_you_mean(name, TEMPLATES)}")
        tokenizer.chat_template = read_text(path, UsageError, most=1 << 20)
    if not (tokenizer.chat.takes_text or tokenizer.chat.takes_parts):
        raise UsageError(
            f"the chat template {name or 'of the tokenizer'} never shows what the assistant answers, so there is "
            "nothing to train; use task.template=chatml or plain, or mend it"
        )


def prompt_ids(tokenizer: Tokenizer, row: ChatRow) -> list[int]:
    """The ids that the model reads before it answers: what serving gives it.

    Raises:
        DataError: the prompt is empty.
    """
    if isinstance(row.prompt, str):
        ids = [*_first(tokenizer), *tokenizer.encode(row.prompt)]
    else:
        ids = tokenizer.chat.encode(row.prompt, tools=row.tools)
    if not ids:
        raise DataError(f"{row.place}: the prompt is empty in this vocabulary; leave the row out")
    _check_start(tokenizer, ids, row.place)
    return ids


def _check_start(tokenizer: Tokenizer, ids: Sequence[int], place: str) -> None:
    """Raise for a sequence that starts twice (a double BOS)."""
    if ids[0] in ids[1:2] and ids[0] in tokenizer.special_tokens.values():
        raise DataError(
            f"{place}: begins with {tokenizer.token_text(ids[0])} twice; take one out of the chat template, or give "
            "another one with task.template=FILE"
        )


def chat_sequences(tokenizer: Tokenizer, row: ChatRow, answer: Turns) -> list[TokenSequence]:
    """The ids of a row with one of its answers, and which of them are trained: every turn of the assistant in the
    answer up to the token that ends it. One sequence, unless the template rewrites earlier turns.

    Raises:
        DataError: an answer does not follow its prompt in the template, or is never ended.
    """
    if isinstance(answer, str):
        return [_continued(tokenizer, row, answer)]
    assert not isinstance(row.prompt, str)
    messages = [*row.prompt, *answer]
    places = [i for i in range(len(row.prompt), len(messages)) if messages[i].get("role") == "assistant"]
    sequences: list[tuple[list[int], list[bool]]] = []
    for place in places:
        before = tokenizer.chat.encode(messages[:place], tools=row.tools) if place else []
        after = tokenizer.chat.encode(messages[: place + 1], add_generation_prompt=False, tools=row.tools)
        if after[: len(before)] != before:
            raise DataError(
                f"{row.place}: the chat template does not put the answer behind what the model reads when it is "
                "served; give another one with task.template=FILE"
            )
        _check_start(tokenizer, after, row.place)
        end = _end_of_turn(after, len(before), tokenizer, row.place)
        says_something = messages[place].get("tool_calls") or str(messages[place].get("content") or "").strip()
        if says_something and not tokenizer.decode(tokenizer.text_ids(after[len(before) : end])).strip():
            calls = ": it writes no tool calls" if messages[place].get("tool_calls") else ""
            raise DataError(
                f"{row.place}: the chat template shows nothing of a turn of the assistant{calls}; leave the row out, "
                "or use task.template=chatml, or a file"
            )
        trained = [len(before) <= i < end for i in range(len(after))]
        if sequences and before[: len(sequences[-1][0])] == sequences[-1][0]:
            known = sequences.pop()[1]
            trained[: len(known)] = known
        sequences.append((after, trained))
    return [_trimmed(ids, trained) for ids, trained in sequences]


def _continued(tokenizer: Tokenizer, row: ChatRow, answer: str) -> TokenSequence:
    """A text and its continuation, up to the end of the text."""
    assert isinstance(row.prompt, str)
    before = [*_first(tokenizer), *(tokenizer.encode(row.prompt) if row.prompt else [])]
    ids = tokenizer.encode(answer)
    if tokenizer.end_of_text is not None:
        ids.append(tokenizer.end_of_text)
    return _trimmed([*before, *ids], [False] * len(before) + [True] * len(ids))


def _first(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.starts_with is None else [tokenizer.starts_with]


def _end_of_turn(ids: list[int], start: int, tokenizer: Tokenizer, place: str) -> int:
    """The place behind the last token that ends a turn.

    Raises:
        DataError: there is none, so a model would never learn to stop.
    """
    ends = tokenizer.chat.turn_ends
    found = next((i for i in range(len(ids) - 1, start - 1, -1) if ids[i] in ends), None)
    if found is None:
        raise DataError(
            f"{place}: no token ends the assistant's turn in the chat template, so the model would never learn to "
            "stop; end it with the tokenizer's eos_token in task.template=FILE"
        )
    return found + 1


def _trimmed(ids: list[int], trained: list[bool]) -> TokenSequence:
    """Without what follows the last trained token, which changes nothing."""
    end = len(trained) - trained[::-1].index(True)
    return TokenSequence(np.asarray(ids[:end], dtype=np.int64), np.asarray(trained[:end]))


def inputs_and_targets(sequence: TokenSequence, T: int) -> tuple[np.ndarray, np.ndarray] | None:
    """At most T predictions of a sequence: inputs (T,) and targets (T,), -100 where nothing is trained; None where the
    cut leaves nothing to train."""
    ids, trained = sequence.ids[: T + 1], sequence.trained[: T + 1]
    targets = np.where(trained[1:], ids[1:], IGNORED)
    return (ids[:-1], targets) if (targets != IGNORED).any() else None


def collate_tokens(examples: Sequence[Any]) -> Batch:
    """(inputs, targets) -> (inputs_BT, targets_BT), padded on the right; (inputs, documents, targets) likewise, where
    the padding is a document of its own."""
    fills = (0, IGNORED) if len(examples[0]) == 2 else (0, PADDING, IGNORED)
    return tuple(padded([example[i] for example in examples], fill)[0] for i, fill in enumerate(fills))
