"""Rankings by people: a model answers a prompt several times, a person picks the best, and pairs come of it.

The file of pairs is the whole state: it is written anew, atomically, after each choice, so that a stop at any time
loses nothing, and the next sitting continues behind the last prompt in it. How people's rankings become a reward:
Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, section 3.2.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glassformer.data.chats import ChatRow
from glassformer.data.json_lines import json_rows
from glassformer.errors import DataError, UsageError
from glassformer.files import clear_litter, json_text, write_text
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.chats import prompt_ids
from glassformer.tasks.rollouts import roll_out

TRIES = 3  # roll-outs until the answers differ


class Rankings:
    """Prompts to be ranked, and the file of pairs.

    Args:
        rows: what is asked; of a chat with answers, everything before the last answer. out: the file, `.jsonl`.

    Attributes:
        place: of the prompt that comes next.

    Raises:
        DataError: `out` holds something else than pairs. UsageError: it is no `.jsonl`.
    """

    def __init__(self, rows: Sequence[ChatRow], out: Path):
        if out.suffix.lower() != ".jsonl":
            raise UsageError(f"{out}: pairs are lines of JSON; give a name that ends with .jsonl")
        clear_litter(out.parent, out.name)  # of a process that was killed while it wrote
        self.out, self.rows = out, [_asked(row) for row in rows]
        self.pairs: list[dict[str, Any]] = []
        for where, _, pair in json_rows(out) if out.exists() else ():
            if not {"prompt", "chosen", "rejected"} <= pair.keys():
                raise DataError(f"{where}: no pair of answers to a prompt; write rankings to another file")
            self.pairs.append(pair)
        numbers = {_key(row.prompt): i for i, row in reversed([*enumerate(self.rows)])}
        groups = itertools.groupby(self.pairs, key=lambda pair: _key(pair["prompt"]))
        self.history = [(numbers[key], len([*pairs])) for key, pairs in groups if key in numbers]
        self.place = 1 + max((place for place, _ in self.history), default=-1)

    @property
    def row(self) -> ChatRow | None:
        """The prompt that comes next; None: all are done."""
        return self.rows[self.place] if self.place < len(self.rows) else None

    def pick(self, answers: Sequence[str], best: int | None) -> None:
        """Write that one answer is better than each of the others, and go on; None skips the prompt."""
        row, others = self.rows[self.place], [] if best is None else [*answers[:best], *answers[best + 1 :]]
        for other in others:
            sides = {"chosen": _turn(row, answers[best or 0]), "rejected": _turn(row, other)}
            self.pairs.append({"prompt": row.prompt, **sides, **({"tools": row.tools} if row.tools else {})})
        self.history.append((self.place, len(others)))
        self.place += 1
        if others:
            self._write()

    def undo(self) -> bool:
        """Go back to the last prompt and take its pairs out of the file. Returns whether there was one."""
        if not self.history:
            return False
        self.place, count = self.history.pop()
        if count:
            del self.pairs[len(self.pairs) - count :]
            self._write()
        return True

    def _write(self) -> None:
        write_text(self.out, "".join(json_text(pair) + "\n" for pair in self.pairs))


def different_answers(
    model: Any,
    tokenizer: Tokenizer,
    row: ChatRow,
    number: int,
    *,
    answers: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[str]:
    """Up to so many different answers to a prompt, the same for the same seed and number; fewer where the model keeps
    to one."""
    found: dict[str, None] = {}
    for attempt in range(TRIES):
        rollouts = roll_out(
            model,
            tokenizer,
            [(row, prompt_ids(tokenizer, row))],
            samples=answers,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + attempt,
            numbers=[number],
        )
        found |= dict.fromkeys(r.text for r in rollouts if r.text.strip())
        if len(found) >= answers:
            break
    return [*found][:answers]


def _asked(row: ChatRow) -> ChatRow:
    """A row without its answers."""
    prompt = row.prompt
    if not prompt and row.answers and not isinstance(row.answers[0], str):
        turns = row.answers[0]
        prompt = turns[: max(i for i, turn in enumerate(turns) if turn.get("role") == "assistant")]
    if not prompt:
        raise DataError(f"{row.place}: there is no prompt to answer; leave the row out")
    return ChatRow(prompt, (), None, row.tools, {}, row.place)


def _turn(row: ChatRow, text: str) -> Any:
    return [{"role": "assistant", "content": text}] if row.is_chat else text


def _key(prompt: Any) -> str:
    return json.dumps(prompt, sort_keys=True)
