"""The run folder: everything about one training run, in files that other software reads too.

runs/NAME/
  recipe.toml          what was given, what was derived, and what this machine decided
  metrics.jsonl        one line a step, append-only
  samples.jsonl        samples of the model during the run
  diagnostics.jsonl    at evaluations, of every parameter: weight, gradient and update
  events.jsonl         warnings with their cause, resumes, damage that was skipped
  plan.json            the prediction before the first step
  summary.json         the result
  adapter/             of a run with training.lora_rank: its adapter as `peft` has it; model/ has it merged
  windows.safetensors  the best model's loss on every window of the validation split, for comparisons
  report.html          all of that on one page
  model/               the best model so far, as a Hugging Face folder
  checkpoints/         step-000500/ ...: where `glassformer resume` continues
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
    """The files of a run. `create` makes a new folder and never overwrites one, `open` takes an existing one."""

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
        self.adapter = self.path / "adapter"
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
                    f"{run.path} already holds a run; continue it: glassformer resume {run.path}, "
                    "or choose another folder with --out"
                )
            clear_litter(run.path)  # of a run that was killed before it had a recipe
            if run.path.is_dir() and any(run.path.iterdir()):
                raise RunError(f"{run.path} is not empty and holds no run; choose another folder with --out")
            existing = next(folder for folder in (run.path.absolute(), *run.path.absolute().parents) if folder.exists())
            try:
                with tempfile.TemporaryFile(dir=existing):
                    pass  # writable, and nothing is left there if a later check fails
            except FileNotFoundError:  # in /proc
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
        """Add one JSON line, `null` for NaN; the operating system has it before this returns."""
        with disk_errors(file), open(file, "a", encoding="utf-8", newline="\n") as out:
            out.write(json_text(record) + "\n")

    @property
    def logs(self) -> tuple[Path, ...]:
        """The append-only files of steps; a checkpoint keeps their sizes."""
        return self.metrics, self.samples, self.diagnostics

    def flush(self) -> None:
        """Make sure that the logs are on the disk."""
        for file in self.logs:
            if file.exists():
                with disk_errors(file), open(file, "rb") as written:
                    os.fsync(written.fileno())

    def sizes(self) -> dict[str, int]:
        """Bytes of the logs, by file name."""
        return {file.name: file.stat().st_size if file.exists() else 0 for file in self.logs}

    def cut(self, sizes: dict[str, int]) -> None:
        """Cut the logs back to the sizes of a checkpoint, so that no step occurs twice after a resume; a log without a
        size did not exist yet."""
        for file in self.logs:
            if file.exists() and file.stat().st_size > (size := sizes.get(file.name, 0)):
                os.truncate(file, size)

    def clear_litter(self) -> None:
        """Delete what a killed process left half-written here."""
        for folder in (self.path, self.checkpoints):
            clear_litter(folder)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; a last line that a crash left half-written is skipped."""
        return self._read_lines(self.metrics)

    def read_samples(self) -> list[dict[str, Any]]:
        """All lines of samples.jsonl; the same."""
        return self._read_lines(self.samples)

    def _read_lines(self, file: Path) -> list[dict[str, Any]]:
        records = []
        for line in file.read_bytes().split(b"\n") if file.exists() else []:
            if not line:
                continue
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def read_plan(self) -> dict[str, Any] | None:
        """plan.json, or None where there is none that can be read."""
        try:
            return json.loads(self.plan.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
