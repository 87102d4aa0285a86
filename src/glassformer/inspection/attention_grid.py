"""Every head of every layer as a small map, in one grid: layers go down, heads go across."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from glassformer.errors import plural
from glassformer.figures import Figure, HeatMap, Note
from glassformer.inspection.attention import KIND_NAMES, attention
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import AttentionKind, KeysAsRows, Option, Target, TextOrImage

MAX_NUMBERS = 400_000  # that are drawn


@dataclass
class AttentionGridView(View):
    """The patterns of all heads."""

    kind: str  # self, cross or encoder
    queries: list[str]  # (T,) labels
    keys: list[str]  # (S,) labels
    patterns: np.ndarray  # (L, H, T, S); NaN where the mask lets a query see nothing
    last: int  # how many of the queries and keys are drawn, from the end
    keys_as_rows: bool

    def figures(self) -> list[Figure]:
        L, H, T, S = self.patterns.shape
        q, k = self.queries[-self.last :], self.keys[-self.last :]
        rows, columns = (k, q) if self.keys_as_rows else (q, k)
        axes = ("keys", "queries") if self.keys_as_rows else ("queries", "keys")
        sums, across = ("column", "queries") if self.keys_as_rows else ("row", "keys")
        text = (
            f"{plural(L, 'layer')} of {plural(H, 'head')}: {KIND_NAMES[self.kind]}. In each map {axes[0]} go down and "
            f"{across} across, so that a {sums} adds up to 1; full colour is a weight of 1, and a grey cell is "
            "masked. layer.head; open one to see its numbers."
        )
        if self.last < max(T, S):
            text += f" Drawn are the last {self.last} tokens."
        more = "&keys_as_rows=true" if self.keys_as_rows else ""
        more += "" if self.kind == "self" else f"&kind={self.kind}"
        return [Note(text), *(self._map(i, h, rows, columns, axes, more) for i in range(L) for h in range(H))]

    def _map(self, layer: int, head: int, rows: Any, columns: Any, axes: tuple[str, str], more: str) -> HeatMap:
        part = self.patterns[layer, head, -self.last :, -self.last :]
        return HeatMap(
            f"{layer}.{head}",
            part.T if self.keys_as_rows else part,
            rows,
            columns,
            *axes,
            role="share",
            highest=1.0,
            compact=True,
            line=f"layer {layer}",
            links=[[f"attention?layer={layer}&head={head}{more}"]],
        )


@view(
    'glassformer look attention-grid runs/demo-1 "To be, or not"',
    'glassformer look attention-grid smollm2-135m-instruct "a fluffy blue creature" --keys-as-rows',
)
def attention_grid(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    kind: AttentionKind = "self",
    keys_as_rows: KeysAsRows = False,
    last: Annotated[int, Option("Draw this many tokens, from the end of the text.", ge=1, le=128)] = 48,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> AttentionGridView:
    """The attention patterns of all layers and heads at once, as the lecture's grid of every head of a model.

    Raises:
        UsageError: as of `attention`.
    """
    seen = attention(model, tokenizer, text, kind=kind, target=target, source_tokenizer=source_tokenizer)
    L, H, T, S = seen.patterns.shape
    last = min(last, max(T, S), max(1, int((MAX_NUMBERS / (L * H)) ** 0.5)))
    patterns = np.where(seen.visible[:, None], seen.patterns, np.nan)
    return AttentionGridView(kind, seen.queries, seen.keys, patterns, last, keys_as_rows)
