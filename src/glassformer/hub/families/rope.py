"""Rotary positions in config.json: their base and scaling, under the keys of transformers 4 and of transformers 5."""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError
from glassformer.models import ModelConfig

# The kinds of rotary scaling that both know. Ours has `ntk` besides, theirs `dynamic` and `longrope`.
SCALINGS = ("linear", "yarn", "llama3")


def rope_keys(c: ModelConfig, **also: Any) -> dict[str, Any]:
    """Base and scaling under the old keys and the new one: transformers 4 reads the first two, transformers 5 the last.

    also: further keys of the dictionary.
    """
    scaling = scaling_keys(c)
    return {
        "rope_theta": c.rotary_base,
        **({} if c.rotary_scaling is None else {"rope_scaling": {**scaling, **also}}),
        "rope_parameters": {**scaling, "rope_theta": c.rotary_base, **also},
    }


def scaling_keys(c: ModelConfig) -> dict[str, Any]:
    """The scaling alone."""
    return {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()


def rope_of(given: dict[str, Any]) -> dict[str, Any]:
    """The dictionary about rotary positions, under its old or its new name; transformers asks the old one first."""
    return given.get("rope_scaling") or given.get("rope_parameters") or {}


def scaling_of(rope: dict[str, Any], block_size: int, known: tuple[str, ...] = SCALINGS) -> dict[str, Any] | None:
    """What `rope_parameters` (transformers 5) or `rope_scaling` (transformers 4) hold beside the base. Raises
    `ModelFolderError` for a kind of scaling that is not among the `known` ones."""
    aside = ("type", "rope_theta", "partial_rotary_factor")
    keys = {name: value for name, value in rope.items() if name not in aside and value is not None}
    kind = keys.setdefault("rope_type", rope.get("type", "default"))  # "type": before 2024
    if kind == "default":
        return None
    if kind not in known:
        raise ModelFolderError(f"rotary scaling {kind!r} is not supported; {', '.join(known)} and default are")
    if kind == "linear":
        keys.pop("original_max_position_embeddings", None)  # it has no use for it
    else:
        keys.setdefault("original_max_position_embeddings", block_size)
    return keys
