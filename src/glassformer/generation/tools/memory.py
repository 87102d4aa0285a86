"""A long-term memory of chats, on disk: every turn with its answer, found by its words (BM25).

One SQLite file with a full-text index (FTS5, part of Python's own SQLite): searching, deleting and atomic writing come
with it. What is deleted is overwritten.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from glassformer.errors import UsageError
from glassformer.scratchpad import answer_of

FILE = "memory.sqlite"
MAX_CHARACTERS = 20_000  # of a question and of an answer
FOUND = 3  # memories that a search of the model gives


@dataclass(frozen=True)
class Memory:
    """A turn of an earlier chat. when: UTC, as 2026-11-30 01:02."""

    number: int
    when: str
    question: str
    answer: str

    def __str__(self) -> str:
        return f"[{self.number}, {self.when}] user: {self.question} / assistant: {self.answer}"


class ChatMemory:
    """The memories in a folder, which is made if it is not there.

    Raises:
        UsageError: the folder cannot be written, or holds something else under this name.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder).expanduser() / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path.parent}: no folder for memories ({error.strerror}); name another") from None
        with self._database() as database:
            options = "tokenize='porter unicode61'"
            database.execute(
                f"CREATE VIRTUAL TABLE IF NOT EXISTS memories USING fts5(question, answer, time UNINDEXED, {options})"
            )

    def add(self, question: str, answer: str) -> None:
        """Remember a turn; scratchpads are left out."""
        row = (question[:MAX_CHARACTERS], answer_of(answer)[:MAX_CHARACTERS], time.time())
        with self._database() as database:
            database.execute("INSERT INTO memories (question, answer, time) VALUES (?, ?, ?)", row)

    def all(self) -> list[Memory]:
        """Every memory, oldest first."""
        return self._rows("ORDER BY rowid")

    def search(self, query: str, n: int = FOUND) -> list[Memory]:
        """The n memories that fit best; none if no word of the query appears (BM25: Robertson et al. 1994)."""
        words = re.findall(r"\w+", query)[:64]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        return self._rows("WHERE memories MATCH ? ORDER BY bm25(memories), rowid LIMIT ?", match, n)

    def delete(self, number: int) -> None:
        """Forget one memory.

        Raises:
            UsageError: there is no such number.
        """
        with self._database() as database:
            if not database.execute("DELETE FROM memories WHERE rowid = ?", (number,)).rowcount:
                raise UsageError(f"there is no memory {number}; /memory lists them")
        self._overwrite()

    def clear(self) -> int:
        """Forget everything. Returns how many memories there were."""
        with self._database() as database:
            n = database.execute("DELETE FROM memories").rowcount
        self._overwrite()
        return n

    def recall(self, query: Annotated[str, Field(description="words to look for")]) -> str:
        """Search what was said in earlier chats with this user."""
        return "\n".join(map(str, self.search(query))) or "nothing was found"

    def _rows(self, rest: str, *values: Any) -> list[Memory]:
        with self._database() as database:
            rows = database.execute(f"SELECT rowid, time, question, answer FROM memories {rest}", values).fetchall()
        return [
            Memory(number, time.strftime("%Y-%m-%d %H:%M", time.gmtime(when)), question, answer)
            for number, when, question, answer in rows
        ]

    def _overwrite(self) -> None:
        """Remove deleted words from the index and deleted rows from the file."""
        with self._database() as database:
            database.execute("INSERT INTO memories(memories) VALUES ('optimize')")
        with self._database() as database:
            database.execute("VACUUM")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept together, or not at all."""
        try:
            database = sqlite3.connect(self.path, timeout=10)
            try:
                database.execute("PRAGMA secure_delete = ON")
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise UsageError(f"{self.path}: the memories cannot be used ({error}); name another folder") from None
