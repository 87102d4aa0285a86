"""Milliseconds of one optimizer step: Muon matrix by matrix as published, ours, and AdamW (PyTorch's and ours).

    python benchmarks/optimizer_step.py [--rounds 15]

Prints JSON. All sides step in turn in one process over the same gradients; medians. The published form is written here
in plain torch: one matrix after the other (each head's query, key and value is one), the iteration as it stands in the
paper; ours takes all matrices of one shape at once and multiplies on their smaller side. `difference` is how far the
two parameters lie apart after all steps, relative to what the steps moved: the same is learned.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

from glassformer.models import Decoder, ModelConfig
from glassformer.threads import set_threads
from glassformer.training.optimizers import build_optimizer
from glassformer.training.optimizers.muon import POLAR_EXPRESS

SHAPES = [(2, 96, 4), (4, 192, 6), (6, 192, 6), (3, 256, 8), (6, 384, 6)]  # layers, width, heads
MUON = {"learning_rate": 1e-3, "matrix_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.0}


def published_muon(parameters: dict[str, torch.nn.Parameter], rows: dict[str, list[int]]) -> Callable[[], None]:
    """A step over the matrices of `parameters`, one by one; `rows[name]` are the heights of the matrices in one."""
    means = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step() -> None:
        for name, p in parameters.items():
            means[name].lerp_(p.grad, 1 - 0.95)
            ahead = p.grad.lerp(means[name], 0.95)
            for matrix, part in zip(ahead.split(rows[name]), p.split(rows[name]), strict=True):
                x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
                x = x / (x.norm() * 1.01 + 1e-7)
                for a, b, c in POLAR_EXPRESS[:3]:
                    square = x @ x.T
                    x = a * x + (b * square + c * square @ square) @ x
                x = x.T if matrix.shape[0] > matrix.shape[1] else x
                part.add_(x, alpha=-0.02 * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)

    return step


def measure(n_layer: int, n_embd: int, n_head: int, rounds: int) -> dict[str, object]:
    torch.manual_seed(0)
    start = Decoder(
        ModelConfig.make(
            family="modern", vocab_size=65, block_size=256, n_layer=n_layer, n_embd=n_embd, n_head=n_head, bias=False
        )
    )
    models = {name: copy.deepcopy(start) for name in ("muon", "published_muon", "adamw", "torch_adamw")}
    for model in models.values():
        torch.manual_seed(1)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
    ours = build_optimizer("muon", models["muon"], **MUON)
    muon = ours.parts[0]  # without AdamW's share, which both sides have
    rows: dict[str, list[int]] = {name: [] for name in muon.parameters}
    for (height, _), places in muon.groups.items():
        for name, _, _ in places:
            rows[name].append(height)
    table = dict(models["published_muon"].named_parameters())
    theirs = torch.optim.AdamW(models["torch_adamw"].parameters(), lr=1e-3, fused=True)
    steps: dict[str, Callable[[], object]] = {
        "muon": muon.step,
        "published_muon": published_muon({name: table[name] for name in rows}, rows),
        "adamw": build_optimizer("adamw", models["adamw"], **MUON).step,
        "torch_adamw": theirs.step,
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):  # the first two warm up
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[2:]) * 1e3 for name, values in seconds.items()}
    before = dict(start.named_parameters())
    gap = sum(float((table[n] - p).detach().square().sum()) for n, p in muon.parameters.items())
    moved = sum(float((before[n] - p).detach().square().sum()) for n, p in muon.parameters.items())
    return {
        "model": f"{n_layer} x {n_embd}",
        "parameters": start.parameter_count(),
        **{name: round(value, 2) for name, value in medians.items()},
        "ratio": round(medians["published_muon"] / medians["muon"], 2),
        "difference": float(f"{(gap / moved) ** 0.5:.1e}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    threads = set_threads()
    rows = [measure(*shape, args.rounds) for shape in SHAPES]
    print(json.dumps({"what": "optimizer step, ms", "threads": threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
