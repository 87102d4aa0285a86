"""One head at work, number by number: from the vector at one place to what the head adds there.

stream ─► norm ─► x ─► q = W_Q x ──► q . k ─► / sqrt(D) ─► mask ─► softmax ─┐
             of each key ─► k = W_K x ─┘                                     ├─► sum of w v ─► W_O ─► + stream
                          └► v = W_V x ─────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, HeatMap, Note, Table, number, visible
from glassformer.generation.eval_mode import evaluating
from glassformer.inspection.head_computation import HeadComputation
from glassformer.inspection.heads import attention_layers
from glassformer.inspection.opened_cell import OpenedCell, open_cell
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, read
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import AttentionKind, Head, Layer, Option, Position, Target, TextOrImage

Row = tuple[str, np.ndarray, str]  # a name, a vector, and the stage of a cell of it; "": it cannot be opened

BEATS: tuple[tuple[str, ...], ...] = (
    ("normed",),
    ("query_plain", "query_normed", "query", "key_plain", "key_normed", "key", "value"),
    ("dots",),
    ("scaled",),
    (),
    ("weights",),
    ("weighted", "weighted_values"),
    ("head_output", "output", "added", "sum", "after"),
)
"""The eight steps, and the stages whose cells each of them opens."""
MAX_KEYS = 12  # that are drawn
ROUNDED = 1e-3  # of a stage's largest number: a difference that fp32 never reaches


@dataclass
class AttentionWalkthrough(View):
    """All numbers of one head for one query. C channels, D width of the head, S keys, H heads; fp32."""

    kind: str
    layer: int
    head: int
    key_value_head: int  # the head whose keys and values it shares with its group
    position: int  # of the query
    queries: list[str]
    keys: list[str]
    stream: np.ndarray  # (C,)
    normed: np.ndarray  # (C,) what the head reads of it, x
    query_plain: np.ndarray  # (D,) W_Q x
    query_normed: np.ndarray  # (D,) behind the norm of queries, if there is one
    query: np.ndarray  # (D,) as positions turn it
    key_plain: np.ndarray  # (S, D)
    key_normed: np.ndarray  # (S, D)
    key: np.ndarray  # (S, D)
    value: np.ndarray  # (S, D)
    dots: np.ndarray  # (S,) q . k
    scale: float
    bias: np.ndarray | None  # (S,) what positions add
    scaled: np.ndarray  # (S,) dots * scale + bias
    softcap: float | None  # the c of c tanh(s / c)
    scores: np.ndarray  # (S,) behind it
    visible: np.ndarray  # (S,) whether the mask lets the query see it
    exponentials: np.ndarray  # (S,) e^(score - the largest one), 0 where it is masked
    total: float  # their sum, with the sink's
    sink: float | None  # the learned score of no token
    sink_share: float
    weights: np.ndarray  # (S,) exponentials / total
    weighted_values: np.ndarray  # (D,) the sum of weights times values
    head_output: np.ndarray  # (C,) W_O of this head times that
    output_by_head: np.ndarray  # (H, C)
    output_bias: np.ndarray | None  # (C,)
    output: np.ndarray  # (C,) of all heads
    added: np.ndarray  # (C,) what the block adds: the output, or its norm
    sum: np.ndarray  # (C,) the stream and that
    after: np.ndarray  # (C,) in a post-norm block the norm of the sum
    has_query_norm: bool
    has_norm_before: bool
    has_norm_after: bool
    is_post_norm: bool
    is_rotary: bool
    differences: dict[str, float]  # of each stage, the largest distance to what the model itself had there
    width: int  # how many numbers of a vector are drawn
    opened: OpenedCell | None = None  # a number and the products that it is the sum of

    def figures(self) -> list[Figure]:
        shown = self._shown()
        best = int(self.weights.argmax())
        query = [("W_Q.x", self.query_plain, "query_plain")]
        query += [("normed", self.query_normed, "query_normed")] if self.has_query_norm else []
        query += [("rotated", self.query, "query")] if self.is_rotary else []
        stream = [("stream", self.stream, "")] if self.has_norm_before else []
        scaled, bias, capped, masked = self._scores()
        beats: list[tuple[str, list[Figure]]] = [
            ("x: what the head reads of the stream", [
                self._vectors("What the head reads", [*stream, ("x", self.normed, "normed")], "data"),
            ]),
            ("q, k, v: three projections of x", [
                self._vectors("Query: what am I looking for?", query, "query"),
                self._vectors("Keys: what do I hold?", self._at_keys(self.key, shown, "key"), "key"),
                Note(self._projections()),
                self._vectors("Values: what is passed on?", self._at_keys(self.value, shown, "value"), "value"),
            ]),
            ("q . k: how well does each key fit?", [
                self._fit("", shown, {}),
                Note(written_out(f"q . k with {visible(self.keys[best])!r}", self.query, self.key[best])),
            ]),
            ("divided by the root of the width", [self._fit("", shown, scaled | bias | capped)]),
            ("the mask: what the query may not see gets -inf", [
                *([] if masked else [Note("This query may see every key; take an earlier position to see the mask.")]),
                self._fit("", shown, scaled | bias | capped | masked),
            ]),
            ("softmax: shares that add up to 1", [
                self._fit("How well do they fit? ", shown, scaled | bias | capped | masked, softmax=True),
            ]),
            ("the sum of the values, each times its weight", [
                self._weighted(shown),
                Note(written_out("number 0 of the weighted sum", self.weights, self.value[:, 0])),
            ]),
            ("W_O, and added to the stream", [self._output(), Note(self._check())]),
        ]  # fmt: skip
        figures: list[Figure] = [Note(self._place(shown))]
        for i, (title, parts) in enumerate(beats, 1):
            figures += [Note(title, f"{i} of {len(beats)}", step=True), *parts]
            if self.opened is not None and self.opened.cell.partition(":")[0] in BEATS[i - 1]:
                figures += self.opened.figures()
        return figures

    def _shown(self) -> list[int]:
        """The keys that are drawn, in order."""
        return sorted(np.argsort(-self.weights, kind="stable")[:MAX_KEYS].tolist())

    def _place(self, shown: list[int]) -> str:
        T, S = len(self.queries), len(self.keys)
        query = f"{visible(self.queries[self.position])!r} (place {self.position}, from 0, of {T})"
        of = {"self": "", "cross": " of the source", "encoder": " of the encoder"}[self.kind]
        shared = self.key_value_head != self.head
        group = f", keys and values of key-value head {self.key_value_head}" if shared else ""
        few = "" if len(shown) == S else f" The {len(shown)} keys with the largest weights are drawn."
        return f"Layer {self.layer}, head {self.head}{group}: {query} attends to {plural(S, 'key')}{of}.{few}"

    def _projections(self) -> str:
        """How queries and keys came about."""
        how = ["Keys are W_K.x and values W_V.x at each key"]
        how += ["queries and keys are normed, which bounds their products"] if self.has_query_norm else []
        if self.is_rotary:
            how.append("queries and keys are rotated by an angle that grows with the place, so that distance counts")
        return "; ".join(how) + "."

    def _at_keys(self, vectors_SD: np.ndarray, shown: list[int], stage: str) -> list[Row]:
        return [(self.keys[s], vectors_SD[s], f"{stage}:{s}") for s in shown]

    def _vectors(self, title: str, rows: list[Row], role: str, digits: int = 2) -> HeatMap:
        """Vectors one below the other: the first `width` numbers of each."""
        size = len(rows[0][1])
        n = min(self.width, size)
        values = np.stack([vector[:n] for _, vector, _ in rows])
        title += f" (first {n} of {size} numbers)" if n < size else f" ({size} numbers)"
        columns = [str(i) for i in range(n)]
        links = [[f"?cell={stage}:{i}" if stage else None for i in range(n)] for _, _, stage in rows]
        names = [name for name, _, _ in rows]
        return HeatMap(title, values, names, columns, role=role, signed=True, digits=digits, links=links)

    def _scores(self) -> list[dict[str, Any]]:
        """The columns between product and weight, by their names: scaled; with what positions add; capped; masked."""
        D = self.key.shape[1]
        scaled = f"/ sqrt({D})" if abs(self.scale * D**0.5 - 1) < 1e-6 else f"x {number(self.scale)}"
        masked = np.where(self.visible, self.scores, -np.inf)
        return [
            {scaled: self.dots * self.scale},
            {} if self.bias is None else {"+ bias": self.scaled},
            {} if self.softcap is None else {f"cap {self.softcap:g}": self.scores},
            {} if self.visible.all() else {"mask": masked},
        ]

    def _fit(self, title: str, shown: list[int], between: dict[str, Any], *, softmax: bool = False) -> Table:
        """From product towards weight, a row a key."""
        parts: dict[str, Any] = {"q . k": self.dots, **between}
        columns = [Column("key", "token"), *(Column(name, "number") for name in parts)]
        stages, names = list(parts.values()), [*parts]
        if softmax:
            columns.append(Column("softmax", "share", role="share"))
            stages, names = [*stages, self.weights], [*names, "softmax"]
        rows: list[list[Any]] = [[self.keys[s], *(float(stage[s]) for stage in stages)] for s in shown]
        scaled = names[1] if len(names) > 1 else ""
        opens = {"q . k": "dots", "softmax": "weights", "+ bias" if self.bias is not None else scaled: "scaled"}
        links = [[None, *(f"?cell={opens[n]}:{s}" if n in opens else None for n in names)] for s in shown]
        rest = ""
        if self.sink is not None and softmax:
            rows.append(["<sink>", *[None] * (len(stages) - 2), self.sink, self.sink_share])
            rest = " (the rest falls on the sink: no token)"
        return Table(
            f"{title}{', '.join([n for n in ('q . k', scaled, 'softmax') if n in names])}{rest}",
            columns,
            rows,
            links=links,
        )

    def _weighted(self, shown: list[int]) -> HeatMap:
        """Weight times value, and the sum."""
        parts_SD = self.weights[:, None] * self.value
        rows = self._at_keys(parts_SD, shown, "weighted")
        others = [s for s in range(len(self.keys)) if s not in shown]
        if others:
            rows.append(("others", parts_SD[others].sum(axis=0), ""))
        rows.append(("sum", self.weighted_values, "weighted_values"))
        return self._vectors("Weight times value; the last row is their sum", rows, "value", digits=3)

    def _output(self) -> HeatMap:
        """The head's own part of the output, and how all of it gets into the stream."""
        bias = " and the bias" if self.output_bias is not None else ""
        rows: list[Row] = [("this head", self.head_output, "head_output")]
        rows.append(("others", self.output - self.head_output, ""))
        if self.has_norm_after:
            rows += [("all", self.output, "output"), ("normed", self.added, "added")]
        rows += [("stream", self.stream, ""), ("added", self.sum, "sum")]
        if self.is_post_norm:
            rows.append(("normed", self.after, "after"))
        rows = [(name.replace(" ", "\N{NO-BREAK SPACE}"), *rest) for name, *rest in rows]  # type: ignore[misc]
        others = len(self.output_by_head) - 1
        return self._vectors(f"W_O of this head, of the other {others}{bias}; added to the stream", rows, "data")

    def _check(self) -> str:
        """How near the recomputed stages are to the model's own."""
        worst = max(self.differences, key=lambda stage: self.differences[stage])
        text = (
            "Every stage was computed again from the one before. Largest difference to the model's own numbers: "
            f"{self.differences[worst]:.1e} ({worst})."
        )
        rounded = any(d > ROUNDED * float(np.abs(getattr(self, stage)).max()) for stage, d in self.differences.items())
        return text + (" Numbers of few bits (int8, int4, bf16) were rounded on the way." if rounded else "")


def written_out(name: str, left: np.ndarray, right: np.ndarray, most: int = 4) -> str:
    """A sum of products as an equation, with the largest products written out.

    >>> written_out("x", np.array([1.0, -3.0, 0.5]), np.array([1.0, -1.0, 1.0]), most=2)
    'x = (-3.000) x (-1.000) + 1.000 x 1.000 + 1 smaller product = 4.500'
    """

    def signed(value: float) -> str:
        return f"({number(float(value))})" if value < 0 else number(float(value))

    products, n = left * right, len(left)
    largest = np.argsort(-np.abs(products), kind="stable")[:most]
    terms = [f"{signed(left[i])} x {signed(right[i])}" for i in largest]
    terms += [plural(n - most, "smaller product")] if n > most else []
    return f"{name} = {' + '.join(terms)} = {number(float(products.sum()))}"


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
    width: Annotated[int, Option("How many numbers of a vector to show; --json has all.", ge=1)] = 6,
    cell: Annotated[
        str | None, Option("A number to open into its products: query:0, key:2:0, dots:2, weighted_values:0, sum:0.")
    ] = None,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> AttentionWalkthrough:
    """One head for one query, stage by stage.

    Each stage is computed again from the one before, and compared with the model's own numbers.

    Raises:
        UsageError: there is no such place, or the model has no attention of this kind.
    """
    at = attention_layers(read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer), kind)
    if at.stack is None:
        raise UsageError("this attention is additive and has no queries and keys to multiply; look at a Transformer")
    layer = check_place("layer", layer, len(at.names))
    position = check_place("position", position, len(at.queries))
    head = check_place("head", head, at.stack.blocks[layer].attention.n_head)
    computation = HeadComputation(at, layer, head, position)
    with trace(model, *computation.taps) as seen:
        at.reading.run()
    with evaluating(model):
        stages = computation.stages(seen)
        opened = None if cell is None else open_cell(computation, stages, cell, at.keys)
    arrays: dict[str, Any] = {name: x.numpy() if isinstance(x, Tensor) else x for name, x in stages.items()}
    return AttentionWalkthrough(
        kind=kind,
        layer=layer,
        head=head,
        key_value_head=computation.key_value_head,
        position=position,
        queries=at.queries,
        keys=at.keys,
        has_query_norm=computation.attention.query_norm is not None,
        has_norm_before=computation.norms.before is not None,
        has_norm_after=computation.norms.behind is not None,
        is_post_norm=computation.norms.of_sum is not None,
        is_rotary=computation.rotates,
        width=width,
        opened=opened,
        **arrays,
    )
