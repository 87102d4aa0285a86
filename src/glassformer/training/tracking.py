"""Experiment trackers: the records of the run folder, copied to TensorBoard or Weights & Biases.

A tracker is a `Callback`; another one is a class with its methods and a line in `TRACKERS`.
"""

from __future__ import annotations

import html
import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from glassformer.errors import MissingExtraError, UsageError, did_you_mean
from glassformer.files import write_text
from glassformer.training.callbacks import Callback
from glassformer.training.formats import finite_number
from glassformer.training.loop import Trainer
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory


class TensorBoard(Callback):
    """Event files in `RUN/tensorboard`, for `tensorboard --logdir runs`.

    A run that continues from an earlier step (resumed, rolled back) starts a new file that names the step; the reader
    drops what other files hold from there on (`purge_step`), so each step counts once.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, run: RunFolder):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tracking with TensorBoard", "track") from None
        self.run, self._writer_class = run, SummaryWriter

    def on_start(self, trainer: Trainer) -> None:
        self.step = trainer.step
        self._open(purge_step=trainer.step + 1 if trainer.step else None)
        if not trainer.step:
            self.writer.add_text("recipe", _verbatim(self.run.recipe.read_text(encoding="utf-8")), 0)

    def _open(self, purge_step: int | None) -> None:
        self.writer = self._writer_class(str(self.run.path / "tensorboard"), purge_step=purge_step)

    def on_step(self, record: dict[str, Any]) -> None:
        if record["step"] <= self.step:
            self.writer.close()
            self._open(purge_step=record["step"])
        self.step = record["step"]
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def on_sample(self, step: int, text: str) -> None:
        self.writer.add_text("sample", _verbatim(text), step)

    def on_diagnostics(self, record: dict[str, Any]) -> None:
        for name, value in diagnostic_scalars(record).items():
            self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()

    def on_event(self, record: dict[str, Any]) -> None:
        self.writer.add_text(f"event/{record['kind']}", _verbatim(record["text"]), record["step"])

    def on_end(self) -> None:
        self.writer.close()


class WeightsAndBiases(Callback):
    """An offline run in `RUN/wandb`, which `wandb sync` uploads.

    Nothing leaves the machine unless the user sets `WANDB_MODE`: the mode is offline, without error reports,
    machine statistics and code. A resumed run keeps its id. Curves are drawn over `step`: wandb's own counter only goes
    up, and a run may be rolled back.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, run: RunFolder):
        self.offline = os.environ.get("WANDB_MODE", "offline") == "offline"
        if self.offline:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # is read when the package is imported
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("tracking with Weights & Biases", "track") from None
        self.run, self._wandb = run, wandb

    def on_start(self, trainer: Trainer) -> None:
        folder, known = self.run.path / "wandb", self.run.path / "wandb" / "run-id"
        if not known.is_file():
            write_text(known, uuid.uuid4().hex[:12])
        quiet: dict[str, Any] = (
            {"x_disable_stats": True, "x_disable_machine_info": True, "disable_git": True} if self.offline else {}
        )
        settings = self._wandb.Settings(console="off", silent=True, save_code=False, **quiet)
        self._session = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "glassformer"),
            name=self.run.path.name,
            id=known.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder.parent),
            config=RunHistory(self.run, every_step=False).recipe,
            mode="offline" if self.offline else None,
            settings=settings,
        )
        self._session.define_metric("*", step_metric="step")

    def on_step(self, record: dict[str, Any]) -> None:
        self._session.log({"step": record["step"], **scalars(record)})

    def on_sample(self, step: int, text: str) -> None:
        self._session.log({"step": step, "sample": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")})

    def on_diagnostics(self, record: dict[str, Any]) -> None:
        self._session.log({"step": record["step"], **diagnostic_scalars(record)})

    def on_event(self, record: dict[str, Any]) -> None:
        self._session.log({"step": record["step"], f"event/{record['kind']}": record["text"]})

    def on_end(self) -> None:
        self._session.finish()


TRACKERS: dict[str, Callable[[RunFolder], Callback]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def trackers(names: Iterable[str], run: RunFolder) -> tuple[Callback, ...]:
    """The trackers of `training.track`; they write nothing before the run starts.

    Raises:
        UsageError: an unknown name. MissingExtraError: its package is not installed.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise UsageError(f"training.track: {name!r} is unknown; {did_you_mean(name, TRACKERS)}")
        found.append(TRACKERS[name](run))
    return tuple(found)


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a step by the names that trackers show: `train/loss`, `validation/loss` ...

    >>> scalars({"step": 3, "loss": 2.5, "val_loss": 2.25, "val_kl": None})
    {'train/loss': 2.5, 'validation/loss': 2.25}
    """
    named = {}
    for key, value in record.items():
        if key != "step" and finite_number(value) is not None:
            group, _, name = key.partition("_") if key.startswith("val_") else ("train", "", key)
            named[f"{'validation' if group == 'val' else group}/{name}"] = value
    return named


def diagnostic_scalars(record: dict[str, Any]) -> dict[str, float]:
    """`update/blocks.0.attention.qkv.weight`, `gradient/...`, `weight/...`, `activation/TAP/rms`, ..."""
    named = {}
    for part, group in (("parameters", ""), ("activations", "activation/")):
        for name, numbers in (record.get(part) or {}).items():
            for key, value in numbers.items():
                if finite_number(value) is not None:
                    named[f"{group}{name}/{key}" if group else f"{key}/{name}"] = value
    return named


def _verbatim(text: str) -> str:
    """A Markdown code block, so that TensorBoard shows the text unchanged."""
    return "\n".join("    " + line for line in text.splitlines())
