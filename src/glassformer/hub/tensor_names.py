"""Names of tensors as programs save them, brought to the names that a family's table has.

What wraps a model puts its own word into every name, and a file saved from the base class of a family lacks the first
component, or has one too many when the model was a part of another:

    _orig_mod.model.layers.0...     torch.compile
    module.model.layers.0...        DataParallel and DDP
    layers.0...                     LlamaModel, where LlamaForCausalLM has model.layers.0...
    bert.encoder.layer.0...         BertForMaskedLM, where BertModel has encoder.layer.0...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from glassformer.errors import ModelFolderError
from glassformer.hub.families.weight_table import Tensors

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
OUTER_WRAPPER = "module"  # an ordinary word, so only in front


def match_names(theirs: Tensors, expected: Collection[str], base: str) -> Tensors:
    """The same tensors under the names that are expected, as far as these differ by wrappers and by what stands in
    front. Names that fit nothing are kept, so that they are refused as what they are.

    Args:
        expected: every name of the family's table.
        base: what stands in front of the names of the model without its head, `model.` or "".

    Raises:
        ModelFolderError: two tensors would have one name.
    """
    wanted = set(expected)
    unwrapped = _renamed(theirs, {name: _unwrapped(name, wanted) for name in theirs})
    base = base if any(name.startswith(base) for name in wanted) else ""
    inner = {name.removeprefix(base) for name in wanted if name.startswith(base)}
    front = _front(unwrapped, inner)
    if front == base:
        return unwrapped
    parts = {name.split(".", 1)[0] for name in inner}
    outer = front.removesuffix(base) if base and front.endswith(base) else ""  # also in front of the head
    return _renamed(unwrapped, {name: _moved(name, front, base, outer, parts) for name in unwrapped})


def _unwrapped(name: str, wanted: set[str]) -> str:
    if name in wanted:
        return name
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while parts and parts[0] == OUTER_WRAPPER:
        parts = parts[1:]
    return ".".join(parts)


def _front(theirs: Tensors, inner: set[str]) -> str:
    """What stands before most of the names that follow the base; "" where none of them is found."""
    found: Counter[str] = Counter()
    for name in theirs:
        at = 0
        while at >= 0:
            if name[at:] in inner:
                found[name[:at]] += 1
            at = name.find(".", at) + 1 or -1
    return max(found, key=lambda front: (found[front], -len(front))) if found else ""


def _moved(name: str, front: str, base: str, outer: str, parts: set[str]) -> str:
    if name.startswith(front) and name.removeprefix(front).split(".", 1)[0] in parts:
        return base + name.removeprefix(front)
    return name.removeprefix(outer)


def _renamed(theirs: Tensors, names: dict[str, str]) -> Tensors:
    renamed: Tensors = {}
    for old, tensor in theirs.items():
        new = names[old]
        if new in renamed:
            raise ModelFolderError(f"two tensors are {new}, one of them as {old}; keep one of them")
        renamed[new] = tensor
    return renamed
