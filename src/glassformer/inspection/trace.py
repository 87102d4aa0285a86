"""Watch a model while it computes, and change what it computes.

    with gf.trace(model, "blocks.*.attention.pattern") as seen:
        model(ids)
    seen["blocks.3.attention.pattern"]            (B, H, T, S)
    seen.axes("blocks.3.attention.pattern")       "BHTS"

    with gf.ablate(model, "blocks.3.attention.heads", H=2):
        model(ids)                                as if head 2 of block 3 wrote nothing

Names are those of the taps (`inspection.tap_names(model)`), and `*` stands for anything. Watching and changing end with
the block, also when it fails. Blocks can be nested: the outer one comes first.

Axes: B batch, T query positions, S key positions, C channels, H heads, K key-value heads, D width of a head,
F hidden neurons, V vocabulary or classes, E experts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.taps import listening, named_taps

LIMIT_BYTES = 1 << 30

AXES = {
    "attention.query": "BHTD",
    "attention.key": "BKTD",
    "attention.value": "BKTD",
    "attention.scores": "BHTS",
    "attention.pattern": "BHTS",
    "attention.heads": "BHTD",
    "attention.output": "BTC",
    "cross_attention.key": "BKSD",
    "cross_attention.value": "BKSD",
    "feedforward.hidden": "BTF",
    "feedforward.output": "BTC",
    "residual.before": "BTC",
    "residual.middle": "BTC",
    "residual.after": "BTC",
    "embedding.token": "BTC",
    "embedding.position": "BTC",
    "n_grams.sum": "BTC",
    "final.norm": "BTC",
    "pooled": "BC",
    "logits": "BTV",
}
"""What the axes of a tap are, by the end of its name."""


class Trace(Mapping[str, Tensor]):
    """What was seen: tensors by the names of their taps, detached from the graph of gradients.

    A tap that was passed several times (a token at a time, with a cache) has the last tensor under its name, and all
    of them in `calls(name)`.
    """

    def __init__(self, names: list[str], limit_bytes: int):
        self.names, self.limit_bytes = names, limit_bytes
        self._calls: dict[str, list[Tensor]] = {}
        self._bytes = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.calls(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def calls(self, name: str) -> list[Tensor]:
        """Every tensor that passed this tap, in order.

        Raises:
            UsageError: it is not watched, or nothing has passed it.
        """
        if name in self._calls:
            return self._calls[name]
        if name in self.names:
            raise UsageError(f"nothing has passed {name} yet; run the model inside the block")
        raise UsageError(f"{name!r} is not watched here; {did_you_mean(name, self.names)}")

    def axes(self, name: str) -> str:
        """A letter for each axis of a tensor."""
        return axes_of(name, self[name].dim())

    def pick(self, name: str, **index: int | slice) -> Tensor:
        """A part, by the letters of its axes: `seen.pick("blocks.0.attention.pattern", B=0, H=2)` is (T, S).

        Raises:
            UsageError: it has no such axis, or the axis is not as long.
        """
        return self[name][_places(name, self[name], index)]

    def keep(self, name: str, x: Tensor) -> None:
        """Add a tensor.

        Raises:
            UsageError: that would be more than `limit_bytes`.
        """
        self._bytes += x.numel() * x.element_size()
        if self._bytes > self.limit_bytes:
            most = f"{self.limit_bytes:,} bytes"
            raise UsageError(f"watching {name} would keep more than {most}; watch fewer names, or raise limit_bytes")
        self._calls.setdefault(name, []).append(x.detach())

    def __repr__(self) -> str:
        lines = []
        for name, calls in self._calls.items():
            sizes = " ".join(f"{a}={n}" for a, n in zip(self.axes(name), calls[-1].shape, strict=True))
            lines.append(f"{name}  {sizes}{f'  ({len(calls)} calls)' if len(calls) > 1 else ''}")
        return "\n".join(lines) or f"Trace of {len(self.names)} taps: nothing has passed them yet"


@contextlib.contextmanager
def trace(model: nn.Module, *patterns: str, limit_bytes: int = LIMIT_BYTES) -> Iterator[Trace]:
    """Keep what passes the taps whose names match, while the block lasts; without a pattern: all of them.

    Raises:
        UsageError: no tap matches a pattern; the nearest name is given. Inside the block: more than `limit_bytes`.
    """
    seen = Trace([], limit_bytes)
    with _uncompiled(), listening(model, patterns or "*", seen.keep) as seen.names:
        yield seen


@contextlib.contextmanager
def edit(
    model: nn.Module,
    pattern: str | Sequence[str],
    change: Callable[[str, Tensor], Tensor | None],
    **index: int | slice,
) -> Iterator[None]:
    """Put what `change(name, part)` returns in the place of a part of each matching tensor, while the block lasts.

    The tensor itself stays unchanged: the layers after it get a copy. None changes nothing. index: which
    part, by the letters of the axes; T counts the tokens of one call, which with a cache is often one.

    Raises:
        UsageError: no tap matches. Inside the block: there is no such part.
    """

    def changed(name: str, x: Tensor) -> Tensor | None:
        places = _places(name, x, index)
        new = change(name, x[places])
        if new is None:
            return None
        copy = x.clone()
        copy[places] = new
        return copy

    with _uncompiled(), listening(model, pattern, changed):
        yield


def scale(model: nn.Module, pattern: str, factor: float, **index: int | slice) -> Any:
    """`edit`: multiply. `scale(model, "blocks.*.attention.heads", 2.0, H=1)` doubles what heads 1 write."""
    return edit(model, pattern, lambda name, part: part * factor, **index)


def ablate(model: nn.Module, pattern: str, **index: int | slice) -> Any:
    """`edit`: zeros in its place. A head: `"blocks.3.attention.heads", H=2`; a neuron:
    `"blocks.3.feedforward.hidden", F=17`; a whole feed-forward: `"blocks.3.feedforward.output"`."""
    return edit(model, pattern, lambda name, part: torch.zeros_like(part), **index)


def patch(model: nn.Module, pattern: str, activation: Tensor, **index: int | slice) -> Any:
    """`edit`: what another run had there; `activation` is what `Trace.pick` gives with the same index.

    Raises inside the block:
        UsageError: it has another shape than what it stands for.
    """

    def put(name: str, part: Tensor) -> Tensor:
        if activation.shape != part.shape:
            raise UsageError(
                f"{name}: the patch is {tuple(activation.shape)} and what it stands for {tuple(part.shape)}; "
                "take it from a text of equal length, with the same index"
            )
        return activation.to(part)

    return edit(model, pattern, put, **index)


def add(model: nn.Module, pattern: str, vector: Tensor, **index: int | slice) -> Any:
    """`edit`: add a vector, which is repeated along the axes that it lacks (steering)."""
    return edit(model, pattern, lambda name, part: part + vector.to(part), **index)


def tap_names(model: nn.Module) -> list[str]:
    """What can be watched, in the order of the modules."""
    return list(named_taps(model))


def axes_of(name: str, dim: int) -> str:
    """The letters of a tap's axes; `?` where they are not known.

    >>> axes_of("blocks.3.attention.pattern", 4), axes_of("decoder.blocks.0.cross_attention.key", 4)
    ('BHTS', 'BKSD')
    """
    parts = name.split(".")
    axes = AXES.get(".".join(parts[-2:])) or AXES.get(parts[-1])
    if axes is None and len(parts) > 1:
        axes = AXES.get(f"{parts[-2].removeprefix('cross_')}.{parts[-1]}")
    if axes is not None and len(axes) == dim + 1:  # pooled, or one vector a row
        axes = axes.replace("T", "", 1)
    return axes if axes is not None and len(axes) == dim else "?" * dim


def _places(name: str, x: Tensor, index: Mapping[str, int | slice]) -> tuple[Any, ...]:
    """An index of a tensor from one by letters."""
    axes = axes_of(name, x.dim())
    places: list[Any] = [slice(None)] * x.dim()
    for letter, place in index.items():
        if letter not in axes:
            raise UsageError(f"{name} has the axes {axes} and no {letter}")
        size = x.shape[axes.index(letter)]
        if isinstance(place, int) and not -size <= place < size:
            raise UsageError(f"{name}: {letter}={place} is out of range; there are {size} (0 to {size - 1})")
        places[axes.index(letter)] = place
    return tuple(places)


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Run a compiled model uncompiled: compiled code has no listeners."""
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
