"""Runs that end by SIGKILL, as by `kill -9`, at an instant of their own: nothing in the process can tidy up."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from forked import processes
from patience import PATIENCE

from glassformer import recipes
from glassformer.generation import Engine
from glassformer.tasks import reference, rollouts
from glassformer.training import Callback

ARMED: list[bool] = []  # not empty: the next roll-out is the last


def die(*ignored: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PATIENCE)


class DyingEngine(Engine):
    """Ends the process in the middle of sampling."""

    def run(self):
        for n, event in enumerate(super().run()):
            if ARMED and n == 5:
                die()
            yield event


def score(completions, answer):
    """A reward; when armed, the process ends between sampling and the update."""
    if "score" in ARMED:
        die()
    return [sum(a == b for a, b in zip(c, w, strict=False)) / 4 for c, w in zip(completions, answer, strict=True)]


class Kill(Callback):
    """Ends the process at a moment of the step after `step`; of a roll-out: of the iteration of this number."""

    def __init__(self, moment: str, step: int):
        self.moment, self.step = moment, step

    def on_start(self, trainer):
        write, writer = trainer.writer.write, trainer.writer
        writer.write = lambda *given, **more: (write(*given, **more), writer.wait())  # so that the last one is known
        getattr(self, self.moment)(trainer, lambda: trainer.step == self.step)

    def backward(self, trainer, due):
        trained = [p for p in trainer.train_step.parameters if p.requires_grad]
        trained[len(trained) // 2].register_hook(lambda gradient: die() if due() else gradient)

    def update(self, trainer, due):
        """The weights are new, and nothing says so yet."""
        step = trainer.optimizer.step
        trainer.optimizer.step = lambda factor: (step(factor), due() and die())

    def evaluation(self, trainer, due):
        rows = trainer.task.rows
        trainer.task.rows = lambda *given: die() if due() else rows(*given)

    def logged(self, trainer, due):
        """The line of a step is written, and its checkpoint is not."""
        self.on_step = lambda record: record["step"] == self.step and die()

    def sampling(self, trainer, due):
        rollouts.Engine = DyingEngine
        self._arm(trainer)

    def rewards(self, trainer, due):
        self._arm(trainer)

    def _arm(self, trainer):
        roll_out = trainer.task.roll_out

        def last(number, *rest):
            ARMED[:] = [self.moment == "sampling" or "score"] if number == self.step else []
            return roll_out(number, *rest)

        trainer.task.roll_out = last

    def at_once(self):
        """The second batch of the reference's log-probabilities, before there is a trainer."""
        calls, collate = [], reference.collate_tokens

        def last(sides):
            calls.append(sides)
            return collate(sides) if len(calls) < 2 else die()

        reference.collate_tokens = last


def run_until_killed(run: Path, words: list[str], data: str, moment: str, step: int) -> None:
    """Train, or resume what has begun; the caller sees how it ended."""
    kill = Kill(moment, step)
    if moment == "at_once":
        kill.at_once()
    if (run / "recipe.toml").exists():
        recipes.resume(run, callbacks=[kill])
    else:
        recipes.train(None, words, data=data, out=run, callbacks=[kill])


def killed(target, *args: Any) -> None:
    """Call a function in a process of its own, which must end by SIGKILL."""
    process = processes().Process(target=target, args=args, daemon=True)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def last_step(run: Path) -> int:
    """Of the newest checkpoint; 0: there is none."""
    return max((int(path.name[-6:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def log(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a log without their times."""
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k and k != "mfu"} for line in lines]


def ending(run: Path) -> dict[str, Any]:
    """All that an interrupted run shares with one that was never stopped: weights, adapter, optimizer, companion,
    generators, place in the data, and every line of the logs, but for the times."""
    found: dict[str, Any] = {name: log(run, name) for name in ("metrics.jsonl", "diagnostics.jsonl", "samples.jsonl")}
    last = max((run / "checkpoints").iterdir())
    for folder in (last, run / "model", run / "adapter"):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != "state.json":
                found[str(file.relative_to(run))] = file.read_bytes()
    state = json.loads((last / "state.json").read_text())
    state["random"] = [generators["torch"] for generators in state["random"]]  # no run draws from the others
    found["state"] = {key: value for key, value in state.items() if key not in ("seconds", "logs", "files")}
    summary = json.loads((run / "summary.json").read_text())
    skipped = ("run", "seconds", "whole_seconds", "peak_memory_bytes")
    found["summary"] = {key: value for key, value in summary.items() if key not in skipped}
    return found
