"""Initialisation: where training starts from. A recipe chooses one by name (`training.init`)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

# The two matrices of each block that write into the residual stream.
WRITES = ("attention.out.weight", "feedforward.down.weight")


def _writes(name: str) -> bool:
    """Also the `down` of each expert of a mixture."""
    return name.endswith(WRITES) or (".experts." in name and name.endswith("down.weight"))


def _table(name: str) -> bool:
    """Tables that are looked up, not multiplied with."""
    return name.endswith(
        (
            "embedding.token.weight",
            "embedding.segment.weight",
            "embedding.timestep.weight",
            "positions.weight",
            "class_token",
            "distillation_token",
        )
    )


def gpt2_init(model: nn.Module, n_layer: int) -> None:
    """GPT-2's (Radford et al. 2019, sect. 2.3): normal with deviation 0.02, biases zero; the matrices that write into
    the residual stream by 1/sqrt(2 n_layer) less, so that the sum of all writes keeps its scale with depth."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layer) if _writes(name) else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def unit_init(model: nn.Module, n_layer: int) -> None:
    """Everything at the scale of one: embeddings with deviation 0.3, matrices with 1/sqrt(inputs), so that vectors keep
    their length; what writes into the residual stream, joint n-grams and an untied head start at zero, so that each
    block is at first an identity and every token equally likely. Suits Muon and larger rates (as in modded-nanogpt);
    wants an untied head, for a tied one would begin with logits as wide as the vectors are long."""
    for name, parameter in model.named_parameters():
        if _writes(name) or name.endswith(("bias", "head.weight")) or ".n_grams.joint." in name:
            nn.init.zeros_(parameter)
        elif _table(name):
            nn.init.normal_(parameter, std=0.3)
        elif ".n_grams.back." in name:
            nn.init.normal_(parameter, std=0.15)
        elif parameter.dim() >= 2:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))


def xavier_init(model: nn.Module, n_layer: int) -> None:
    """The Transformer's of 2017 in its published code (tensor2tensor): matrices uniform with the same variance forward
    and backward (Glorot and Bengio 2010), tables with deviation C^-1/2, which the embedding's scale makes one."""
    for name, parameter in model.named_parameters():
        if _table(name):
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif parameter.dim() >= 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


INITS: dict[str, Callable[[nn.Module, int], None]] = {"gpt2": gpt2_init, "unit": unit_init, "xavier": xavier_init}
