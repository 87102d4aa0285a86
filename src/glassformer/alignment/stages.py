"""The folder of the experiment: files that stages write, and runs that are started, resumed or kept.

OUT/settings.json  seconds.json  gold.json  reviews.jsonl  openings.jsonl
OUT/start/  sft/                                          runs
OUT/seed-1/rankings.jsonl  pairs.jsonl  rankings-pairs.jsonl  prompts.jsonl
OUT/seed-1/reward/  dpo/  ppo/  grpo/  rejection/         runs
OUT/seed-1/measured/dpo.json                              what was measured at each checkpoint
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glassformer import recipes
from glassformer.alignment.settings import Settings
from glassformer.errors import RunError, UsageError
from glassformer.files import json_text, write_json, write_text
from glassformer.hub import load
from glassformer.training import Callback, RunFolder

Log = Callable[[str], None]
RECIPES = Path(__file__).parent


class Stages:
    """A folder and its stages. Everything that is finished in it is kept.

    Raises:
        UsageError: the folder is a file, holds something else, or was begun with other settings.
    """

    def __init__(self, out: Path, settings: Settings, log: Log, callbacks: Sequence[Callback] = ()):
        self.out, self.settings, self.log, self.callbacks = out, settings, log, callbacks
        wanted = json.loads(json_text(settings.to_dict()))
        kept = out / "settings.json"
        if out.is_file():
            raise UsageError(f"{out} is a file; give the name of a folder with --out")
        if kept.is_file():
            if self.read(kept) != wanted:
                raise UsageError(f"{out} was begun with other settings; give those again, or another folder with --out")
        elif out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out} is not empty and holds no align-demo; give another folder with --out")
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_json(kept, wanted)

    @staticmethod
    def read(path: Path) -> Any:
        """A JSON file of the folder.

        Raises:
            RunError: it is damaged.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); delete it, and run again") from None

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage has taken so far, all sittings together."""
        file = self.out / "seconds.json"
        return self.read(file) if file.is_file() else {}  # type: ignore[no-any-return]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what happens inside to the seconds of a stage."""
        began = time.perf_counter()
        self.log(f"{name} ...")
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            all_seconds = self.seconds
            write_json(self.out / "seconds.json", {**all_seconds, name: round(all_seconds.get(name, 0.0) + spent, 1)})
            self.log(f"{name}: {spent:.0f} s")

    def made(self, file: Path, make: Callable[[], Any]) -> Any:
        """What a JSON file holds; if there is none, `make` gives it."""
        if not file.is_file():
            with self.timed(self.name(file)):
                found = make()
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, found)
        return self.read(file)

    def run(self, path: Path, data: Path, words: Sequence[str] = (), *, start_from: Path | None = None) -> Path:
        """The run in `path` by the recipe of the same name: kept if it is finished, resumed if it has begun."""
        run, stage = RunFolder(path), path.name
        if run.summary.is_file():
            return path
        with self.timed(self.name(path)):
            if run.recipe.is_file():
                recipes.resume(path, callbacks=self.callbacks, log=self.log)
            else:
                given = [] if start_from is None else [f"training.start_from={start_from}"]
                given += [*words, *self.settings.changes.get(stage, ())]
                recipe = str(RECIPES / f"{stage}.toml")
                recipes.train(recipe, given, data=str(data), out=path, callbacks=self.callbacks, log=self.log)
        return path

    def name(self, path: Path) -> str:
        """A stage as it is called in seconds.json."""
        return path.relative_to(self.out).with_suffix("").as_posix()


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
