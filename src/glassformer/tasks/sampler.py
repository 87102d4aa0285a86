"""The sampler: a faster copy of the model answers, and importance weights make up for the difference.

    w = min(p / q, cap)         p, q: probability of a token at the roll-out, in the trainer and in the sampler

w multiplies the advantage of each token. An answer is drawn from q and the gradient is wanted under p; E_q[p / q f] =
E_p[f]. Truncation bounds the variance: IMPALA (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, section 4.1),
Ionides 2008, https://doi.org/10.1198/106186008X320456; for a sampler of lower precision than the trainer: Yao et al.
2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", https://fengyao.notion.site/off-policy-rl.

For an answer of one token this is exact where no weight is truncated. In a longer one the weight of a token leaves out
those of the tokens before and after it, whose product would vary the more the longer the answer is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import DeviceError, UsageError
from glassformer.hub.loading import as_dtype
from glassformer.layers.lora import merged_copy
from glassformer.native import QuantizedLinear, library
from glassformer.tasks.rollouts import RollOut

CAP = 2.0
"""Most that a weight may be where nothing else is set."""


def sampler_of(model: Any, dtype: str) -> Any:
    """The model itself (fp32), or a copy of its present weights in bf16, int8 or int4, adapters merged.

    Raises:
        DeviceError: int8 or int4 on a GPU, or without a C++ compiler.
        UsageError: int8 or int4, and none of the model's matrices can be rounded.
    """
    if dtype == "fp32":
        return model
    given, twin = f"task.rollout_dtype={dtype}", merged_copy(model)
    if dtype == "bf16":
        return as_dtype(copy.deepcopy(twin), dtype)  # which changes weights in place
    if next(model.parameters()).device.type != "cpu":
        raise DeviceError(f"{given} is for the CPU; on a GPU use bf16")
    if library() is None:
        raise DeviceError(f"{given} needs a C++ compiler (g++, or $CXX); install one, or use fp32")
    twin = as_dtype(twin, dtype)
    if not any(isinstance(module, QuantizedLinear) for module in twin.modules()):
        raise UsageError(
            f"{given} rounds matrices whose width is a multiple of 32, and this model has none "
            f"(n_embd={model.config.n_embd}); leave it out"
        )
    return twin


def log_ratios(rollouts: Sequence[RollOut], log_probs_BT: Tensor, counts_BT: Tensor) -> Tensor:
    """log p - log q of each counted token, 0 elsewhere, (B, T). log_probs_BT: log p."""
    q_N = torch.tensor([p for r in rollouts for p in r.log_probs], dtype=log_probs_BT.dtype)
    return log_probs_BT - torch.zeros_like(log_probs_BT).masked_scatter(counts_BT, q_N)


def distance(log_ratios_N: Tensor, cap: float | None) -> tuple[float, float, float]:
    """How far the sampler is from the trainer: the largest |log p - log q|, KL(q || p) of a token in nats, and the
    share of weights that are truncated. The KL is Schulman's k3, p / q - 1 - log(p / q), mean over tokens."""
    if not len(log_ratios_N):
        return 0.0, 0.0, 0.0
    x_N = log_ratios_N.double()
    truncated = 0.0 if cap is None else float((x_N.exp() > cap).double().mean())
    return float(x_N.abs().max()), float((x_N.exp() - 1 - x_N).mean()), truncated
