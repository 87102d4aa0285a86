"""What this machine can multiply: the peak against which the utilisation of a run is shown.

    utilisation = operations a token * tokens a second / (peak * devices)

Operations a token by PaLM's convention (`models.flops_per_token`); the peak is not a data sheet's but that of a matrix
product, measured here. So 1 is what PyTorch reaches with nothing but products, and is beaten by noise alone.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch

SECONDS = 0.15  # what measuring may take
# Width of the square matrices: on a GPU as large as keeps all of it busy; on a CPU a product takes milliseconds, so
# that among fifty some are disturbed by nobody.
WIDTH = {"cpu": 512, "cuda": 8192}


def peak_flops(device: str = "cpu", precision: str = "fp32") -> float:
    """Operations a second of a matrix product on this device in `fp32` or `bf16`: the best one within a moment.

    Measured once in a process, with the threads in force. On a machine that others use too it is what is left.
    """
    return _measured(device, precision, torch.get_num_threads())


@lru_cache(maxsize=16)
def _measured(device: str, precision: str, threads: int) -> float:
    kind = device.split(":")[0]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = WIDTH[kind]
    a = torch.ones(n, n, device=device, dtype=dtype)
    out = a @ a  # libraries wake up, kernels are chosen
    best, until = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < until:
        _wait(kind)
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(kind)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()
