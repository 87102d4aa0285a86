"""Training and generation on a quiet machine and beside a neighbour, by what threads do while they wait for each other.

    python benchmarks/busy_machine.py [--rounds 3] [--seconds 0.4] [--only "training 222 k" --only ...]

Prints JSON: milliseconds a step of training or a token of generation, medians of turns, each way in a process of its
own. `spinning` is OpenMP's default, `passive` OMP_WAIT_POLICY=PASSIVE, `one thread` OMP_NUM_THREADS=1, and `ours` has
nothing set (`glassformer.threads`). The neighbour multiplies matrices with two threads, in a session of its own as
another terminal has. Goals: `ours` within 3 % of the best way when quiet, and beside the neighbour at most 2.5 times as
slow as when quiet. For two cores and nothing else on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

from glassformer.generation import Engine, Request, Sampling
from glassformer.hub.loading import as_dtype
from glassformer.models import Decoder, ModelConfig, parameter_count
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.recipes.machine import Machine
from glassformer.recipes.probe import Stepper
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.schema import TrainingSection
from glassformer.tasks import NextToken
from glassformer.threads import WAITING, set_threads

WAYS = {
    "ours": {},
    "spinning": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own default; set, so that ours stays away
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SHAPES = {
    "60 k": ({"n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": 48}, 8),
    "222 k": ({"n_layer": 2, "n_head": 4, "n_embd": 96, "block_size": 64}, 16),
    "830 k": ({"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 160}, 12),
    "10.7 M": ({"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256}, 2),
}
WORK = [f"training {size}" for size in SHAPES] + [
    f"generation {size} {dtype}" for size in ("222 k", "10.7 M") for dtype in ("fp32", "int8")
]
SETTLING = 1.2  # seconds that ours works before it is timed: it looks four times a second, and others have just worked
NEIGHBOUR = "import torch; torch.set_num_threads(2); a = torch.ones(512, 512); print(flush=True)\nwhile True: a @ a"


def training(size: str) -> Callable[[], None]:
    """One step."""
    shape, batch = SHAPES[size]
    section = TrainingSection(batch_size=batch, learning_rate=1e-3, optimizer="muon")
    settings = ResolvedTraining.complete(section, shape["block_size"])
    machine = Machine(device="cpu", threads=1, precision="fp32", compile=False)
    config = ModelConfig.make(family="modern", vocab_size=65, **shape)
    set_threads(batch * config.block_size * config.n_embd)
    stepper = Stepper(NextToken(), config, settings, machine, batch)

    def step() -> None:
        stepper.train_step.optimizer_step(stepper.train_step.forward_backward(stepper.batch).read(), 1.0)
        stepper.train_step.clear()

    return step


def generation(size: str, dtype: str) -> Callable[[], None]:
    """One token of one sample."""
    model: Any = as_dtype(Decoder(ModelConfig.make(family="modern", vocab_size=65, **SHAPES[size][0])).eval(), dtype)
    engine = Engine(model, TOKENIZERS["characters"](["".join(map(chr, range(32, 97)))[:65]]), max_rows=1)
    half = (1,) * (model.config.block_size // 2)
    request = Request(half, max_new_tokens=20, sampling=Sampling(temperature=0.8, top_k=20), end_tokens=frozenset())

    def token() -> None:
        if not engine.busy:
            engine.submit(request)
        engine.step()

    return token


def work_on_demand() -> None:
    """The worker: for each line `work<TAB>seconds` on standard input, one line of milliseconds."""
    known: dict[str, Callable[[], None]] = {}
    for line in sys.stdin:
        name, seconds = line.strip().split("\t")
        kind, _, rest = name.partition(" ")
        if kind == "training":  # the number of threads is each work's own
            shape, batch = SHAPES[rest]
            set_threads(batch * shape["block_size"] * shape["n_embd"])
        else:
            config = ModelConfig.make(family="modern", vocab_size=65, **SHAPES[rest.rsplit(" ", 1)[0]][0])
            set_threads(parameters=parameter_count(config))
        if name not in known:
            known[name] = training(rest) if kind == "training" else generation(*rest.rsplit(" ", 1))
            known[name]()
        done, passed, started = 0, 0.0, time.perf_counter()
        while done == 0 or passed < float(seconds):
            known[name]()
            done, passed = done + 1, time.perf_counter() - started
        print(1e3 * passed / done, flush=True)


class Worker:
    """A process that works one way."""

    def __init__(self, way: str):
        clean = {k: v for k, v in os.environ.items() if k not in (*WAITING, "OMP_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env={**clean, **WAYS[way]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def milliseconds(self, work: str, seconds: float) -> float:
        """Of one step or token, the mean over so many seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{work}\t{seconds}\n")
        return float(self.process.stdout.readline())


def medians(workers: dict[str, Worker], works: list[str], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """work -> way -> milliseconds, all ways in turn."""
    seen: dict[str, dict[str, list[float]]] = {work: {way: [] for way in workers} for work in works}
    for work in works:
        for _ in range(rounds):
            for way, worker in workers.items():
                if way == "ours" and seconds:
                    worker.milliseconds(work, SETTLING)
                seen[work][way].append(worker.milliseconds(work, seconds))
    return {work: {way: statistics.median(times) for way, times in ways.items()} for work, ways in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--only", action="append", choices=WORK)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work_on_demand()
    works = args.only or WORK
    workers = {way: Worker(way) for way in WAYS}
    try:
        medians(workers, works, 1, 0.0)  # everything is built, and warm
        quiet = medians(workers, works, args.rounds, args.seconds)
        neighbour = subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR], stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        try:
            assert neighbour.stdout is not None and neighbour.stdout.readline()
            busy = medians(workers, works, args.rounds, args.seconds)
        finally:
            neighbour.kill()
    finally:
        for worker in workers.values():
            worker.process.kill()
    rows = [
        {
            "work": work,
            "quiet": {way: round(ms, 2) for way, ms in quiet[work].items()},
            "busy": {way: round(ms, 2) for way, ms in busy[work].items()},
            "ours against the best when quiet": round(quiet[work]["ours"] / min(quiet[work].values()), 3),
            "busy against quiet": round(busy[work]["ours"] / quiet[work]["ours"], 2),
        }
        for work in works
    ]
    threads = torch.get_num_threads()
    print(json.dumps({"what": "ms a step or token", "threads": threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
