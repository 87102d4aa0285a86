"""Rotary scaling: how a model that was trained on short texts reads longer ones, by turning its pairs more slowly.

A pair of channels with frequency f (radians a position) comes round every 2 pi / f positions. Fast pairs tell near
neighbours apart and come round many times within the lengths seen in training; slow pairs never come round, so that
positions beyond training show them angles that they never met. The ways differ in which pairs they slow down:

    linear   all by `factor`: positions are interpolated. Chen et al. 2023, https://arxiv.org/abs/2306.15595
    ntk      the slowest by `factor`, the fastest not at all, by a larger base ("NTK-aware", bloc97, 2023)
    yarn     pairs that come round less than `beta_slow` times in training by `factor`, more than `beta_fast` times not
             at all, a ramp between; scores sharpened by an `attention_factor`. Peng et al. 2023,
             https://arxiv.org/abs/2309.00071, eq. 20 to 24
    llama3   the same idea with limits by wavelength and another ramp (Llama 3.1, 2024)
    longrope each by a factor of its own that was searched for; Ding et al. 2024, https://arxiv.org/abs/2402.13753

The words are Hugging Face's (`rope_scaling`, later `rope_parameters`), all but `ntk`, which it has for growing lengths
only ("dynamic").
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import UsageError, did_you_mean


class Scaled(NamedTuple):
    """Frequencies (n,) float64 in radians a position, and what cosines and sines are multiplied with."""

    frequency: Tensor
    amplitude: float = 1.0


def rotated_channels(head_width: int, fraction: float = 1.0) -> int:
    """How many channels of a head turn when a `fraction` of them shall, rounded down.

    >>> rotated_channels(80, 0.4)
    32

    Raises:
        UsageError: what turns would not be pairs.
    """
    width = int(head_width * fraction)
    if width % 2 or not width:
        raise UsageError(
            f"head_width={head_width} with rotary_fraction={fraction} turns {width} channels; rotary positions turn "
            "pairs of them: make it an even number, 2 or more"
        )
    return width


def rotary_frequencies(width: int, base: float, scaling: Mapping[str, Any] | None = None) -> Scaled:
    """The frequencies of `width` / 2 pairs of channels, base^(-2i / width), scaled as asked.

    Args:
        width: rotated channels of a head, even. base: the longest wavelength is nearly 2 pi base.
        scaling: `rope_type` ("default" or one of `ROTARY_SCALINGS`) and the words of that type; None for default.

    >>> rotary_frequencies(4, 100.0, {"rope_type": "linear", "factor": 2.0}).frequency.tolist()
    [0.5, 0.05]

    Raises:
        UsageError: the type or a word is unknown, a word is missing, or two numbers do not fit together. The range of
            each number is checked by `ModelConfig`.
    """
    frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)  # (width/2,)
    words = dict(scaling or {})
    legacy = words.pop("type", "default")  # the name of the key before 2024
    kind = words.pop("rope_type", legacy)
    if kind == "default":
        _only(words, (), kind)
        return Scaled(frequency)
    if kind not in ROTARY_SCALINGS:
        known = ["default", *ROTARY_SCALINGS]
        raise UsageError(f"rotary_scaling: rope_type={kind!r} is unknown; {did_you_mean(str(kind), known)}")
    scale = ROTARY_SCALINGS[kind]
    parameters = {n: p for n, p in inspect.signature(scale).parameters.items() if p.kind is p.KEYWORD_ONLY}
    _only(words, parameters, kind)
    given = {name: value for name, value in words.items() if value is not None}
    for name, parameter in parameters.items():
        if name not in given and parameter.default is parameter.empty:
            raise UsageError(f"rotary_scaling: rope_type={kind!r} needs {name}; give it a value")
    return scale(frequency, base, **given)


def linear(frequency: Tensor, base: float, *, factor: float) -> Scaled:
    """Position interpolation: every pair turns `factor` times more slowly."""
    return Scaled(frequency / factor)


def ntk(frequency: Tensor, base: float, *, factor: float) -> Scaled:
    """The base grows by factor^(n / (n - 1)) for n pairs, so that the slowest turns exactly `factor` times more slowly
    and the fastest as before."""
    n = len(frequency)
    if n < 2:
        raise UsageError("rotary_scaling: rope_type='ntk' needs two pairs of channels; use a head width of 4 or more")
    return Scaled(frequency * factor ** (-torch.arange(n, dtype=torch.float64) / (n - 1)))


def yarn(
    frequency: Tensor,
    base: float,
    *,
    factor: float,
    original_max_position_embeddings: float,
    attention_factor: float | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
) -> Scaled:
    """Each pair by how often it comes round within the positions of training.

    `attention_factor` multiplies q and k alike (so scores by its square); by itself 0.1 ln(factor) + 1 (eq. 22), or, as
    DeepSeek has it, the ratio of that with ln(factor) times `mscale` and times `mscale_all_dim`. `truncate` rounds the
    ends of the ramp to whole pairs, as the authors' code does.
    """
    if beta_fast <= beta_slow:
        raise UsageError(f"rotary_scaling: beta_fast={beta_fast} is no more than beta_slow={beta_slow}; exchange them")
    width = 2 * len(frequency)

    def pair_that_turns(times: float) -> float:
        return width * math.log(original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first = max(first, 0)
    last = max(min(last, width - 1), first + 0.001)  # a ramp of no length is a step
    slowed = ((torch.arange(len(frequency), dtype=torch.float64) - first) / (last - first)).clamp(0, 1)  # 0: not at all
    if attention_factor is None:
        attention_factor = _temperature(factor, 1.0)
        if mscale and mscale_all_dim:
            attention_factor = _temperature(factor, mscale) / _temperature(factor, mscale_all_dim)
    return Scaled(frequency / factor * slowed + frequency * (1 - slowed), attention_factor)


def llama3(
    frequency: Tensor,
    base: float,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: float,
) -> Scaled:
    """Pairs that come round fewer than `low_freq_factor` times within the positions of training by `factor`, more than
    `high_freq_factor` times not at all, a ramp between."""
    if high_freq_factor <= low_freq_factor:
        raise UsageError(
            f"rotary_scaling: high_freq_factor={high_freq_factor} is no more than low_freq_factor={low_freq_factor}; "
            "exchange them"
        )
    times = original_max_position_embeddings * frequency / (2 * math.pi)
    kept = ((times - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return Scaled(frequency / factor * (1 - kept) + frequency * kept)


def longrope(
    frequency: Tensor,
    base: float,
    *,
    factor: float,
    original_max_position_embeddings: float,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    attention_factor: float | None = None,
) -> Scaled:
    """Pair i by `short_factor[i]`, for texts within the positions of training. `long_factor`, which would take its
    place in longer ones, is kept for other programs. `attention_factor` is by itself
    sqrt(1 + ln(factor) / ln(original_max_position_embeddings))."""
    for name, factors in (("short_factor", short_factor), ("long_factor", long_factor)):
        if len(factors) != len(frequency):
            raise UsageError(
                f"rotary_scaling: {name} has {len(factors)} factors for {len(frequency)} pairs; give as many"
            )
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original_max_position_embeddings))
    return Scaled(frequency / torch.tensor(short_factor, dtype=torch.float64), attention_factor)


ROTARY_SCALINGS: dict[str, Callable[..., Scaled]] = {
    "linear": linear,
    "ntk": ntk,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
}


def _temperature(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _only(words: Mapping[str, Any], known: Any, kind: str) -> None:
    """Refuse what the type does not know; two of Hugging Face's words are fields of their own here."""
    homes = {"rope_theta": "rotary_base", "partial_rotary_factor": "rotary_fraction"}
    for word in words:
        if word in homes:
            raise UsageError(f"rotary_scaling: {word} has a field of its own; write {homes[word]}={words[word]}")
        if word not in known:
            hint = did_you_mean(str(word), known) if known else "leave it out"
            raise UsageError(f"rotary_scaling: {word} is no word of rope_type={kind!r}; {hint}")
