"""A folder of stages: runs that are started, resumed or kept, and files that are made once.

OUT/settings.json       what it was begun with; anything else is refused
OUT/seconds.json        what each stage has taken, all sittings together
OUT/NAME/               a run
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glassformer.errors import RunError, UsageError
from glassformer.files import clear_litter, json_text, write_json
from glassformer.recipes.resume import resume
from glassformer.recipes.run import train
from glassformer.training import Callback, Interrupted, RunFolder, World, write_report

Log = Callable[[str], None]


class StageFolder:
    """A folder and its stages. Everything that is finished in it is kept.

    Args:
        settings: everything that decides the stages, as JSON has it. what: a name for it in messages. again: what
            continues it after a stop.

    Raises:
        UsageError: the folder is a file, holds something else, or was begun with other settings.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        log: Log,
        callbacks: Sequence[Callback] = (),
        *,
        what: str = "stages",
        again: str = "the same command",
    ):
        self.out, self.log, self.callbacks, self.again = out, log, callbacks, again
        if World.join().size > 1:
            raise UsageError("stages are trained in one process; start this without torchrun, or each stage by itself")
        clear_litter(out)
        wanted, kept = json.loads(json_text(settings)), out / "settings.json"
        if out.is_file():
            raise UsageError(f"{out} is a file; give the name of a folder with --out")
        if kept.is_file():
            if difference := first_difference(self.read(kept), wanted).removeprefix("stages."):
                raise UsageError(
                    f"{out} was begun with other settings ({difference}); give those again, or another --out"
                )
        elif out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out} is not empty and holds no {what}; give another folder with --out")
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

    def run(self, path: Path, recipe: str | Mapping[str, Any], words: Sequence[str] = (), **others: Any) -> Path:
        """The run in `path`: kept if it is finished, resumed if it has begun, else trained; recipe, words, others: of
        `train`."""
        run = RunFolder(path)
        if run.summary.is_file():
            if not run.report.is_file():  # stopped between the two
                write_report(run)
            return path
        with self.timed(self.name(path)):
            try:
                if run.recipe.is_file():
                    resume(path, callbacks=self.callbacks, log=self.log)
                else:
                    train(recipe, words, out=path, callbacks=self.callbacks, log=self.log, **others)
            except Interrupted as stopped:
                raise Interrupted(str(stopped).replace(f"glassformer resume {path}", self.again)) from None
        return path

    def name(self, path: Path) -> str:
        """A stage as it is called in seconds.json."""
        return path.relative_to(self.out).with_suffix("").as_posix()


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two settings differ, in words; "" if they are equal.

    >>> first_difference({"sft": {"steps": 10, "seed": 1}}, {"sft": {"steps": 20, "seed": 1}})
    'sft.steps=10, and now 20'
    >>> first_difference({"sft": {}}, {"sft": {"seed": 1}})
    'sft.seed=not set, and now 1'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        both = ((key, before.get(key, "not set"), now.get(key, "not set")) for key in {**before, **now})
        found = (first_difference(a, b, f"{where}.{key}" if where else key) for key, a, b in both)
        return next(filter(None, found), "")
    return "" if before == now else f"{where}={before}, and now {now}"
