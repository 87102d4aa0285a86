"""kill -9 at random moments, then `resume`: does the run end in the very weights of one that was never stopped?

    python benchmarks/crash.py [--kills 100] [--seed 0] [--compile]

Prints JSON: how many kills, where they fell (before the first step, in a step, while something was being written) and
how many were survived: the run ended bit for bit like the undisturbed one, in the weights of the last checkpoint and of
`model/`, the state of the optimizer, and every line of the logs but the times, each step once. The exit code is 1
unless all of them were.

Each run is a process of its own, ended by SIGKILL: nothing in it can tidy up. Kills come shortly after a step drawn at
random; half of them wait until a file has begun to be written, so that they fall into saves. A resumed run is killed
again every third time. Dropout and accumulation are on; AdamW and Muon take turns; the run evaluates and saves every
few steps, in the middle of an epoch too. To be quick, processes are forked from one that has imported everything and
has done nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)

STEPS = 60
SETTINGS = [
    "model.n_layer=2",
    "model.n_head=2",
    "model.n_embd=32",
    "model.block_size=16",
    "tokenizer.kind=characters",
    f"training.steps={STEPS}",
    "training.batch_size=6",
    "training.micro_batch_size=4",
    "training.dropout=0.2",
    "training.eval_every=7",
    "training.checkpoint_every=5",
    "training.keep_checkpoints=2",
    "training.sample_every=20",
    "training.sample_tokens=5",
    "training.precision=fp32",
]
OPTIMIZERS = ("adamw", "muon")


def start(run: Path, text: Path, optimizer: str, more: list[str]) -> int:
    """Fork a process that trains, or resumes when there is something to resume; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(run.parent / f"{run.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        from glassformer import recipes

        if (run / "recipe.toml").exists():
            if not (run / "summary.json").exists():  # else it was killed after all was done
                recipes.resume(run)
        else:
            recipes.train(None, [*SETTINGS, f"training.optimizer={optimizer}", *more], data=str(text), out=run)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """Its exit code; -9 when it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def writing(run: Path) -> bool:
    """Whether something is half-written at this moment."""
    return any(run.glob(".*.part")) or any(run.glob(".*.old")) or any(run.glob("checkpoints/.*"))


def steps_done(run: Path) -> int:
    """Lines of its log."""
    return (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").exists() else 0


def kill(child: int, run: Path, step: int, at_a_save: bool) -> str | None:
    """Kill it some time after it has done `step` steps; where that fell, None when it had ended by itself."""
    while steps_done(run) < step or (at_a_save and not writing(run)):
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        time.sleep(0.0005)
    time.sleep(random.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    if wait(child) != -signal.SIGKILL:
        return None
    if writing(run):
        return "while writing"
    return "in a step" if steps_done(run) else "before the first step"


def ending(run: Path) -> dict[str, object]:
    """All that two runs must share."""
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    found: dict[str, object] = {"last": last.name, "samples": (run / "samples.jsonl").read_text()}
    for path in (last / "model", last / "optimizer.safetensors", run / "model"):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found[str(file.relative_to(run))] = file.read_bytes()
    for name in ("metrics.jsonl", "diagnostics.jsonl"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        found[name] = [{k: v for k, v in line.items() if "second" not in k and k != "mfu"} for line in lines]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compiled training (each process compiles anew)")
    args = parser.parse_args()
    random.seed(args.seed)
    import glassformer.recipes  # noqa: F401  # before the forks; no thread is started by it

    more = ["training.compile=on"] if args.compile else ["training.compile=off"]
    optimizers = OPTIMIZERS[:1] if args.compile else OPTIMIZERS
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLASSFORMER_CACHE"] = str(Path(folder) / "cache")
        text = Path(folder) / "text.txt"
        letters = random.Random(5)
        text.write_text("".join(letters.choice("abcde fghij\n") for _ in range(3000)))
        expected = {}
        for optimizer in optimizers:
            run = Path(folder) / f"whole-{optimizer}"
            if wait(start(run, text, optimizer, more)):
                sys.exit((run.parent / f"{run.name}.log").read_text())
            expected[optimizer] = ending(run)
        fell: dict[str, int] = {}
        runs = equal = kills = survived = 0
        while kills < args.kills:
            optimizer = optimizers[runs % len(optimizers)]
            run = Path(folder) / f"run-{runs}"
            again, before = True, kills
            while again and kills < args.kills:
                step = random.randint(steps_done(run), STEPS)
                where = kill(start(run, text, optimizer, more), run, step, at_a_save=random.random() < 0.5)
                if where is None:
                    break
                kills += 1
                fell[where] = fell.get(where, 0) + 1
                again = random.random() < 1 / 3
            code = wait(start(run, text, optimizer, more))
            runs += 1
            same = code == 0 and ending(run) == expected[optimizer]
            equal += same
            survived += (kills - before) * same
            if not same:
                print(f"run {runs}: {(run.parent / f'{run.name}.log').read_text() or 'differs'}", file=sys.stderr)
            print(f"\r{kills} of {args.kills} kills, {equal} of {runs} runs equal", end="", file=sys.stderr)
        print(file=sys.stderr)
        result = {
            "what": "runs that ended bit for bit like one that was never stopped",
            "kills": kills,
            "survived": survived,
            "fell": fell,
            "runs": runs,
            "equal": equal,
            "compiled": args.compile,
        }
        print(json.dumps(result, indent=2))
        sys.exit(equal != runs)


if __name__ == "__main__":
    main()
