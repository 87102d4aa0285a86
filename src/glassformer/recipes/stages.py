"""A recipe of several stages, each of which starts from the model of the one before.

    [[stage]]              a name, and the sections of a recipe
    name = "base"
    [stage.model] ...

OUT/base/  sft/  dpo/      a run each (`stage_folder.py`)
OUT/model/                 the model of the last one
OUT/results.json  report.html    what each stage changed (`stage_results.py`)
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.files import atomic_folder
from glassformer.recipes.plan import Plan, plan
from glassformer.recipes.reading import parse_setting, read_recipe, read_tables
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.run import absolute_paths
from glassformer.recipes.schema import SECTIONS, Recipe
from glassformer.recipes.stage_folder import Log, StageFolder
from glassformer.recipes.stage_results import compares, results
from glassformer.tasks import TASKS
from glassformer.training import Callback, RunFolder

Tables = dict[str, Any]
RESERVED = ("model",)


@dataclass(frozen=True)
class Stages:
    """A recipe of stages, settings laid over it. tables: of each stage, by its name, in order."""

    name: str
    tables: dict[str, Tables]

    def recipe(self, stage: str) -> Recipe:
        """A stage as a recipe.

        Raises:
            UsageError: an unknown key, or a value that does not fit.
        """
        try:
            return read_recipe(self.tables[stage])
        except UsageError as error:
            raise UsageError(f"stage {stage}: {error}") from None


def has_stages(name_or_path: str | None) -> bool:
    """Whether a recipe consists of stages."""
    return name_or_path is not None and "stage" in read_tables(name_or_path)


def read_stages(
    name_or_path: str,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> Stages:
    """A recipe of stages, with settings laid over it; everything that can be checked before training is checked.

    Args:
        overrides: `stage.section.key=value`. data: of the first stage. seed, device: of all stages.

    Raises:
        UsageError: what is wrong with the recipe or a setting.
    """
    file = read_tables(name_or_path)
    name, rows = file.pop("name"), file.pop("stage", None)
    if file:
        raise UsageError(f"{name}: {next(iter(file))} stands beside the stages; put it into one: [stage.NAME]")
    tables = _tables(name, rows)
    for word in overrides:
        stage, _, setting = word.strip().partition(".")
        if stage not in tables:
            hint = did_you_mean(stage, tables) if stage not in SECTIONS else f"for example {next(iter(tables))}.{word}"
            raise UsageError(f"{word!r} begins with no stage of {name} ({', '.join(tables)}); {hint}")
        section, key, value = parse_setting(setting)
        tables[stage].setdefault(section, {})[key] = value
    for number, table in enumerate(tables.values()):
        given = {
            ("data", "source"): None if number else data,
            ("training", "seed"): seed,
            ("training", "device"): device,
        }
        for (section, key), value in given.items():
            if value is not None:
                table[section] = {**table.get(section, {}), key: value}
    stages = Stages(name, tables)
    _check(stages)
    for stage, table in tables.items():
        for key, path in absolute_paths(stages.recipe(stage)).items():
            section, _, setting = key.partition(".")
            if setting in table.get(section, {}):
                table[section][setting] = path
    return stages


def _tables(name: str, rows: Any) -> dict[str, Tables]:
    """The stages by name."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{name}: stages are tables, each below a line [[stage]]")
    found: dict[str, Tables] = {}
    for row in rows:
        stage = row.get("name")
        if not isinstance(stage, str) or not re.fullmatch(r"\w[\w-]*", stage) or stage in (*RESERVED, *found):
            raise UsageError(f"{name}: name={stage!r} of a stage; give each its own, of letters, digits and - (base)")
        found[stage] = {key: dict(value) if isinstance(value, dict) else value for key, value in row.items()}
    return found


def _check(stages: Stages) -> None:
    """Find mistakes of later stages before the first one is trained for hours."""
    length = None
    for number, stage in enumerate(stages.tables):
        r = stages.recipe(stage)
        if number == 0:
            length = r.model.get("block_size")
        elif r.training.start_from is not None:
            raise UsageError(f"stage {stage}: it starts from the stage before; leave training.start_from out")
        elif length is not None:
            try:
                ResolvedTraining.complete(r.training, length)
            except UsageError as error:
                raise UsageError(f"stage {stage}: {error}") from None


def train_stages(
    recipe: str,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Train the stages of a recipe one after the other; in a folder that was begun, what is missing of them.

    Args:
        overrides: `stage.section.key=value`. data: of the first stage. seed, device: of all stages. out: the folder;
            default `runs/<recipe>-<n>`.

    Returns:
        what `stage_results.results` gives.

    Raises:
        UsageError: the recipe or a setting is wrong, or `out` holds something else. Interrupted, DivergenceError: as
            `train`; the same call, or `resume_stages`, goes on.
    """
    stages = read_stages(recipe, overrides, data=data, seed=seed, device=device)
    path = Path(out) if out is not None else RunFolder.next_free("runs", stages.name)
    return _train(stages, path, callbacks, log)


def resume_stages(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    callbacks: Sequence[Callback] = (),
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Train what is missing of a folder of stages, exactly as if it had never stopped.

    Raises:
        UsageError: a setting is given: those that it was begun with stay.
    """
    if word := next(iter(overrides), None):
        raise UsageError(f"{word} cannot change when stages are resumed; begin others with glassformer train")
    kept = StageFolder.read(Path(path) / "settings.json")
    return _train(Stages(kept["recipe"], kept["stages"]), Path(path), callbacks, log)


def is_stage_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds stages of a recipe.

    Raises:
        RunError: its settings are damaged.
    """
    file = Path(path) / "settings.json"
    kept = StageFolder.read(file) if file.is_file() else {}
    return isinstance(kept, dict) and {"recipe", "stages"} <= kept.keys()


def _check_data(r: Recipe) -> None:
    """Raise `DataError` for data that are not there now, and not in the night when their stage begins."""
    if TASKS[r.task.kind].reads == "text":
        next(iter(TASKS[r.task.kind].texts(r.data)), None)


def _train(stages: Stages, out: Path, callbacks: Sequence[Callback], log: Log) -> dict[str, Any]:
    for stage in stages.tables:
        if not (out / stage / "recipe.toml").is_file():
            _check_data(stages.recipe(stage))
    settings, again = {"recipe": stages.name, "stages": stages.tables}, f"glassformer resume {out}"
    folder = StageFolder(out, settings, log, callbacks, what=f"stages of {stages.name}", again=again)
    before: Path | None = None
    for stage, tables in stages.tables.items():
        if before is not None:
            tables = {**tables, "training": {**tables.get("training", {}), "start_from": str(before)}}
        before = folder.run(out / stage, {**tables, "name": f"{stages.name}: {stage}"})
    assert before is not None
    if not (out / "model").is_dir():
        with atomic_folder(out / "model") as temporary:
            shutil.copytree(before / "model", temporary, dirs_exist_ok=True)
    return results(folder, stages.name, list(stages.tables))


@dataclass(frozen=True)
class StageEstimate:
    """What a later stage costs at most. seconds: None where its answers are sampled, and their length is not known."""

    name: str
    steps: int
    tokens: int
    seconds: float | None


def plan_stages(
    recipe: str,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    device: str | None = None,
    **others: Any,
) -> tuple[Plan, list[StageEstimate]]:
    """The plan of the first stage (others: of `plan`), and for each later one its steps at the first one's speed, all
    rows as long as a sequence may be.

    Raises:
        UsageError, DataError: as `train_stages` and `plan`.
    """
    stages = read_stages(recipe, overrides, data=data, device=device)
    first, *later = stages.tables
    made = plan(stages.tables[first], **others)
    return made, [_estimate(stage, stages.recipe(stage), made, stages.recipe(first)) for stage in later]


def _estimate(name: str, r: Recipe, first: Plan, base: Recipe) -> StageEstimate:
    t = ResolvedTraining.complete(r.training, r.training.sequence_length or base.model.get("block_size") or 256)
    answers = 2 if compares(TASKS[r.task.kind]) else 1
    tokens = t.steps * t.batch_size * t.sequence_length * answers
    speed = first.tokens_per_step / first.seconds_per_step
    return StageEstimate(name, t.steps, tokens, None if TASKS[r.task.kind].on_policy else tokens / speed)
