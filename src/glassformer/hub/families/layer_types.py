"""`layer_types` of config.json, which names the layers that see all and those with a window, as patterns of ours."""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError, plural
from glassformer.layers import Causal, Window
from glassformer.models import ModelConfig

LOCAL, FULL = "sliding_attention", "full_attention"
MOST_LAYERS = 1000  # more is refused afterwards, by `ModelConfig`


def are_windows_of_one_width(c: ModelConfig) -> bool:
    """Whether all layers see all or have a window, and all windows are alike."""
    masks = c.layer_masks()
    windows = {mask for mask in masks if isinstance(mask, Window)}
    return len(windows) <= 1 and all(isinstance(mask, (Causal, Window)) for mask in masks)


def window_of(c: ModelConfig) -> int | None:
    """The width of the windows; None where there are none."""
    return next((mask.width for mask in c.layer_masks() if isinstance(mask, Window)), None)


def types_of(c: ModelConfig) -> list[str]:
    """The type of each layer."""
    return [LOCAL if isinstance(mask, Window) else FULL for mask in c.layer_masks()]


def every(n: int, n_layer: int) -> list[str]:
    """The types of layers: every n-th sees all."""
    return [LOCAL if (number + 1) % n else FULL for number in range(min(n_layer, MOST_LAYERS))]


def behind(n: int, n_layer: int) -> list[str]:
    """The types of layers: the first n see all, and the others have a window."""
    return [FULL if number < n else LOCAL for number in range(min(n_layer, MOST_LAYERS))]


def patterns_of(types: list[str], n_layer: int, window: Any) -> list[str] | None:
    """Our masks for these layers, as few as possible; None where all see all. Raises `ModelFolderError` if there are
    more or fewer types than layers, one is unknown, or a window has no width."""
    if len(types) != n_layer and n_layer <= MOST_LAYERS:
        raise ModelFolderError(f"layer_types names {plural(len(types), 'layer')} where num_hidden_layers={n_layer}")
    if unknown := [kind for kind in types if kind not in (LOCAL, FULL)]:
        raise ModelFolderError(f"layer_types: {unknown[0]!r} is not supported; {LOCAL} and {FULL} are")
    if LOCAL not in types:
        return None
    if not window:
        raise ModelFolderError(f"sliding_window={window} where layer_types has windows; give it a width")
    return shortest([f"window({window})" if kind == LOCAL else "causal" for kind in types])


def shortest(cycle: list[Any]) -> list[Any]:
    """The shortest beginning that, repeated, gives all of it.

    >>> shortest([1, 2, 1, 2, 1]), shortest([1, 1, 2])
    ([1, 2], [1, 1, 2])
    """
    period = next(n for n in range(1, len(cycle) + 1) if all(cycle[i] == cycle[i % n] for i in range(len(cycle))))
    return cycle[:period]
