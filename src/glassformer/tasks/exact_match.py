"""How many answers of a model are exactly right, group by group.

A row's own column has the right answer; scratchpads of the model do not count. Answers are greedy: the most likely
token at each place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from glassformer.data.chats import ChatRow
from glassformer.data.example_splits import spread
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.evaluation.estimate import Share, wilson_interval
from glassformer.figures.primitives import Figure
from glassformer.processors.tokenizers import Tokenizer
from glassformer.scratchpad import answer_of
from glassformer.tasks.chats import ChatSettings, ChatTask, prompt_ids
from glassformer.tasks.held_out_answers import answers_to_look_at
from glassformer.tasks.reward_functions import REWARDS
from glassformer.tasks.rollouts import roll_out
from glassformer.tasks.share_figures import share_curves

if TYPE_CHECKING:
    from typing_extensions import Self

ALL = "all"
COUNTED = 120  # answers of a sample that are counted by group


class CountedSettings(ChatSettings):
    """[task] of tasks whose answers are counted."""

    answer: str | None = None
    """column of the rows with the right answer: `glassformer evaluate` then counts the answers that equal it"""
    compare: Literal["exact", "contains", "last_number"] = "exact"
    """how: exact, the whole answer but for scratchpads; contains; last_number, the last number in it"""
    group_by: str | None = None
    """column by whose values they are counted"""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key, value, left_out in (("group_by", self.group_by, None), ("compare", self.compare, "exact")):
            if value != left_out and self.answer is None:
                raise UsageError(f"task.{key}={value} counts right answers; name their column in task.answer")
        return self


@dataclass(frozen=True)
class ExactMatches:
    """(right, n) by group; the group `ALL` comes last."""

    groups: dict[str, tuple[int, int]]
    group_by: str = ""
    lacking: ClassVar[str] = "its answers are not counted by group; give a run with task.group_by"

    @property
    def shares(self) -> dict[str, Share]:
        """Of each group."""
        return {name: Share(right / n, n, *wilson_interval(right, n)) for name, (right, n) in self.groups.items()}

    def to_dict(self) -> dict[str, Any]:
        """Share, n and the ends of the 95 % interval (Wilson) of each group."""
        found = {name: share._asdict() for name, share in self.shares.items()}
        return {"exact_match": {name: {"share": s.pop("value"), **s} for name, s in found.items()}}

    def lines(self) -> list[str]:
        """For `glassformer evaluate`."""
        rows = self.to_dict()["exact_match"].items()
        return [
            f"exact match, {name}: {100 * r['share']:.1f} % ({100 * r['low']:.1f} to {100 * r['high']:.1f}, 95 %, "
            f"{r['n']:,} cases)"
            for name, r in rows
        ]

    def figures(self) -> list[Figure]:
        """The share of each group; none where there are no groups."""
        return self.together({"": self})

    @staticmethod
    def together(models: Mapping[str, ExactMatches]) -> list[Figure]:
        """Shares by group, a line for each model by its name; none where no model has groups."""
        lines = {
            name: {g.removeprefix(f"{found.group_by} "): s for g, s in found.shares.items() if g != ALL}
            for name, found in models.items()
        }
        axis = next(iter(models.values())).group_by
        return [share_curves(f"Exact matches by {axis}", lines, axis)] if any(lines.values()) else []


class CountedTask(ChatTask):
    """A task on answers that can be right or wrong; see `ChatTask`."""

    def extra_scores(self, model: Any, split: str = "validation") -> ExactMatches | None:
        """Exact matches of greedy answers, where `task.answer` names the column of the right ones."""
        if self.settings.answer is None:
            return None
        return self.matches(model, self.source.examples[split])

    def matches(self, model: Any, rows: Sequence[ChatRow]) -> ExactMatches:
        """Exact matches of greedy answers to rows."""
        s = self.settings
        return exact_matches(model, self.tokenizer, rows, answer=s.answer, group_by=s.group_by, compare=s.compare)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Answers to held-out prompts; of rows that are counted by a column, also the right ones by its values."""
        found = answers_to_look_at(self, model)
        if self.settings.group_by is None:
            return found
        return [*found, *self.matches(model, spread(self.source.examples["validation"], COUNTED)).figures()]


def exact_matches(
    model: Any,
    tokenizer: Tokenizer,
    rows: Sequence[ChatRow],
    *,
    answer: str,
    group_by: str | None = None,
    compare: str = "exact",
) -> ExactMatches:
    """Let a model answer the prompts of rows, and compare with the column `answer`. compare: of `REWARDS`.

    Raises:
        DataError: a row lacks one of the columns.
    """
    for row in rows:
        for name in filter(None, (answer, group_by)):
            if name not in row.columns:
                raise DataError(f"{row.place}: there is no column {name!r}; {did_you_mean(name, row.columns)}")
    room, prompts = model.config.block_size, []
    for row in rows:
        prompts.append((row, prompt_ids(tokenizer, row)))
    fitting = [(row, ids) for row, ids in prompts if len(ids) < room]
    rollouts = roll_out(model, tokenizer, fitting, samples=1, max_new_tokens=room, temperature=0.0)
    given = {id(r.row): answer_of(r.text) for r in rollouts}
    counts: dict[str, list[int]] = {}
    for row in rows:
        right = int(REWARDS[compare]([given.get(id(row), "")], [row.columns[answer]])[0])
        names = [] if group_by is None else [f"{group_by} {row.columns[group_by]}"]
        for name in (*names, ALL):
            tally = counts.setdefault(name, [0, 0])
            tally[0] += right
            tally[1] += 1
    counts[ALL] = counts.pop(ALL)
    return ExactMatches({name: (right, n) for name, (right, n) in counts.items()}, group_by or "")
