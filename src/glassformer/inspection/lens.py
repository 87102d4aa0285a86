"""The logit lens: what the model would predict if it stopped after each layer.

    embedding ─► block 0 ─► block 1 ─► ... ─► block L - 1
        │           │          │                  │
        ▼           ▼          ▼                  ▼
    final norm and head, the same for all     the prediction

nostalgebraist 2020, "interpreting GPT: the logit lens",
https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from glassformer.figures import Column, Curves, Figure, Note, Table, visible
from glassformer.inspection.options import view
from glassformer.inspection.reading import LN2, read, stack_of
from glassformer.inspection.stream import answers_of, evenly, layer_logits, place_name
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, OptionalPosition, Target, TextOrImage, Token

MAX_LAYERS, MAX_PLACES = 33, 16  # that are drawn
COLUMNS = 80


@dataclass
class LensView(View):
    """What each layer would predict; row 0 is the embedding, row l + 1 the stream behind block l. All in fp32."""

    tokens: list[str]  # (T,) of the text
    position: int  # the place that the table is about, from 0; -1: the whole, of which a class is said
    where: str  # the same in words
    top_ids: np.ndarray  # (L + 1, top), most likely first
    top_tokens: list[list[str]]
    top_probabilities: np.ndarray
    entropy: np.ndarray  # (L + 1,) in bits
    divergence: np.ndarray  # (L + 1,) in bits: KL(last || layer)
    pinned: str  # a token followed through the layers
    pinned_id: int
    pinned_probability: np.ndarray  # (L + 1,)
    pinned_rank: np.ndarray  # (L + 1,), 1 is the most likely
    grid_ids: np.ndarray  # (L + 1, T), the most likely token at every place
    grid_tokens: list[list[str]]
    grid_probabilities: np.ndarray
    has_final_norm: bool  # whether vectors go through a final norm first (post-norm models have none)

    @property
    def layers(self) -> list[str]:
        """A name for each of the L + 1 rows."""
        return ["embedding", *(f"block {layer}" for layer in range(len(self.entropy) - 1))]

    def figures(self) -> list[Figure]:
        shown = evenly(len(self.entropy), MAX_LAYERS)
        names, pinned = self.layers, visible(self.pinned, 12)
        columns = (
            Column("so far"),
            Column("predicts", "token"),
            Column("probability", "share"),
            Column("or"),
            Column("entropy", "number", digits=2),
            Column("to end", "number", digits=2),
            Column("rank", "count"),
        )
        rows = [
            [
                names[i],
                visible(self.top_tokens[i][0], 11),
                self.top_probabilities[i, 0],
                "  ".join(visible(token, 7) for token in self.top_tokens[i][1:3]),
                self.entropy[i],
                self.divergence[i],
                self.pinned_rank[i],
            ]
            for i in shown
        ]
        through = (
            "the model's own final norm and head" if self.has_final_norm else "the model's own head (no final norm)"
        )
        return [
            Note(
                f"If the model stopped after a layer: its residual stream {self.where} through {through} (logit lens). "
                "The last row is the model's prediction. Early layers were not trained for "
                "this: take them as hints."
            ),
            Table(
                f"What each layer would predict, and the rank of {pinned} in it",
                columns,
                rows,
                frozenset([len(rows) - 1]),
            ),
            Note(
                "entropy: how unsure, in bits. to end: bits by which the layer misses the last row (KL divergence). "
                "rank: 1 is the most likely."
            ),
            Curves.over(
                f"The probability of {pinned}, layer by layer",
                names,
                {pinned: self.pinned_probability.tolist()},
                "layers",
                "probability",
            ),
            self._grid(),
        ]

    def _grid(self) -> Table:
        """Places go down, as one reads; across, as many layers as fit."""
        T = len(self.tokens)
        first = max(0, min(self.position - MAX_PLACES + 4, T - MAX_PLACES))
        places = range(first, min(first + MAX_PLACES, T))
        names = [name.replace("embedding", "embed").replace("block ", "b") for name in self.layers]
        longest = max(len(visible(row[t], 9)) for row in self.grid_tokens for t in places)
        label = max([4, *(len(visible(self.tokens[t], 12)) for t in places)])
        width = 2 + max(longest, *map(len, names))
        layers = evenly(len(names), max(2, (COLUMNS - label - 2) // width))
        rows = [
            [visible(self.tokens[t], 12), *(visible(self.grid_tokens[layer][t], 9) for layer in layers)] for t in places
        ]
        title = "The most likely token of the layers, at every place" + (
            f" (from {first} on)" if len(places) < T else ""
        )
        columns = [Column("read", "token"), *(Column(names[layer], "token") for layer in layers)]
        links = [[f"?position={t}"] * (1 + len(layers)) for t in places]
        return Table(title, columns, rows, frozenset([self.position - first]), links=links)


@view(
    'glassformer look lens smollm2-135m-instruct "The capital of France is" --pin " Paris"',
    "glassformer look lens runs/mnist-1 seven.png --pin 7",
)
def lens(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    pin: Annotated[Token, Option("A token or class to follow through the layers; default: the most likely.")] = None,
    position: OptionalPosition = None,
    top: Annotated[int, Option("How many tokens of each layer to show.", ge=1)] = 5,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
    labels: Sequence[str] = (),
) -> LensView:
    """What each layer would predict at one place of a text, and the most likely token of every layer at every place.

    Of a classifier: the class of the whole, and of every place as if it were all there is.

    Raises:
        UsageError: the model has no head over tokens or classes, `pin` is not one of them, or there is no such
            position.
    """
    answers = answers_of(model, tokenizer, labels)
    pinned = None if pin is None else answers.number(pin, "pin")
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    place = answers.place_of(seen, position)
    here, best_of_layers = [], []
    for logits_TV, whole_V in layer_logits(seen, bool(answers.classes)):
        logp_TV = logits_TV.log_softmax(dim=-1)
        here.append(whole_V.log_softmax(dim=-1) if place is None and whole_V is not None else logp_TV[place])
        best_of_layers.append(logp_TV.max(dim=-1))
    logp_LV = torch.stack(here)
    grid_ids_LT = torch.stack([best.indices for best in best_of_layers])
    grid_p_LT = torch.stack([best.values for best in best_of_layers]).exp()
    pinned = int(logp_LV[-1].argmax()) if pinned is None else pinned
    p_LV = logp_LV.exp()
    missed_LV = torch.where(p_LV[-1] > 0, p_LV[-1] * (logp_LV[-1] - logp_LV), 0.0)
    best = p_LV.topk(min(max(top, 1), p_LV.shape[1]))
    return LensView(
        tokens=seen.labels,
        position=-1 if place is None else place,
        where=place_name(seen, place),
        top_ids=best.indices.numpy(),
        top_tokens=[[answers.text(i) for i in row] for row in best.indices.tolist()],
        top_probabilities=best.values.numpy(),
        entropy=torch.special.entr(p_LV).sum(dim=-1).numpy() / LN2,
        divergence=missed_LV.sum(dim=-1).clamp_min(0.0).numpy() / LN2,
        pinned=answers.text(pinned),
        pinned_id=pinned,
        pinned_probability=p_LV[:, pinned].numpy(),
        pinned_rank=1 + (logp_LV > logp_LV[:, [pinned]]).sum(dim=-1).numpy(),
        grid_ids=grid_ids_LT.numpy(),
        grid_tokens=[[answers.text(i) for i in row] for row in grid_ids_LT.tolist()],
        grid_probabilities=grid_p_LT.numpy(),
        has_final_norm=stack_of(model)[0].final_norm is not None,
    )
