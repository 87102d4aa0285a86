"""The folder of the experiment (`recipes/stage_folder.py`):

OUT/gold.json  reviews.jsonl  openings.jsonl
OUT/start/  sft/                                          runs
OUT/seed-1/rankings.jsonl  pairs.jsonl  rankings-pairs.jsonl  prompts.jsonl
OUT/seed-1/reward/  dpo/  ppo/  grpo/  rejection/         runs
OUT/seed-1/measured/dpo.json                              what was measured at each checkpoint
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glassformer.alignment.settings import Settings
from glassformer.files import clear_litter, json_text, write_text
from glassformer.hub import load
from glassformer.recipes.stage_folder import Log, StageFolder
from glassformer.training import Callback

RECIPES = Path(__file__).parent


class Stages(StageFolder):
    """The stages of the experiment; see `StageFolder`."""

    def __init__(self, out: Path, settings: Settings, log: Log, callbacks: Sequence[Callback] = ()):
        super().__init__(out, settings.to_dict(), log, callbacks, what="align-demo")
        self.settings = settings
        for folder in (*out.glob("seed-*"), *out.glob("seed-*/measured")):
            clear_litter(folder)

    def stage(self, path: Path, data: Path, words: Sequence[str] = (), *, start_from: Path | None = None) -> Path:
        """The run in `path` by the recipe of the same name, with the changes of the settings."""
        start = [] if start_from is None else [f"training.start_from={start_from}"]
        words = [*start, *words, *self.settings.changes.get(path.name, ())]
        return self.run(path, str(RECIPES / f"{path.name}.toml"), words, data=str(data))


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints of a run, in order."""
    folders = sorted((run / "checkpoints").glob("step-*"))
    return [(int(folder.name.removeprefix("step-")), folder) for folder in folders]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSON lines, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json_text(row) + "\n" for row in rows))
    return path


def model_of(folder: Path) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer) of a run or a checkpoint."""
    model, tokenizer = load(folder)
    return model.eval(), tokenizer
