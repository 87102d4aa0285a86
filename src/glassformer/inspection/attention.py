"""What heads attend to: the pattern of every head of every layer, and summaries of each head.

            keys
            To   be   or                  the lecture (3Blue1Brown, Deep Learning, chapter 6) has keys as rows,
queries To  1.0                           so that columns add up to 1: `keys_as_rows=True` draws it so
        be  0.7  0.3
        or  0.2  0.5  0.3   = 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, HeatMap, Note, Table
from glassformer.inspection.heads import MEANINGS, attention_layers, evenly, n_repeats, summaries
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, read
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import AttentionKind, KeysAsRows, Option, Target, TextOrImage

MAX_HEADS = 16  # that are drawn in one table
MAX_TOKENS = 64  # that are drawn along a side of a map
TOP = 3  # heads of each summary, where there are more than one table holds
KIND_NAMES = {"self": "attention", "cross": "cross-attention", "encoder": "attention of the encoder"}


@dataclass
class AttentionView(View):
    """Patterns and summaries of all heads."""

    kind: str  # self, cross or encoder
    queries: list[str]  # (T,) labels
    keys: list[str]  # (S,) labels
    patterns: np.ndarray  # (L, H, T, S): a row adds up to 1, or to less where there are sinks
    visible: np.ndarray  # (L, T, S), whether the mask lets a query see a key
    summaries: dict[str, np.ndarray]  # (L, H) each, by the names of `MEANINGS`; NaN where the text has no such place
    even: dict[str, float]  # the same of a head that attends evenly to all it may see
    n_repeats: int  # how many queries the induction score is the mean of
    layer: int | None = None  # what is drawn; None: all layers
    head: int | None = None  # what is drawn; None: all heads
    keys_as_rows: bool = False  # how it is drawn; the numbers are the same

    def figures(self) -> list[Figure]:
        L, H = self.patterns.shape[:2]
        if self.layer is not None and self.head is not None:
            heads = [(self.layer, self.head)]
            about = f"Layer {self.layer}, head {self.head}: what each token attends to"
            return [*self.map(self.patterns[heads[0]], about, self.layer), self._table(heads), self._meanings()]
        layer = L - 1 if self.layer is None else self.layer
        which = f"the mean of its {H} heads" if H > 1 else "its one head"
        about = f"Layer {layer}, {which}: what each token attends to"
        drawn = self.map(self.patterns[layer].mean(axis=0), about, layer)
        if self.layer is not None:
            return [self._table([(layer, head) for head in range(H)]), self._meanings(), *drawn]
        if L * H <= MAX_HEADS:
            return [self._table([(i, h) for i in range(L) for h in range(H)]), self._meanings(), *drawn]
        return [*(self._strongest(name) for name in self.summaries), self._counted(), *drawn]

    def map(self, values_TS: np.ndarray, title: str, layer: int) -> list[Figure]:
        """A pattern to look at; what may not be seen stays empty."""
        T, S = values_TS.shape
        q, k = slice(max(T - MAX_TOKENS, 0), T), slice(max(S - MAX_TOKENS, 0), S)
        values = np.where(self.visible[layer], values_TS, np.nan)[q, k]
        rows, columns = self.queries[q], self.keys[k]
        row_axis, column_axis = "queries", "keys"
        line = "row"
        if self.keys_as_rows:
            values, line = values.T, "column"
            rows, columns, row_axis, column_axis = columns, rows, column_axis, row_axis
        sums = "1 with what falls on the sink" if "sink" in self.summaries else "1"
        map_ = HeatMap(f"{title} (a {line} adds up to {sums})", values, rows, columns, row_axis, column_axis, "share")
        if max(T, S) <= MAX_TOKENS:
            return [map_]
        return [
            map_,
            Note(f"Drawn are the last {MAX_TOKENS} of {T} queries and {S} keys; `patterns` has all of them."),
        ]

    def _table(self, heads: list[tuple[int, int]]) -> Table:
        """Heads with all of their summaries; the strongest of each stands out."""
        best = {
            tuple(np.unravel_index(np.nanargmax(values), values.shape))
            for name, values in self.summaries.items()
            if name != "entropy" and np.isfinite(values).any()
        }
        rows: list[list[Any]] = [[f"{i}.{h}", *(float(v[i, h]) for v in self.summaries.values())] for i, h in heads]
        rows.append(["even", *(self.even.get(name) for name in self.summaries)])
        marked = frozenset(r for r, place in enumerate(heads) if place in best and len(heads) > 1)
        title = f"What the heads attend to: shares of their {KIND_NAMES[self.kind]}"
        links = [[f"?layer={i}&head={h}"] for i, h in heads]
        return Table(title, [Column("head"), *map(_column, self.summaries)], rows, marked, links=links)

    def _meanings(self) -> Note:
        meanings = [f"{name}: {MEANINGS[name]}." for name in self.summaries]
        first = "layer.head; even: a head that attends evenly to all it may see."
        return Note(" ".join([first, *meanings]) + "\n" + self._counted().text)

    def _strongest(self, name: str) -> Table:
        """The heads of one summary, the strongest first (of entropy: the narrowest and the widest)."""
        values = self.summaries[name]
        if not np.isfinite(values).any():
            return Table(f"{name.capitalize()}: there is none in this text", [Column("strongest")], [])
        order = np.argsort(np.where(np.isfinite(values), -values, np.inf), axis=None, kind="stable")
        chosen = [*order[:TOP], *(order[-1:] if name == "entropy" else [])]
        places = [tuple(map(int, np.unravel_index(i, values.shape))) for i in chosen]
        rows: list[list[Any]] = [[f"layer {i}, head {h}", float(values[i, h])] for i, h in places]
        rows.append([f"mean of all {values.size}", float(np.nanmean(values))])
        if name in self.even:
            rows.append(["attending evenly", self.even[name]])
        of = "Entropy" if name == "entropy" else name.capitalize()
        links = [[f"?layer={i}&head={h}"] for i, h in places]
        return Table(f"{of}: {MEANINGS[name]}", [Column("strongest", "text"), _column(name)], rows, links=links)

    def _counted(self) -> Note:
        L, H, T, S = self.patterns.shape
        size = f"{plural(L, 'layer')} of {plural(H, 'head')}"
        text = f"{size}; means over the queries that see more than one of {S} keys."
        if "induction" in self.summaries:
            text += f" Tokens that occurred before: {self.n_repeats} of {T}"
            text += "." if self.n_repeats else ", so there is no induction to see (`look induction` makes some)."
        return Note(text)


def _column(name: str) -> Column:
    if name == "entropy":
        return Column("entropy", "number", digits=2)
    return Column(name, "share", role="share")


@view(
    'glassformer look attention smollm2-135m-instruct "a fluffy blue creature roamed the verdant forest"',
    'glassformer look attention runs/demo-1 "To be, or not" --layer 1 --head 2 --keys-as-rows',
    "glassformer look attention runs/cartpole-1 cartpole-mixed:3:100",
)
def attention(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    layer: Annotated[int | None, Option("The layer, from 0; default: a summary of all heads.")] = None,
    head: Annotated[int | None, Option("The head of the layer, from 0.")] = None,
    kind: AttentionKind = "self",
    keys_as_rows: KeysAsRows = False,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> AttentionView:
    """Where every head looks while the model reads a text.

    Raises:
        UsageError: the model has no attention of this kind, there is no such layer or head, or all patterns together
            are larger than `trace` keeps.
    """
    at = attention_layers(read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer), kind)
    watched = [f"{name}.pattern" for name in at.names]
    with trace(model, *watched) as seen:
        at.reading.run()
        calls = [torch.cat([_as_BHTS(x) for x in seen.calls(name)], dim=2) for name in watched]
    patterns_LHTS = torch.stack([x[0].float().cpu() for x in calls]).numpy()
    L, H = patterns_LHTS.shape[:2]
    if layer is not None:
        layer = check_place("layer", layer, L)
    if head is not None:
        if layer is None:
            raise UsageError(f"head={head} is one of each layer; give its layer too (0 to {L - 1})")
        head = check_place("head", head, H)
    return AttentionView(
        kind,
        at.queries,
        at.keys,
        patterns_LHTS,
        at.visible,
        summaries(patterns_LHTS, at, has_sinks=has_sinks(at.stack)),
        evenly(at),
        n_repeats(at.key_ids) if at.is_causal else 0,
        layer,
        head,
        keys_as_rows,
    )


def has_sinks(stack: Any) -> bool:
    """Whether some attention may fall on no token."""
    return stack is not None and bool(getattr(stack.config, "attention_sinks", False))


def _as_BHTS(pattern: Tensor) -> Tensor:
    """Additive attention has one head, and no axis for it."""
    return pattern.unsqueeze(1) if pattern.dim() == 3 else pattern
