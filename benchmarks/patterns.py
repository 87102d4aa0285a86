"""Memory and time of a window over 1,024 to 32,768 tokens: in chunks, and as the mask of the whole matrix.

    python benchmarks/patterns.py [--width 256] [--sinks 4] [--lengths 1024 2048 ...] [--memory 8]

Prints JSON, and a table to stderr. Forward and backward of attention alone, 4 heads of 64, fp32, batch 1. Three sides,
each in a process of its own, one after the other at each length:

    window    the pattern in chunks (`attend_locally`): what attention takes where a pattern looks only so far
    mask      the same pattern as a T x T mask of one kernel call: equal numbers, so long as it fits `--memory` GB
    causal    the kernel without a mask: everything before is seen, no matrix is kept, but each of its numbers is made

Milliseconds are medians of `--rounds` (one above 8,192 tokens, but for the window); `cpu_ms` is the processor's time in
all threads, which a crowd on the machine changes little. Megabytes are what the process's
peak resident memory grew by after the inputs were there: the mask, what the backward pass needs, three gradients.
`floats_a_token` divides them by the tokens: constant where memory grows with T x width, doubling where with T x T.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.layers import Mask, Sinks, Window
from glassformer.layers.sparse_attention import attend_locally, masked_attention
from glassformer.threads import set_threads

HEADS, HEAD_WIDTH = 4, 64
LENGTHS = [2**power for power in range(10, 16)]
SIDES = ("window", "mask", "causal")
MASK_BYTES = 5  # what an entry of the T x T mask takes at the peak: the float that the kernel adds, and a boolean


def attention(side: str, pattern: Mask) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attend(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> Tensor:
        if side == "causal":
            return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, is_causal=True)
        pos = torch.arange(q_BHTD.shape[2])
        if side == "window":
            return attend_locally(q_BHTD, k_BHSD, v_BHSD, pos, pos, pattern)
        return masked_attention(q_BHTD, k_BHSD, v_BHSD, pattern.mask(pos, pos))

    return attend


def step(attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor]) -> tuple[float, float]:
    """Milliseconds forward and backward, and those of them that the processor spent on it."""
    started, busy = time.perf_counter(), time.process_time()
    torch.autograd.grad(attend(*inputs).sum(), inputs)
    return (time.perf_counter() - started) * 1e3, (time.process_time() - busy) * 1e3


def peak_mb() -> float:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure(side: str, T: int, pattern: Mask, rounds: int) -> dict[str, float]:
    """One side at one length, in this process."""
    set_threads()
    generator, attend = torch.Generator().manual_seed(0), attention(side, pattern)

    def inputs(n: int) -> list[Tensor]:
        shape = (1, HEADS, n, HEAD_WIDTH)
        return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]

    step(attend, inputs(256))  # what the first call costs, and the kernels' own memory
    drawn = inputs(T)
    before = peak_mb()
    times = [step(attend, drawn) for _ in range(rounds)]
    grown = peak_mb() - before
    wall, busy = (round(statistics.median(values), 1) for values in zip(*times, strict=True))
    return {"ms": wall, "cpu_ms": busy, "mb": round(grown, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--memory", type=float, default=8, help="GB that a mask may take")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a side and a length: what the processes are given
    args = parser.parse_args()
    pattern = Window(args.width) | Sinks(args.sinks) if args.sinks else Window(args.width)
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), pattern, args.rounds)))
        return
    shown = []
    print(f"{'T':>6} " + " ".join(f"{side + ' cpu':>11} {side + ' MB':>11}" for side in SIDES), file=sys.stderr)
    for T in args.lengths:
        row: dict[str, float | None] = {"T": T}
        for side in SIDES:
            if side == "mask" and args.memory * 1e9 < MASK_BYTES * T * T:
                row |= {"mask_ms": None, "mask_cpu_ms": None, "mask_mb": None}
                continue
            rounds = args.rounds if side == "window" or T <= 8192 else 1
            words = ["--width", args.width, "--sinks", args.sinks, "--rounds", rounds, "--one", side, T]
            command = [sys.executable, __file__, *map(str, words)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            row |= {f"{side}_{what}": found[what] for what in ("ms", "cpu_ms", "mb")}
            row[f"{side}_floats_a_token"] = round(found["mb"] * 2**20 / 4 / T)
        shown.append(row)
        cells = (
            f"{'-' if row[key] is None else row[key]:>11}" for side in SIDES for key in (f"{side}_cpu_ms", f"{side}_mb")
        )
        print(f"{T:>6} " + " ".join(cells), file=sys.stderr)
    result = {
        "what": f"attention along {pattern}, forward and backward, {HEADS} heads of {HEAD_WIDTH}, fp32",
        "threads": set_threads(),
        "rows": shown,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
