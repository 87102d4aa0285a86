"""How long the residual stream is, and what each layer adds to it.

    x ──┬────────────────► + ──┬──────────────────► + ──► x
        └► ... attention ──┘   └► ... feed-forward ──┘
           update                 update

A layer adds a vector. Its length beside that of the stream shows how much it changes; the cosine between the two,
whether it continues in the same direction (1), adds something new (0) or takes back what stands there (-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.figures import Column, Curves, Figure, HeatMap, Note, Table, visible
from glassformer.generation.eval_mode import evaluating
from glassformer.inspection.options import view
from glassformer.inspection.reading import Reading, read, stack_of
from glassformer.inspection.stream import evenly, place_name, place_of
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import OptionalPosition, Target, TextOrImage

MAX_LAYERS, MAX_PLACES = 33, 60  # that are drawn
SHORT = {"attention": "attention", "cross_attention": "cross", "feedforward": "feed-forward"}


@dataclass
class ResidualView(View):
    """Lengths (Euclidean norms) of the stream and of what is added to it, in fp32."""

    tokens: list[str]  # (T,)
    position: int  # the place that the table is about, from 0
    where: str  # the same in words
    stream: np.ndarray  # (L + 1, T): row 0 after the embedding, row l + 1 after block l
    updates: dict[str, np.ndarray]  # (L, T) by kind of layer, as they are added (after a norm of the output)
    cosines: dict[str, np.ndarray]  # (L, T) between an update and the stream that it is added to
    to_final: np.ndarray  # (L + 1, T) cosine between the stream and what it is in the end, at the same place
    is_post_norm: bool  # each sum goes through a norm, so that the stream cannot grow

    def figures(self) -> list[Figure]:
        at, L = self.position, len(self.stream) - 1
        columns = [Column("after"), Column("stream", "number", digits=1)]
        for kind in self.updates:
            columns += [Column(SHORT[kind], "number", digits=2), Column("cosine", "number", digits=2)]
        rows: list[list[Any]] = []
        for i in evenly(L + 1, MAX_LAYERS):
            row: list[Any] = ["embedding" if i == 0 else f"block {i - 1}", self.stream[i, at]]
            for kind, update in self.updates.items():
                before = self.stream[i - 1, at]
                row += [update[i - 1, at] / before, self.cosines[kind][i - 1, at]] if i else [None, None]
            rows.append(row)
        first = max(0, min(at - MAX_PLACES + 4, len(self.tokens) - MAX_PLACES))
        places = range(first, min(first + MAX_PLACES, len(self.tokens)))
        part, names = self.stream[:, places], [visible(self.tokens[t], 12) for t in places]
        layers, blocks = evenly(L + 1, MAX_LAYERS), evenly(L, MAX_LAYERS)
        after = ["embedding" if i == 0 else str(i - 1) for i in layers]
        lenses = [[f"lens?position={t}" for t in places] for _ in layers]
        norm = (
            "Each sum goes through a norm (post-norm), which keeps the stream's length."
            if self.is_post_norm
            else "Nothing is taken away: the stream is the sum of all updates so far."
        )
        return [
            Note(
                f"Every layer adds a vector to the residual stream {self.where}. stream: its length. attention, "
                "feed-forward: the length of what is added, 1 being as long as the stream that the block was given. "
                "cosine: 1 continues in the same direction, 0 adds something new, -1 takes back. " + norm
            ),
            Table("What each block adds", columns, rows),
            Curves.over(
                "Lengths, block by block",
                list(range(L)),
                {"stream": self.stream[1:, at].tolist()}
                | {SHORT[kind]: update[:, at].tolist() for kind, update in self.updates.items()},
                "blocks",
                "length",
            ),
            HeatMap(
                "Length of the stream at every place",
                part[layers],
                after,
                names,
                row_axis="after block",
                column_axis="tokens",
                highest=float(np.quantile(part, 0.95)),
                digits=1,
                links=lenses,
            ),
            Note("Full colour: the length that one number in twenty exceeds (the first token is often far longer)."),
            HeatMap(
                "How near the stream is to what it is in the end (cosine)",
                self.to_final[layers][:, places],
                after,
                names,
                row_axis="after block",
                column_axis="tokens",
                signed=True,
                highest=1.0,
                links=lenses,
            ),
            *(
                HeatMap(
                    f"What the {SHORT[kind]} of each block adds (1: as long as the stream that the block was given)",
                    (update / self.stream[:-1])[blocks][:, places],
                    [str(i) for i in blocks],
                    names,
                    row_axis="block",
                    column_axis="tokens",
                    role="weights",
                    links=[[_of_update(kind, i, t) for t in places] for i in blocks],
                )
                for kind, update in self.updates.items()
            ),
        ]


@view('glassformer look residual smollm2-135m-instruct "The capital of France is"')
def residual(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    position: OptionalPosition = None,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> ResidualView:
    """Lengths of the residual stream after every layer and at every place, and of each layer's updates.

    Raises:
        UsageError: the model has no blocks, or there is no such position.
    """
    stack, _ = stack_of(model)
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    place = place_of(seen, position)
    stream_LTC, steps = updates_of(seen)
    return ResidualView(
        tokens=seen.labels,
        position=place,
        where=place_name(seen, place).replace("after", "at"),
        stream=stream_LTC.norm(dim=-1).numpy(),
        updates={kind: added_LTC.norm(dim=-1).numpy() for kind, (_, added_LTC) in steps.items()},
        cosines={kind: F.cosine_similarity(*step, dim=-1).numpy() for kind, step in steps.items()},
        to_final=F.cosine_similarity(stream_LTC, stream_LTC[-1:], dim=-1).numpy(),
        is_post_norm=stack.config.norm_place == "post",
    )


def _of_update(kind: str, layer: int, place: int) -> str:
    """Where a cell of an update leads: to the walk through one of its heads, or to the logit lens."""
    if kind == "feedforward":
        return f"lens?position={place}"
    return f"attention-walkthrough?layer={layer}&position={place}{'&kind=cross' if kind == 'cross_attention' else ''}"


def updates_of(seen: Reading) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """The stream (L + 1, T, C) and, for each kind of sublayer, the stream that it adds to and what it adds, both
    (L, T, C); in fp32 on the CPU."""
    stack, prefix = stack_of(seen.model)
    kinds = [kind for kind in SHORT if stack.blocks[0].crosses or kind != "cross_attention"]
    names = [f"{prefix}blocks.*.residual.*", *(f"{prefix}blocks.*.{kind}.output" for kind in kinds)]
    with trace(seen.model, *names) as kept:
        seen.run()

    def one(layer: int, name: str) -> Tensor:
        return kept[f"{prefix}blocks.{layer}.{name}"][0]

    steps: dict[str, tuple[list[Tensor], list[Tensor]]] = {kind: ([], []) for kind in kinds}
    stream = [one(0, "residual.before")]
    with evaluating(seen.model):
        for layer, block in enumerate(stack.blocks):
            x_TC = one(layer, "residual.before")
            for kind in kinds:
                out_TC = one(layer, f"{kind}.output")
                norms = block.norms(kind)
                out_TC = out_TC if norms.behind is None else norms.behind(out_TC)
                steps[kind][0].append(x_TC)
                steps[kind][1].append(out_TC)
                x_TC = x_TC + out_TC
                x_TC = x_TC if norms.of_sum is None else norms.of_sum(x_TC)
            stream.append(one(layer, "residual.after"))
    return _whole(stream), {kind: (_whole(before), _whole(added)) for kind, (before, added) in steps.items()}


def _whole(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).float().cpu()
