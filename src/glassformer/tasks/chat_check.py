"""What is wrong with rows of chats, found before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from glassformer.data.chats import ChatRow, Turns
from glassformer.errors import DataError, UsageError
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.chats import TokenSequence, chat_sequences, prompt_ids

PLACES = 3  # of a finding, that are named


@dataclass
class Finding:
    """Something wrong. error: training refuses it; else a warning. rule: what, and what to do. places: the rows."""

    error: bool
    rule: str
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f" and {len(self.places) - PLACES:,} more" if len(self.places) > PLACES else ""
        where = f" ({', '.join(self.places[:PLACES])}{more})" if any(self.places) else ""
        return f"{'error' if self.error else 'warning'}: {self.rule}{where}"


def row_sequences(tokenizer: Tokenizer, row: ChatRow) -> list[TokenSequence]:
    """The sequences of all answers of a row; of a prompt alone its ids, none of them trained."""
    if row.answers:
        return [sequence for answer in row.answers for sequence in chat_sequences(tokenizer, row, answer)]
    ids = np.asarray(prompt_ids(tokenizer, row), dtype=np.int64)
    return [TokenSequence(ids, np.zeros(len(ids), dtype=bool))]


def check_chats(
    rows: Sequence[ChatRow], tokenizer: Tokenizer, refused: Iterable[str] = (), T: int | None = None
) -> list[Finding]:
    """Everything that is wrong with rows, errors first.

    Args:
        refused: the lines of rows that could not be read. T: tokens of a training sequence; None: any number.
    """
    found: dict[str, Finding] = {}
    for line in refused:
        found[line] = Finding(True, line)
    seen: dict[str, ChatRow] = {}
    for row in rows:
        for error, rule in (*_row_mistakes(row, tokenizer, T), *_repeated(row, seen)):
            found.setdefault(rule, Finding(error, rule)).places.append(row.place)
    for rule in _file_mistakes(rows, tokenizer):
        found[rule] = Finding(False, rule)
    return sorted(found.values(), key=lambda finding: not finding.error)


def _row_mistakes(row: ChatRow, tokenizer: Tokenizer, T: int | None) -> Iterator[tuple[bool, str]]:
    """(is an error, what) of each mistake of a row."""
    try:
        sequences = row_sequences(tokenizer, row)
    except (DataError, UsageError) as error:
        yield True, str(error).removeprefix(f"{row.place}: ")
        return
    for ids, trained in sequences:
        if T is not None and row.answers and len(ids) > T + 1:
            left = trained[: T + 1].any()
            yield (
                not left,
                f"longer than {T:,} tokens: " + ("its end is cut off" if left else "no answer begins by then"),
            )
        if T is not None and not row.answers and len(ids) >= T:
            yield True, f"a prompt of {T:,} tokens or more leaves no room for an answer"
    texts = "\n".join(_texts(row.prompt)) + "\n" + "\n".join(text for answer in row.answers for text in _texts(answer))
    for token in tokenizer.special_tokens:
        if token in texts:
            yield (
                False,
                f"the text holds {token!r}, which is read as plain text: only the template writes special tokens",
            )


def _repeated(row: ChatRow, seen: dict[str, ChatRow]) -> Iterator[tuple[bool, str]]:
    key = row.to_json()
    if key in seen:
        yield False, "the same row stands earlier in the file"
    seen.setdefault(key, row)


def _file_mistakes(rows: Sequence[ChatRow], tokenizer: Tokenizer) -> Iterator[str]:
    """What is wrong with all rows together."""
    texts = [row for row in rows if not row.is_chat]
    if texts and tokenizer.chat_template is not None:
        yield (
            f"{len(texts):,} of {len(rows):,} rows are plain texts, which are continued as they are, and chat uses the "
            "template: write messages, or use the model with generate"
        )
    if texts and tokenizer.end_of_text is None:
        yield "the tokenizer has no token that ends a text: the model never learns to end an answer"
    labels = {row.label for row in rows if row.label is not None}
    if len(labels) == 1:
        yield f"every label is {str(labels.pop()).lower()}: there is nothing to tell apart"


def _texts(turns: Turns) -> Iterator[str]:
    if isinstance(turns, str):
        yield turns
        return
    for turn in turns:
        content = turn.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            yield str(part.get("text", ""))
