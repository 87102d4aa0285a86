"""How many answers of a model are exactly right, group by group.

A row's own column has the right answer; scratchpads of the model do not count. Answers are greedy: the most likely
token at each place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glassformer.data.chats import ChatRow
from glassformer.errors import DataError, did_you_mean
from glassformer.evaluation.estimate import Share, wilson_interval
from glassformer.figures.primitives import Figure
from glassformer.processors.tokenizers import Tokenizer
from glassformer.scratchpad import answer_of
from glassformer.tasks.chats import prompt_ids
from glassformer.tasks.rollouts import roll_out
from glassformer.tasks.share_figures import share_curves

ALL = "all"


@dataclass(frozen=True)
class ExactMatches:
    """(right, n) by group; the group `ALL` comes last."""

    groups: dict[str, tuple[int, int]]
    group_by: str = ""

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
        return exact_match_figures({"": self})


def exact_match_figures(models: Mapping[str, ExactMatches]) -> list[Figure]:
    """Shares by group, a line for each model by its name; none where no model has groups."""
    lines = {
        name: {g.removeprefix(f"{found.group_by} "): s for g, s in found.shares.items() if g != ALL}
        for name, found in models.items()
    }
    axis = next(iter(models.values())).group_by
    return [share_curves(f"Exact matches by {axis}", lines, axis)] if any(lines.values()) else []


def exact_matches(
    model: Any, tokenizer: Tokenizer, rows: Sequence[ChatRow], *, answer: str, group_by: str | None = None
) -> ExactMatches:
    """Let a model answer the prompts of rows, and compare with the column `answer`.

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
        right = given.get(id(row)) == str(row.columns[answer]).strip()
        names = [] if group_by is None else [f"{group_by} {row.columns[group_by]}"]
        for name in (*names, ALL):
            tally = counts.setdefault(name, [0, 0])
            tally[0] += right
            tally[1] += 1
    counts[ALL] = counts.pop(ALL)
    return ExactMatches({name: (right, n) for name, (right, n) in counts.items()}, group_by or "")
