"""Where a layer's gradient is written out: in training on a CPU, where autograd takes a pass over memory for each step
of the formula, and keeps what lies between. Elsewhere autograd, or a compiler, does it. A test holds both equal."""

from __future__ import annotations

import torch
from torch import Tensor


def pays_by_hand(*tensors: Tensor) -> bool:
    """Whether the hand-written form of an operation on these tensors is used: a gradient is wanted, all are of one
    format of 4 bytes or more on a CPU, and nothing compiles."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.element_size() >= 4
        and all(x.dtype == first.dtype for x in tensors)
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in tensors)
        and not torch.compiler.is_compiling()
    )
