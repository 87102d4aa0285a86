"""Milliseconds of attention, forward and backward, by the fused kernel and written out, over shapes and precisions.

    python benchmarks/attention_paths.py [--rounds 15]

Prints JSON. Both paths run in turn in one process on the same input; medians. It is what `EAGER_MAX_KEYS` in
`layers/attention.py` is set by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from unittest import mock

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

from glassformer.layers import Attention, Causal, NoPositions, attention
from glassformer.threads import set_threads
from glassformer.training import autocast, choose_precision

SHAPES = [(12, 64, 128, 4), (32, 64, 128, 4), (16, 128, 128, 4), (16, 128, 384, 6), (8, 256, 384, 6), (2, 1024, 384, 6)]
PATHS = {"fused": 0, "eager": 10**9}  # up to how many keys the eager path is taken


def milliseconds(layer: Attention, x_BTC: torch.Tensor, precision: str, limit: int) -> float:
    """One forward and backward pass."""
    with mock.patch.object(attention, "EAGER_MAX_KEYS", limit):
        started = time.perf_counter()
        with autocast(precision, "cpu"):
            y_BTC = layer(x_BTC, torch.arange(x_BTC.shape[1]), NoPositions(), Causal())
        y_BTC.sum().backward()
        return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    threads = set_threads()
    rows = []
    for precision in dict.fromkeys(("fp32", choose_precision("auto", "cpu"))):  # bf16 only where it is native
        for B, T, C, H in SHAPES:
            torch.manual_seed(0)
            layer = Attention(
                n_embd=C, n_head=H, n_kv_head=H, head_width=C // H, bias=False, qk_norm=False, norm_eps=1e-5
            )
            x_BTC = torch.randn(B, T, C, requires_grad=True)
            times: dict[str, list[float]] = {path: [] for path in PATHS}
            for _ in range(args.rounds + 2):  # the first two warm up
                for path, limit in PATHS.items():
                    times[path].append(milliseconds(layer, x_BTC, precision, limit))
            medians = {path: round(statistics.median(values[2:]), 2) for path, values in times.items()}
            rows.append({"precision": precision, "B": B, "T": T, "C": C, "H": H, **medians})
    print(json.dumps({"what": "attention, ms forward and backward", "threads": threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
