"""A step as figures: the stages in order, the first few numbers of each vector, and two cells worked out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glassformer.figures import Column, Figure, HeatMap, Note, Table, number, visible

if TYPE_CHECKING:
    from glassformer.inspection.attention_walkthrough import StepView

MOST_KEYS = 12  # that are drawn
FEW_BITS = 1e-3  # of a stage's largest number; those of 32 bits come nearer


def drawn(v: StepView) -> list[Figure]:
    """All stages."""
    shown = _shown(v)
    T, S = len(v.queries), len(v.keys)
    asks = f"{visible(v.queries[v.position])!r} (place {v.position}, from 0, of {T}) asks"
    of = {"self": "", "cross": " of the source", "encoder": " of the encoder"}[v.kind]
    group = "" if v.key_value_head == v.head else f", keys and values of key-value head {v.key_value_head}"
    few = "" if len(shown) == S else f" The {len(shown)} keys it looks at most are drawn."
    best = int(v.weights.argmax())
    return [
        Note(f"Layer {v.layer}, head {v.head}{group}: {asks} {S} keys{of}.{few}"),
        _vectors(
            v,
            "1. x, what the head reads of the stream",
            {"stream": v.before, "x": v.normed} if v.is_normed_before else {"x": v.normed},
            "data",
        ),
        _vectors(v, "2. Query: what am I looking for?", _made(v), "query"),
        _at_keys(v, "3. Keys: what do I hold?", v.key, shown, "key"),
        Note(_told(v)),
        _at_keys(v, "4. Values: what will I tell?", v.value, shown, "value"),
        _fit(v, shown),
        Note(v.cell("dots", best).said()),
        *_sums(v, shown),
        Note(v.cell("found", 0).said()),
        _written(v),
        Note(_checked(v)),
    ]


def _shown(v: StepView) -> list[int]:
    """The keys that are drawn, in order."""
    S = len(v.keys)
    if S <= MOST_KEYS:
        return list(range(S))
    return sorted(np.argsort(-v.weights, kind="stable")[:MOST_KEYS].tolist())


def _made(v: StepView) -> dict[str, np.ndarray]:
    """The query, and what it was before norm and rotation where it went through them."""
    rows = {"W_Q.x": v.query_plain}
    if v.is_normed:
        rows["normed"] = v.query_normed
    if v.matrices.positions is not None:
        rows["turned"] = v.query
    return rows


def _told(v: StepView) -> str:
    """How queries and keys came about."""
    how = ["Keys are W_K.x and values W_V.x of what stands at each key"]
    if v.is_normed:
        how.append("queries and keys are normed, which bounds their products")
    if v.matrices.positions is not None:
        how.append("queries and keys are turned by an angle that grows with the place, which tells their distance")
    return "; ".join(how) + "."


def _vectors(v: StepView, title: str, rows: dict[str, np.ndarray], role: str) -> HeatMap:
    """Vectors one below the other."""
    size = len(next(iter(rows.values())))
    n = min(v.width, size)
    values = np.stack([vector[:n] for vector in rows.values()])
    return HeatMap(f"{title}{_first(n, size)}", values, list(rows), [str(i) for i in range(n)], role=role, signed=True)


def _at_keys(v: StepView, title: str, vectors_SD: np.ndarray, shown: list[int], role: str) -> HeatMap:
    size = vectors_SD.shape[1]
    n = min(v.width, size)
    rows, columns = [v.keys[s] for s in shown], [str(i) for i in range(n)]
    return HeatMap(f"{title}{_first(n, size)}", vectors_SD[shown][:, :n], rows, columns, role=role, signed=True)


def _fit(v: StepView, shown: list[int]) -> Table:
    """From product to share, a row a key."""
    D = v.key.shape[1]
    usual = abs(v.scale * D**0.5 - 1) < 1e-6
    scaled = f"/ sqrt({D})" if usual else f"x {number(v.scale)}"
    columns = [Column("key", "token"), Column("q . k", "number"), Column(scaled, "number")]
    parts: list[Any] = [v.dots, v.dots * v.scale]
    if v.bias is not None:
        columns.append(Column("+ bias", "number"))
        parts.append(v.scaled)
    if v.softcap is not None:
        columns.append(Column(f"cap {v.softcap:g}", "number"))
        parts.append(v.scores)
    if not v.visible.all():
        columns.append(Column("mask", "number"))
        parts.append(np.where(v.visible, v.scores, -np.inf))
    columns.append(Column("softmax", "share", role="share"))
    parts.append(v.weights)
    rows: list[list[Any]] = [[v.keys[s], *(float(part[s]) for part in parts)] for s in shown]
    if v.sink is not None:
        gap = [None] * (len(parts) - 2)
        rows.append(["<sink>", *gap, v.sink, v.sink_share])
    rest = " (the rest falls on the sink: nobody)" if v.sink is not None else ""
    return Table(f"5. How well do they fit? q . k, {scaled}, softmax{rest}", columns, rows)


def _sums(v: StepView, shown: list[int]) -> list[Figure]:
    """Share times value, and the sum."""
    size = len(v.found)
    n = min(v.width, size)
    told = v.weights[:, None] * v.value
    rows = [told[shown][:, :n]]
    names = [v.keys[s] for s in shown]
    others = [s for s in range(len(v.keys)) if s not in shown]
    if others:
        rows.append(told[others].sum(axis=0, keepdims=True)[:, :n])
        names.append("others")
    rows.append(v.found[None, :n])
    values = np.concatenate(rows)
    title = f"6. Share times value; the last row is their sum, what the head found{_first(n, size)}"
    return [HeatMap(title, values, [*names, "sum"], [str(i) for i in range(n)], role="value", signed=True, digits=3)]


def _written(v: StepView) -> HeatMap:
    """The head's own part of the output, and the way of all of it into the stream."""
    H = len(v.said_by_head)
    bias = " and the bias" if v.output_bias is not None else ""
    rows = {"this head": v.said, "others": v.output - v.said}
    if v.is_normed_after:
        rows |= {"all": v.output, "normed": v.added}
    rows |= {"stream": v.before, "added": v.sum}
    if v.is_post_norm:
        rows["normed"] = v.after
    rows = {name.replace(" ", "\N{NO-BREAK SPACE}"): vector for name, vector in rows.items()}
    return _vectors(v, f"7. W_O of this head, of the other {H - 1}{bias}; added to the stream", rows, "data")


def _checked(v: StepView) -> str:
    """How near the recomputed stages are to the model's own."""
    worst = max(v.differences, key=lambda stage: v.differences[stage])
    text = (
        "Every stage was computed anew from the one before. Largest difference to the model's own numbers: "
        f"{v.differences[worst]:.1e} ({worst})."
    )
    rounded = any(d > FEW_BITS * float(np.abs(getattr(v, stage)).max()) for stage, d in v.differences.items())
    return text + (" Numbers of few bits (int8, int4, bf16) were rounded on the way." if rounded else "")


def _first(n: int, size: int) -> str:
    return f" (first {n} of {size} numbers)" if n < size else f" ({size} numbers)"
