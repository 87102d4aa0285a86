"""The matrices of a model as floats, also of one that keeps them in 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from glassformer.layers import Int8Linear
from glassformer.native.quantized import QuantizedLinear


def is_compressed(module: nn.Module) -> bool:
    """Whether a layer keeps its matrix in fewer bits."""
    return isinstance(module, (Int8Linear, QuantizedLinear))


def matrix_of(layer: Any) -> Tensor:
    """The matrix (out, in) that a linear layer multiplies with."""
    if isinstance(layer, QuantizedLinear):
        return layer.dequantized()
    if isinstance(layer, Int8Linear):
        return layer.weight.float() * layer.scale[:, None]
    weight: Tensor = layer.weight
    return weight.detach()


def format_of(layer: Any) -> str:
    """What the numbers of a compressed layer are kept in."""
    return f"{layer.bits} bits" if isinstance(layer, QuantizedLinear) else "int8"


def weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, the module that holds it, its name there) of every parameter and every compressed matrix, in the order of
    the modules; what is there under two names once."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        if is_compressed(module):
            yield f"{dot}weight", module, "weight"
        for field, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{dot}{field}", module, field
