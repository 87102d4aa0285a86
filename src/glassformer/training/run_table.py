"""Lists and comparisons of runs: a row for each, the settings that differ, and whether the losses really differ."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glassformer.errors import GlassformerError, RunError, UsageError, did_you_mean
from glassformer.evaluation import Comparison, LossEstimate, WindowLosses, compare_losses
from glassformer.tasks import Score
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory

SORTS = ("loss", "name", "time")
SAME_EVERYWHERE = ("characters", "bytes", "gpt2")  # tokenizers that are the same for every text


@dataclass(frozen=True)
class Row:
    """A run in a list; unknown numbers are None."""

    path: str
    name: str
    recipe: str
    parameters: int | None
    steps: int
    steps_asked: int | None
    tokens: int | None
    seconds: float | None
    train: float | None  # measured as `value` is, of the same weights, on a part of the training split
    value: float | None  # the score of the best weights
    interval: float | None  # half the 95 % interval of `value`
    val_bits_per_byte: float | None
    best_step: int | None
    state: str  # finished, running, stopped or diverged
    resume: str | None  # the command that continues it, if it can be continued
    score: Score

    @classmethod
    def of(cls, h: RunHistory) -> Row:
        best, path = h.best, h.run.path
        resumable = h.state in ("stopped", "diverged") and any(h.run.checkpoints.glob("step-*"))
        return cls(
            path=str(path),
            name=h.name,
            recipe=str(h.setting("name") or ""),
            parameters=h.parameters,
            steps=h.steps_done,
            steps_asked=h.steps_asked,
            tokens=h.last("tokens"),
            seconds=h.last("seconds"),
            train=best[h.score.train_name],
            value=best[h.score.name],
            interval=best["interval"],
            val_bits_per_byte=best.get("val_bits_per_byte"),
            best_step=best["step"],
            state=h.state,
            resume=f"glassformer resume {path}" if resumable else None,
            score=h.score,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, where scores have their names: `train_loss_eval`, `val_loss`."""
        names = {"train": self.score.train_name, "value": self.score.name}
        return {names.get(key, key): value for key, value in asdict(self).items() if key != "score"}


def find_runs(folder: str | os.PathLike[str]) -> list[RunFolder]:
    """The runs in a folder, two levels deep, or the folder itself if it is a run; sorted by path.

    Raises:
        RunError: there is none.
    """
    folder = Path(folder)
    found = sorted({file.parent for depth in ("", "*/", "*/*/") for file in folder.glob(f"{depth}recipe.toml")})
    if not found:
        what = "holds no run" if folder.is_dir() else "is no folder"
        raise RunError(f"{folder} {what}; start one with: glassformer train, or name the folder that holds your runs")
    return [RunFolder(path) for path in found]


def list_runs(folder: str | os.PathLike[str] = "runs", *, sort: str = "name") -> list[Row]:
    """A row for each run in a folder, sorted by `name`, `loss` (the best score first) or `time` (shortest first);
    unknown numbers come last.

    Raises:
        RunError: there is no run. UsageError: an unknown order.
    """
    if sort not in SORTS:
        raise UsageError(f"runs cannot be sorted by {sort!r}; {did_you_mean(sort, SORTS)}")
    rows = [Row.of(RunHistory(run, every_step=False)) for run in find_runs(folder)]
    if sort == "name":
        return sorted(rows, key=lambda row: (row.name, row.path))
    value: Callable[[Row], float | None] = _rank if sort == "loss" else lambda row: row.seconds
    return sorted(rows, key=lambda row: (value(row) is None, value(row) or 0.0, row.name))


def _rank(row: Row) -> float | None:
    """The score, or its negative where higher is better: the lowest is the best."""
    return None if row.value is None else row.score.gain(0.0, row.value)


@dataclass(frozen=True)
class RunComparison:
    """Several runs, compared with the best of them."""

    rows: list[Row]  # in the order given
    best: int | None  # index of the best score; None when no run has one yet, or their scores are different metrics
    differences: list[Comparison | None]  # of each score from the best; None for the best and without a score
    settings: dict[str, list[Any]]  # the settings that differ, a value for each run
    same_text: bool  # whether all scores are of the same text

    def to_dict(self) -> dict[str, Any]:
        def as_dict(c: Comparison | None) -> dict[str, Any] | None:
            known = {} if c is None else {"interval": c.interval if math.isfinite(c.interval) else None}
            return None if c is None else {**asdict(c), **known, "significant": c.significant}

        runs = [{**r.to_dict(), "difference": as_dict(c)} for r, c in zip(self.rows, self.differences, strict=True)]
        best = None if self.best is None else self.rows[self.best].path
        return {"runs": runs, "best": best, "settings": self.settings, "same_text": self.same_text}


def compare_runs(paths: Sequence[str | os.PathLike[str]]) -> RunComparison:
    """Compare runs with the best of them.

    The intervals of the differences hold all together in 95 of 100 cases, whichever run turned out to be the best
    (`compare_losses` with k (k - 1) / 2 comparisons). Runs with different tokens are compared by bits per byte.

    Raises:
        RunError: a path holds no run.
    """
    histories = [RunHistory(RunFolder.open(path), every_step=False) for path in paths]
    rows = [Row.of(h) for h in histories]
    scores = {row.score for row in rows}
    same_tokens = scores != {Score()} or len({_tokens(h) for h in histories}) == 1
    ranks = [_rank(row) if same_tokens else row.val_bits_per_byte for row in rows]
    known = [i for i, rank in enumerate(ranks) if rank is not None and len(scores) == 1]
    best = min(known, key=lambda i: ranks[i] or 0.0, default=None)
    differences: list[Comparison | None] = [None] * len(rows)
    losses = [_losses(h, row) for h, row in zip(histories, rows, strict=True)]
    for i in known:
        if best is not None and i != best:
            pairs = len(known) * (len(known) - 1) // 2
            found = compare_losses(losses[i], losses[best], same_tokens=same_tokens, comparisons=pairs)
            differences[i] = found if rows[i].score == Score() else replace(found, unit=rows[i].score.metric)
    same_text = _same_text(histories, [windows for _, windows in losses], same_tokens)
    return RunComparison(rows, best, differences, _differing(histories), same_text)


def _same_text(histories: list[RunHistory], kept: list[WindowLosses | None], same_tokens: bool) -> bool:
    """Whether all losses are of the same text: by the targets of their windows if known, else by the sources' names."""
    if same_tokens and None not in kept:
        return len({windows.targets for windows in kept if windows is not None}) == 1
    return len({(h.setting("data", "source"), h.setting("data", "validation_fraction")) for h in histories}) == 1


def _tokens(h: RunHistory) -> Any:
    """Equal for runs with the same tokens."""
    kind = h.setting("tokenizer", "kind")
    return kind if kind in SAME_EVERYWHERE else (kind, h.setting("derived", "store"))


def _losses(h: RunHistory, row: Row) -> tuple[LossEstimate, WindowLosses | None]:
    """The score of a row as a loss, and its windows where they are kept and have that loss."""
    loss = row.value or 0.0
    interval = math.inf if row.interval is None else row.interval
    estimate = LossEstimate(loss, int(h.summary.get("n") or 0), interval, row.val_bits_per_byte)
    try:
        windows = WindowLosses.load(h.run.windows)
    except GlassformerError:
        return estimate, None
    return estimate, windows if math.isclose(windows.estimate().loss, loss, rel_tol=1e-6) else None


def _differing(histories: list[RunHistory]) -> dict[str, list[Any]]:
    flat = [dict(_settings(h.recipe)) for h in histories]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    table = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def _settings(recipe: dict[str, Any]) -> Any:
    """`section.key` and value of every setting of a run; the model's shape is the derived one, which is complete."""
    model = recipe.get("derived", {}).get("model", {})
    sections = {**recipe, "model": {**(recipe.get("model") or {}), **model}}
    for section, table in sections.items():
        if isinstance(table, dict) and section not in ("asked", "derived"):
            yield from ((f"{section}.{key}", value) for key, value in table.items() if not isinstance(value, dict))
