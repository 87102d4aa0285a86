"""What checkpoints and data cost the training loop: a real run of the 10.7 M model, with a stop-watch at both doors.

    python benchmarks/loop_overheads.py [--steps 24] [--every 6] [--batch 8]

Prints JSON. The run is `glassformer.train` with the recipe shakespeare-char, on a part of the text, in this process.

    checkpoint   seconds that the call keeps the loop, plus what the steps during the writing behind it take longer
                 than the median of the others (the disk and the hashing share the processor), at one a minute: / 60
    data         seconds inside next(batches), divided by all seconds of steps

The goals are < 2 % and < 1 %. A checkpoint of this model is 129 MB: weights and AdamW's two moments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)

from glassformer.data import CORPORA
from glassformer.recipes import train
from glassformer.training import Callback, Trainer


class StopWatch(Callback):
    """Times the loop's calls to its batches and to its checkpoint writer, and the steps between them."""

    def __init__(self) -> None:
        self.data: list[float] = []  # seconds, one a step
        self.kept: dict[int, float] = {}  # step -> seconds that its checkpoint kept the loop
        self.steps: dict[int, float] = {}  # step -> seconds from its batch to its line in metrics.jsonl
        self.bytes = 0

    def on_start(self, trainer: Trainer) -> None:
        self.trainer, batches, write = trainer, trainer.batches, trainer.writer.write
        watch = self

        class Timed:
            def __next__(self) -> Any:
                watch.began = time.perf_counter()
                batch = next(batches)
                watch.data.append(time.perf_counter() - watch.began)
                return batch

            def __getattr__(self, name: str) -> Any:
                return getattr(batches, name)

        def timed(step: int, **settings: Any) -> None:
            started = time.perf_counter()
            write(step, **settings)
            watch.kept[step] = time.perf_counter() - started

        trainer.batches, trainer.writer.write = Timed(), timed  # type: ignore[method-assign, assignment]

    def on_step(self, record: dict[str, Any]) -> None:
        self.steps[record["step"]] = time.perf_counter() - self.began

    def on_end(self) -> None:
        folders = sorted(self.trainer.run.checkpoints.glob("step-*"))
        self.bytes = sum(file.stat().st_size for file in folders[-1].rglob("*") if file.is_file()) if folders else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    watch = StopWatch()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "part.txt"  # the end of a run reads all of the validation split: a short one
        text.write_text(CORPORA["tinyshakespeare"].file(quiet=True).read_text(encoding="utf-8")[:100_000])
        overrides = {
            "steps": args.steps,
            "checkpoint_every": args.every,
            "batch_size": args.batch,
            "eval_every": 0,
            "eval_batches": 1,
            "sample_every": 0,
        }
        run = train(
            "shakespeare-char",
            [f"training.{key}={value}" for key, value in overrides.items()],
            data=str(text),
            out=Path(folder) / "run",
            callbacks=[watch],
        )
    # the last step evaluates, and its checkpoint is waited for; the first warms up
    last = args.steps
    steps = {step: seconds for step, seconds in watch.steps.items() if 1 < step < last}
    kept = {step: seconds for step, seconds in watch.kept.items() if 1 < step < last}
    undisturbed = {step: seconds for step, seconds in steps.items() if step % args.every not in (1, 2)}
    usual = statistics.median(undisturbed.values())
    slower = [sum(steps.get(step + i, usual) - usual for i in (1, 2)) for step in kept]
    blocked = statistics.median(kept.values())
    lost = blocked + max(0.0, statistics.median(slower))
    result = {
        "what": "share of the training loop",
        "parameters": run.parameters,
        "checkpoint_megabytes": round(watch.bytes / 1e6, 1),
        "step_seconds": round(usual, 3),
        "checkpoints": len(kept),
        "checkpoint_blocked_seconds": round(blocked, 3),
        "checkpoint_slowed_seconds": round(lost - blocked, 3),
        "checkpoint_percent_at_one_a_minute": round(100 * lost / 60, 2),
        "data_microseconds_a_step": round(1e6 * statistics.median(watch.data)),
        "data_percent": round(100 * statistics.median(watch.data) / usual, 4),
        "rounds": {"kept": {k: round(v, 3) for k, v in kept.items()}, "slower": [round(s, 3) for s in slower]},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
