"""The heads of a model: which layers of attention there are, what the masks let them see, and summaries of a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glassformer.errors import UsageError, did_you_mean
from glassformer.inspection.reading import Reading
from glassformer.models import Transformer
from glassformer.taps import named_taps

KINDS = ("self", "cross", "encoder")

MEANINGS = {
    "previous": "the token before",
    "next": "the token after",
    "same": "the token itself",
    "first": "the first token, where heads rest that find nothing (an attention sink)",
    "last": "the last token",
    "induction": "the token that came after an earlier occurrence of the current one",
    "sink": "no token: a learned score that takes part in the softmax",
    "entropy": "how widely it looks, in bits: 0 is one token, 3 is as wide as 8 tokens evenly",
}
"""What a summary of a head measures: the mean over queries of its share on this, but for the entropy."""


@dataclass(frozen=True)
class AttentionLayers:
    """The layers of attention of one kind, and what stands at their queries and keys."""

    reading: Reading
    kind: str
    stack: Any  # the `Transformer` they are in, None for a recurrent model with additive attention
    names: list[str]  # of the layers ("decoder.blocks.0.cross_attention")
    queries: list[str]  # (T,) labels
    keys: list[str]  # (S,) labels
    key_ids: list[int]  # the token at each key; none of patches
    visible: np.ndarray  # (L, T, S), whether the mask lets a query see a key

    @property
    def is_causal(self) -> bool:
        """Whether no query sees a later key."""
        return self.kind != "cross" and not np.triu(self.visible, 1).any()


def attention_layers(reading: Reading, kind: str = "self") -> AttentionLayers:
    """The layers that `kind` names: `self`, of an encoder-decoder those in its decoder; `cross`, from the decoder to
    the encoder; `encoder`, those in the encoder of an encoder-decoder.

    Raises:
        UsageError: there is no such kind, or the model has no attention of it.
    """
    model = reading.model
    if kind not in KINDS:
        raise UsageError(f"kind={kind!r} is unknown; {did_you_mean(kind, KINDS)}")
    is_pair = "target" in model.answers
    if not is_pair and kind != "self":
        raise UsageError(f"a {type(model).__name__} has one stack of blocks and no {kind} attention; leave kind out")
    inside = "" if not is_pair else "encoder." if kind == "encoder" else "decoder."
    stack: Any = getattr(model, inside.rstrip("."), None) if inside else model
    in_source = is_pair and kind == "encoder"
    queries = reading.source_labels if in_source else reading.labels
    keys = reading.source_labels if is_pair and kind != "self" else reading.labels
    key_ids = reading.source_ids if is_pair and kind != "self" else reading.ids
    T, S = len(queries), len(keys)
    if kind == "cross" and not isinstance(stack, Transformer) and "attention.pattern" in named_taps(model):
        return AttentionLayers(
            reading, kind, None, ["attention"], queries, keys, key_ids, np.ones((1, T, S), dtype=bool)
        )
    if not isinstance(stack, Transformer):
        raise UsageError(
            f"a {type(model).__name__} has no heads of {'self' if kind == 'self' else kind}-attention; "
            f"{'use kind=cross' if 'attention.pattern' in named_taps(model) else 'use a Transformer'}"
        )
    part = "cross_attention" if kind == "cross" else "attention"
    names = [f"{inside}blocks.{layer}.{part}" for layer in range(len(stack.blocks))]
    visible = np.ones((len(names), T, S), dtype=bool)
    if kind != "cross":
        pos = torch.arange(T)
        steps = reading.inputs.get("distances_BTT")
        if steps is None and kind == "encoder" and getattr(stack, "follows_patches", False):
            steps = stack.embedding.distances(pos.device)
        masks = stack.masks if steps is None else [mask.on_graph(steps) for mask in stack.masks]
        visible = np.stack([mask.mask(pos, pos).expand(1, T, T)[0].numpy() for mask in masks])
    return AttentionLayers(reading, kind, stack, names, queries, keys, key_ids, visible)


def summaries(
    patterns_LHTS: np.ndarray, at: AttentionLayers, *, has_sinks: bool = False, visible: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What each head does in short: names of `MEANINGS`, those that mean something here, and (L, H) for each.

    The mean is over the queries that have a choice: one that may see a single key (the first of a causal model) says
    nothing of a head. For `previous`, `next` and `induction` it is over those that have such a key; NaN: there are
    none. Induction scores: Olsson et al. 2022, https://arxiv.org/abs/2209.11895, "prefix matching".
    """
    visible = at.visible if visible is None else visible
    L, H, T, S = patterns_LHTS.shape
    choice_LT = visible.sum(axis=-1) > 1
    places = np.arange(T)[:, None], np.arange(S)[None]
    cells = {"first": places[1] == 0}
    if at.kind != "cross":
        cells |= {"previous": places[1] == places[0] - 1, "same": places[1] == places[0]}
    if not at.is_causal:
        cells |= {"last": places[1] == S - 1}
    if at.kind != "cross" and not at.is_causal:
        cells |= {"next": places[1] == places[0] + 1}
    if at.is_causal and at.key_ids:
        cells |= {"induction": after_earlier(at.key_ids)}
    found = {}
    for name, cells_TS in cells.items():
        some_T = cells_TS.any(axis=1) if name in ("previous", "next", "induction") else np.ones(T, dtype=bool)
        shares_LHT = np.einsum("lhts,ts->lht", patterns_LHTS, cells_TS.astype(np.float32))
        found[name] = _mean(shares_LHT, choice_LT & some_T)
    left_LHT = np.clip(1 - patterns_LHTS.sum(axis=-1), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits_LHT = -np.nan_to_num(patterns_LHTS * np.log2(patterns_LHTS)).sum(axis=-1)
        if has_sinks:  # one more place where it may look
            found["sink"] = _mean(left_LHT, choice_LT)
            bits_LHT = bits_LHT - np.nan_to_num(left_LHT * np.log2(left_LHT))
    found["entropy"] = _mean(np.maximum(bits_LHT, 0), choice_LT)
    return {name: found[name] for name in MEANINGS if name in found}


def evenly(at: AttentionLayers) -> dict[str, float]:
    """The summaries of a head that attends evenly to all it may see, the mean over layers: a baseline."""
    even_LTS = at.visible / np.maximum(at.visible.sum(axis=-1, keepdims=True), 1)
    found = summaries(even_LTS[:, None].astype(np.float32), at)
    known = {name: values[np.isfinite(values)] for name, values in found.items()}
    return {name: float(values.mean()) if values.size else float("nan") for name, values in known.items()}


def after_earlier(ids: list[int]) -> np.ndarray:
    """(T, T): whether a key is the token after an earlier occurrence of the query's token; itself does not count.

    >>> after_earlier([7, 8, 7, 8]).astype(int)[2:].tolist()
    [[0, 1, 0, 0], [0, 0, 1, 0]]
    """
    tokens = np.asarray(ids)
    T = len(tokens)
    equal = tokens[:, None] == tokens[None]
    found = np.zeros((T, T), dtype=bool)
    found[:, 1:] = equal[:, :-1]
    return np.tril(found, -1)


def n_repeats(ids: list[int]) -> int:
    """How many tokens have a place that an induction head would look at."""
    return int(after_earlier(ids).any(axis=1).sum()) if ids else 0


def _mean(values_LHT: np.ndarray, counted_LT: np.ndarray) -> np.ndarray:
    """The mean over the queries that count: (L, H)."""
    n_L1 = counted_LT.sum(axis=-1)[:, None]
    total_LH = (values_LHT * counted_LT[:, None]).sum(axis=-1)
    return np.where(n_L1 > 0, total_LH / np.maximum(n_L1, 1), np.nan)
