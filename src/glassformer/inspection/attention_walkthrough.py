"""One head at work, number by number: from the vector at one place to what the head adds there.

    stream ─► norm ─► x ─► q = W_Q x ──► q . k ─► / sqrt(D) ─► mask ─► softmax ─┐
                 of each key ─► k = W_K x ─┘                                     ├─► sum of w v ─► W_O ─► + stream
                              └► v = W_V x ─────────────────────────────────────┘

Each stage is computed anew from the stage before, beginning with what passed the taps, and compared with what the
model itself computed (`differences`). `cell` tells of what any number is the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import Figure
from glassformer.inspection.head_weights import Matrices
from glassformer.inspection.heads import check_place, looking
from glassformer.inspection.options import AttentionKind, Head, Layer, Position, Target, TextOrImage, view
from glassformer.inspection.reading import read, reading
from glassformer.inspection.step_cells import Cell, cell_of
from glassformer.inspection.step_stages import Place, computed
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View, plain
from glassformer.processors.tokenizers import Tokenizer


@dataclass
class StepView(View):
    """All numbers of one head for one query. C channels, D width of the head, S keys, H heads; fp32.

    kind, layer, head, key_value_head, position: where. queries, keys: labels.
    before (C): the stream. normed (C): what the head reads of it, x.
    query_plain (D): W_Q x; query_normed: behind the norm of queries, if there is one; query: as positions turn it.
    key_plain, key_normed, key, value (S, D): the same of each key.
    dots (S): q . k. scale: what they are multiplied with. bias (S): what positions add. scaled (S): behind both.
    softcap: the c of c tanh(s / c). scores (S): behind it. visible (S): whether the query may look there.
    exponentials (S): e^(score - the largest one), 0 where it may not look. total: their sum, with the sink's.
    sink: the learned score of nobody. sink_share: what falls on it. weights (S): exponentials / total.
    found (D): the sum of weights times values.
    said (C): what this head writes. said_by_head (H, C): what each does. output_bias (C). output (C): their sum.
    added (C): what the block adds: the output, or its norm. sum (C): the stream and that. after (C): the stream
    behind it, which in a post-norm block is the norm of the sum.
    is_normed, is_normed_before, is_normed_after, is_post_norm: whether there are norms on queries and keys, on what the
    layer reads, on the output, on the sum.
    differences: of each stage, the largest distance to what the model itself had there.
    width: how many numbers of a vector are drawn. matrices: weights of the head, for `cell`; no part of `to_dict`.
    """

    kind: str
    layer: int
    head: int
    key_value_head: int
    position: int
    queries: list[str]
    keys: list[str]
    before: np.ndarray
    normed: np.ndarray
    query_plain: np.ndarray
    query_normed: np.ndarray
    query: np.ndarray
    key_plain: np.ndarray
    key_normed: np.ndarray
    key: np.ndarray
    value: np.ndarray
    dots: np.ndarray
    scale: float
    bias: np.ndarray | None
    scaled: np.ndarray
    softcap: float | None
    scores: np.ndarray
    visible: np.ndarray
    exponentials: np.ndarray
    total: float
    sink: float | None
    sink_share: float
    weights: np.ndarray
    found: np.ndarray
    said: np.ndarray
    said_by_head: np.ndarray
    output_bias: np.ndarray | None
    output: np.ndarray
    added: np.ndarray
    sum: np.ndarray
    after: np.ndarray
    is_normed: bool
    is_normed_before: bool
    is_normed_after: bool
    is_post_norm: bool
    differences: dict[str, float]
    width: int
    matrices: Matrices = field(repr=False)

    def cell(self, stage: str, *index: int) -> Cell:
        """Of what one number is the sum: `view.cell("dots", 4)` has the D products of query and key 4.

        Stages, with the letters of their index: query_plain d, query d, key_plain s d, key s d, value s d, dots s,
        scaled s, total, weights s, found d, said c, output c, sum c.

        Raises:
            UsageError: there is no such stage, or no such number in it.
        """
        return cell_of(self, stage, index)

    def figures(self) -> list[Figure]:
        from glassformer.inspection.step_figures import drawn

        return drawn(self)

    def to_dict(self) -> dict[str, Any]:
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "matrices"}


@view('glassformer look attention-walkthrough runs/demo-1 "To be" --layer 1 --head 2')
def attention_walkthrough(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    layer: Layer = 0,
    head: Head = 0,
    position: Position = -1,
    kind: AttentionKind = "self",
    width: Annotated[int, Field(ge=1, description="Numbers of a vector that are shown; --json gives all.")] = 6,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> StepView:
    """One head for one query, stage by stage.

    Raises:
        UsageError: there is no such place, or the model has no attention of this kind.
    """
    at = looking(read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer), kind)
    if at.stack is None:
        raise UsageError("this attention is additive and has no queries and keys to multiply; look at a Transformer")
    layer = check_place("layer", layer, len(at.names))
    position = check_place("position", position, len(at.queries))
    n_head = at.stack.blocks[layer].attention.n_head
    place = Place(at, layer, check_place("head", head, n_head), position)
    with trace(model, *place.taps) as seen:
        at.reading.run()
    with reading(model):
        stages, matrices = computed(place, seen)
    arrays: dict[str, Any] = {name: x.numpy() if isinstance(x, Tensor) else x for name, x in stages.items()}
    return StepView(
        kind=kind,
        layer=layer,
        head=place.head,
        key_value_head=place.key_value_head,
        position=position,
        queries=at.queries,
        keys=at.keys,
        is_normed=place.part.query_norm is not None,
        is_normed_before=place.norms.before is not None,
        is_normed_after=place.norms.behind is not None,
        is_post_norm=place.norms.of_sum is not None,
        width=width,
        matrices=matrices,
        **arrays,
    )
