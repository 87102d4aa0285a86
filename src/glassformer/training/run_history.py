"""A run read from its folder, finished or not; lines that a crash left half-written are skipped and counted.

Reports and lists of runs are made from this alone, so they can be made of any run, at any time, on any machine.
"""

from __future__ import annotations

import json
import math
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.tasks import Score
from glassformer.training.formats import finite_number
from glassformer.training.migrations import SECTION_NAMES
from glassformer.training.run_folder import RunFolder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STEP_NUMBERS = ("loss", "lr", "grad_norm", "tokens_per_second", "mfu")  # of metrics.jsonl, at every step
NO_CURVES = ("tokens", "seconds")  # numbers of a step that only grow
STILL_WRITING = 60.0  # seconds since the last line of metrics.jsonl, within which a run without a summary is running


class RunHistory:
    """One run, read from its files. What is missing is empty or None; nothing raises.

    Args:
        every_step: False reads of metrics.jsonl only the evaluations and the last line, for a list of many long runs.

    Attributes:
        name: the folder's. recipe, plan, summary: the files' contents, {} without one.
        score: what the best weights are; unless recipe.toml names another one, the lowest validation loss.
        curves: `step`, the `STEP_NUMBERS` and every other number of the steps in metrics.jsonl, float64 of (N,) each,
            NaN where a step has none; each step once, in order (the last one written holds). 600,000 steps take 30 MB.
        evaluations: the records with a finite score. last_step: the last record of metrics.jsonl, {} without one.
        samples, diagnostics, events: the records of those files.
        damaged: how many lines (or whole files) could not be read, by file name.
    """

    def __init__(self, run: RunFolder, *, every_step: bool = True):
        self.run, self.name = run, run.path.resolve().name
        self.damaged: dict[str, int] = {}
        self.recipe = {SECTION_NAMES.get(name, name): table for name, table in self._table(run.recipe).items()}
        self.plan = self._table(run.plan)
        self.summary = self._table(run.summary)
        kept = self.setting("derived", "score")
        self.score = Score(**kept) if isinstance(kept, dict) and kept.keys() == set(Score._fields) else Score()
        self.curves, self.evaluations, self.last_step = self._metrics(every_step)
        self.samples = [r for r in _each_step_once(self._records(run.samples)) if isinstance(r.get("text"), str)]
        self.diagnostics = _each_step_once(self._records(run.diagnostics))
        self.events = list(self._records(run.events))

    @property
    def best(self) -> dict[str, Any]:
        """The score of the best weights (`val_loss`) and its `interval`, the same on the training split
        (`train_loss_eval`, `train_interval`), their `step`, and what else was measured (`val_...`): the summary's, else
        those of the best evaluation so far; None what is not known."""
        score = self.score
        if score == Score() and finite_number(self.summary.get(score.name)) is not None:
            record, interval, step = self.summary, "interval", "best_step"
        else:
            record = max(self.evaluations, key=lambda record: score.gain(record[score.name], 0.0), default={})
            interval, step = "val_interval", "step"
        keys = (score.name, score.train_name, "train_interval", *self.metric_names)
        known = {key: finite_number(record.get(key)) for key in keys}
        return {**known, "interval": finite_number(record.get(interval)), "step": record.get(step)}

    @property
    def metric_names(self) -> list[str]:
        """Names of the numbers that evaluations measure besides the score and intervals (`val_...`)."""
        names = dict.fromkeys(key for record in (*self.evaluations, self.summary) for key in record)
        names.pop(self.score.name, None)
        return [key for key in names if key.startswith("val_") and not key.endswith("_interval")]

    @property
    def steps_done(self) -> int:
        """Updates of the weights so far."""
        return self.summary.get("steps") or self.last_step.get("step", 0)

    @property
    def steps_asked(self) -> int | None:
        """Updates that the recipe asks for."""
        return self.setting("training", "steps")

    def last(self, key: str) -> Any:
        """A number at the end (`tokens`, `seconds`): the summary's, else the last step's."""
        return self.summary.get(key) or self.last_step.get(key)

    @property
    def parameters(self) -> int | None:
        """Number of parameters: the summary's, else the plan's."""
        planned = self.plan.get("parameters")
        return self.summary.get("parameters") or (planned if isinstance(planned, int) else None)

    @property
    def references(self) -> list[tuple[str, float]]:
        """Losses to compare with, by name: ln V, where all V tokens (or classes) are equally probable; and counted
        pairs of tokens on the same validation split (`evaluation.bigram_loss`)."""
        if self.score != Score():
            return []
        V = finite_number(self.setting("derived", "n_answers"))
        V = V or finite_number(self.setting("derived", "model", "vocab_size"))
        uniform = math.log(V) if V and V > 0 else None
        bigram = finite_number(self.setting("derived", "bigram_loss"))
        known = (("equal probabilities, ln V", uniform), ("bigram model", bigram))
        return [(f"{name} = {level:.4f}", level) for name, level in known if level is not None]

    @property
    def state(self) -> str:
        """`finished`, `diverged`, `stopped`, or `running`: a step was written within the last minute and is not the one
        of a checkpoint, which is how a run that was stopped properly ends."""
        if self.summary:
            return "finished"
        last = self.events[-1] if self.events else {}
        loss = self.last_step.get("loss")
        if last.get("kind") == "diverged" or (isinstance(loss, float) and not math.isfinite(loss)):
            return "diverged"
        saved = (self.run.checkpoints / f"step-{self.steps_done:06}").exists()
        fresh = self.run.metrics.is_file() and time.time() - self.run.metrics.stat().st_mtime < STILL_WRITING
        return "running" if fresh and not saved else "stopped"

    def setting(self, *keys: str) -> Any:
        """`setting("training", "steps")`: a value of recipe.toml, None when it is not there."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _metrics(self, every_step: bool) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], dict[str, Any]]:
        columns = {key: array("d") for key in ("step", *STEP_NUMBERS)}
        evaluations: list[dict[str, Any]] = []
        last: dict[str, Any] = {}
        n, name = 0, self.score.name
        for record in self._records(self.run.metrics, None if every_step else f'"{name}"'.encode()):
            if not isinstance(record.get("step"), int):
                continue
            for key, value in record.items():
                if key not in NO_CURVES and not key.startswith(("val_", "train_")) and finite_number(value) is not None:
                    column = columns.setdefault(key, array("d"))
                    column.extend([math.nan] * (n - len(column)))
                    column.append(value)
            n += 1
            if finite_number(record.get(name)) is not None:
                evaluations.append(record)
            last = record if record["step"] >= last.get("step", 0) else last
        for column in columns.values():
            column.extend([math.nan] * (n - len(column)))
        step = np.array(columns["step"])
        order = np.lexsort((np.arange(len(step)), step))  # by step, then as written
        kept = order[np.flatnonzero(np.diff(step[order], append=np.inf))]
        return {key: np.array(column)[kept] for key, column in columns.items()}, _each_step_once(evaluations), last

    def _table(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            return {}
        try:
            text = file.read_text(encoding="utf-8")
            table = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError):
            table = None
        if isinstance(table, dict):
            return table
        self.damaged[file.name] = 1
        return {}

    def _records(self, file: Path, containing: bytes | None = None) -> Iterator[dict[str, Any]]:
        """The records line by line, or those lines that contain something and the last one. Only newlines separate
        them: texts may hold other line separators of Python's."""
        if not file.is_file():
            return
        with open(file, "rb") as lines:
            last = b""
            for line in lines:
                last = line
                if containing is None or containing in line:
                    yield from self._record(file, line)
            if containing is not None and last and containing not in last:
                yield from self._record(file, last)

    def _record(self, file: Path, line: bytes) -> Iterator[dict[str, Any]]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        elif line.strip():
            self.damaged[file.name] = self.damaged.get(file.name, 0) + 1


def _each_step_once(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_step = {record["step"]: record for record in records if isinstance(record.get("step"), int)}
    return [by_step[step] for step in sorted(by_step)]
