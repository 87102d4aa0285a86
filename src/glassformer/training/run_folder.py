"""The run folder: everything about one training run, in files that other software reads too.

runs/NAME/
  recipe.toml       all that was asked, all that was derived, and what this machine decided
  metrics.jsonl     one line a step, append-only
  samples.jsonl     what the model wrote along the way
  diagnostics.jsonl at evaluations, of every parameter: weight, gradient and update
  events.jsonl      what a person should know: warnings with their cause, resumes, damage passed over
  plan.json         what was predicted before the first step
  summary.json      what it came to
  windows.safetensors  the best model's loss on every window of the validation split: what comparisons stand on
  report.html       all of that in one page
  model/            the best so far: a Hugging Face model folder
  checkpoints/      step-000500/ ...: what `glassformer resume` goes on from
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from glassformer.errors import RunError, did_you_mean
from glassformer.files import clear_litter, disk_errors, json_text, write_text


class RunFolder:
    """A run folder by its path. `create` makes a new one and never overwrites, `open` takes an existing one."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.diagnostics = self.path / "diagnostics.jsonl"
        self.events = self.path / "events.jsonl"
        self.plan = self.path / "plan.json"
        self.summary = self.path / "summary.json"
        self.windows = self.path / "windows.safetensors"
        self.report = self.path / "report.html"
        self.model = self.path / "model"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | os.PathLike[str], recipe_text: str) -> RunFolder:
        """A new run.

        Raises:
            RunError: the folder already holds a run, or other files.
            GlassformerError: it cannot be written.
        """
        cls.check_free(path)
        run = cls(path)
        made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
        try:
            write_text(run.recipe, recipe_text)
        except BaseException:
            with contextlib.suppress(OSError):
                for folder in made:  # the innermost first
                    folder.rmdir()
            raise
        return run

    @staticmethod
    def check_free(path: str | os.PathLike[str]) -> None:
        """Refuse, before any work is done, a folder that is not empty or cannot be written."""
        run = RunFolder(path)
        with disk_errors(run.path):
            if run.recipe.exists():
                raise RunError(
                    f"{run.path} already holds a run; go on with it: glassformer resume {run.path}, "
                    "or choose another folder with --out"
                )
            clear_litter(run.path)  # of a run that was killed before it had a recipe
            if run.path.is_dir() and any(run.path.iterdir()):
                raise RunError(f"{run.path} is not empty and holds no run; choose another folder with --out")
            existing = next(folder for folder in (run.path.absolute(), *run.path.absolute().parents) if folder.exists())
            try:
                with tempfile.TemporaryFile(dir=existing):
                    pass  # writable, and nothing is left there if a later check fails
            except FileNotFoundError:  # what /proc says
                raise RunError(f"{run.path}: no folder can be made there; choose another place with --out") from None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """An existing run.

        Raises:
            RunError: there is none.
        """
        run = cls(path)
        if not run.recipe.is_file():
            beside = [str(entry.parent) for entry in run.path.parent.glob("*/recipe.toml")]
            hint = did_you_mean(str(run.path), beside) if beside else "start one with: glassformer train"
            raise RunError(f"{run.path} holds no run (no recipe.toml); {hint}")
        return run

    @staticmethod
    def next_free(base: str | os.PathLike[str], name: str) -> Path:
        """`base/name-1`, or the first number that is not taken."""
        n = 1
        while (Path(base) / f"{name}-{n}").exists():
            n += 1
        return Path(base) / f"{name}-{n}"

    def append(self, file: Path, record: dict[str, Any]) -> None:
        """Add one JSON line, `null` for a NaN; it is on its way to the disk before this returns."""
        with disk_errors(file), open(file, "a", encoding="utf-8", newline="\n") as out:
            out.write(json_text(record) + "\n")

    def flush(self) -> None:
        """Make sure that the append-only files are on the disk, whatever happens to the machine."""
        for file in (self.metrics, self.samples, self.diagnostics):
            if file.exists():
                with disk_errors(file), open(file, "rb") as written:
                    os.fsync(written.fileno())

    def sizes(self) -> dict[str, int]:
        """Bytes of the append-only files: where a checkpoint stands in them."""
        files = (self.metrics, self.samples, self.diagnostics)
        return {file.name: file.stat().st_size if file.exists() else 0 for file in files}

    def cut(self, sizes: dict[str, int]) -> None:
        """Cut the append-only files back to a checkpoint, so that no step stands there twice after a resume; one that
        is not named did not exist yet."""
        for file in (self.metrics, self.samples, self.diagnostics):
            if file.exists() and file.stat().st_size > (size := sizes.get(file.name, 0)):
                os.truncate(file, size)

    def clear_litter(self) -> None:
        """Undo what a killed process left half-done here."""
        for folder in (self.path, self.checkpoints):
            clear_litter(folder)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return self.read(self.metrics)

    def plan_told(self) -> dict[str, Any] | None:
        """plan.json, or None where there is none that can be read."""
        try:
            return json.loads(self.plan.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @staticmethod
    def read(file: Path) -> list[dict[str, Any]]:
        """All lines of one of the JSONL files, none when there is no file; a half-written last one (a crash) is left
        out."""
        records = []
        for line in file.read_bytes().split(b"\n") if file.exists() else []:  # a text may hold other line ends
            if not line:
                continue
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records
