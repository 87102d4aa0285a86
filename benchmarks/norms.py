"""Norms of bf16 vectors with an fp32 scale, as under autocast: milliseconds and errors of the ways to compute them.

    python benchmarks/norms.py [--rounds 25]

Prints JSON: forward and backward, one thread, medians of turns. `wrong` is the share of results that differ from
float64 rounded to bf16, `scale_gradient` the largest error of the scale's gradient as a share of its largest entry.
`mixed` gives PyTorch both formats as they are, `narrow` rounds the scale to bf16, `ours` is `glassformer.layers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.layers import NORMS, LayerNorm

SHAPES = [(12, 6, 64, 32), (16, 6, 128, 64), (16, 128, 384), (8, 1024, 384)]  # heads of (B, H, T, D), vectors (B, T, C)
EPS = 1e-6


def ways(kind: str, norm: torch.nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """The ways to compute a norm."""
    function = F.layer_norm if kind == "layernorm" else F.rms_norm

    def pytorch(x: Tensor, scale: Tensor) -> Tensor:
        return function(x, scale.shape, scale, eps=EPS)

    return {
        "mixed": lambda x: pytorch(x, norm.weight),
        "narrow": lambda x: pytorch(x, norm.weight.to(x.dtype)),
        "ours": norm,
    }


def measure(kind: str, shape: tuple[int, ...], rounds: int) -> list[dict[str, object]]:
    """One row a way."""
    torch.manual_seed(0)
    options = {"bias": False} if NORMS[kind] is LayerNorm else {}
    norm, exact = (NORMS[kind](shape[-1], eps=EPS, **options) for _ in range(2))
    torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    exact.double().weight.data.copy_(norm.weight)
    x, g = torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16()
    expected = exact(x.double())
    expected.backward(g.double())
    times: dict[str, list[float]] = {}
    rows: dict[str, dict[str, object]] = {}
    for _ in range(rounds + 2):
        for name, way in ways(kind, norm).items():
            norm.weight.grad, inputs = None, x.clone().requires_grad_()
            started = time.perf_counter()
            y = way(inputs)
            y.backward(g)
            times.setdefault(name, []).append(time.perf_counter() - started)
            error = (norm.weight.grad.double() - exact.weight.grad).abs().max() / exact.weight.grad.abs().max()
            wrong = (y != expected.bfloat16()).float().mean()
            rows[name] = {"wrong": round(float(wrong), 4), "scale_gradient": float(f"{error:.1e}")}
    return [
        {"norm": kind, "shape": shape, "way": name, "ms": round(1e3 * statistics.median(times[name][2:]), 2), **row}
        for name, row in rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what `mixed` brings with it
    rows = [row for kind in ("rmsnorm", "layernorm") for shape in SHAPES for row in measure(kind, shape, args.rounds)]
    print(json.dumps({"what": "norms of bf16 vectors with an fp32 scale", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
