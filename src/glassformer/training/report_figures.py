"""The charts, heat maps and tables of a run's report."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np

from glassformer.figures import Column, Curves, Figure, HeatMap, Line, Table
from glassformer.training.formats import count, decimal, duration, size
from glassformer.training.run_history import RunHistory, finite_number

MOST_TABLE_ROWS = 200  # of events and evaluations, the last ones
MOST_MAP_ROWS, MOST_MAP_COLUMNS = 48, 60
SMOOTHED_POINTS = 4000  # of a smoothed curve
# What is drawn of every step: the title, what the numbers are multiplied by, and options of the chart.
STEP_CHARTS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "lr": ("Learning rate", 1.0, {}),
    "grad_norm": ("Gradient norm, before clipping", 1.0, {"y_log": True, "y_from_zero": False}),
    "tokens_per_second": ("Tokens a second", 1.0, {}),
    "mfu": ("Utilisation, % of the machine's measured peak", 100.0, {}),
}
# What is drawn of diagnostics: the title, the part and the key of a record, whether colours are logarithmic.
MAPS = (
    ("Update / weight, by layer", "parameters", "update", True),
    ("Gradient, root mean square, by layer", "parameters", "gradient", True),
    ("Activations, root mean square", "activations", "rms", True),
    ("Share of activations that are exactly 0", "activations", "zero", False),
)
ANOTHER_UNIT = ("val_bits_per_byte",)  # metrics that are the loss once more: no chart of their own


def metric_name(key: str) -> str:
    """
    >>> metric_name("val_accuracy"), metric_name("val_bits_per_byte")
    ('Accuracy', 'Bits per byte')
    """
    return key.removeprefix("val_").replace("_", " ").capitalize()


def references(h: RunHistory) -> list[tuple[str, float]]:
    """Losses to compare with, by name."""
    known = (("equal probabilities, ln V", h.uniform_loss), ("bigram model", h.bigram_loss))
    return [(f"{name} = {level:.4f}", level) for name, level in known if level is not None]


def loss_chart(h: RunHistory, *, x_log: bool = False) -> Curves | None:
    """Training and validation loss over the steps; None before the first."""
    step, loss, levels = h.curves["step"], h.curves["loss"], references(h)
    span = _span(h)
    lines = [
        Line("training", step, loss, color=0, faint=True),
        Line(f"training, smoothed over {span:,.0f} steps", *smooth(step, loss, span), color=0),
    ]
    for name, key, color in (("training, in eval mode", "train_loss_eval", 2), ("validation", "val_loss", 1)):
        line = _evaluated(h, name, key, color)
        if len(line.x):
            lines.append(line)
    highest = max([1.2 * level for _, level in levels], default=None)
    chart = _chart(
        h, "Loss", lines, y_axis="nats a token", x_log=x_log, y_from_zero=False, y_max=highest, levels=levels
    )
    return chart if np.isfinite(loss).any() or len(lines) > 2 else None


def step_charts(h: RunHistory) -> list[Figure]:
    """Learning rate, gradient norm, speed, utilisation, and every other number that a step has."""
    charts: list[Figure] = []
    for key, values in h.curves.items():
        if key in ("step", "loss") or not np.isfinite(values).any() or f"val_{key}" in h.metric_names:
            continue
        title, factor, options = STEP_CHARTS.get(key, (key.replace("_", " "), 1.0, {"y_from_zero": False}))
        noisy = key != "lr"
        lines = [Line(title if not noisy else "each step", h.curves["step"], factor * values, color=0, faint=noisy)]
        if noisy:
            lines.append(Line("smoothed", *smooth(h.curves["step"], factor * values, _span(h)), color=0))
        charts.append(_chart(h, title, lines, compact=True, **options))
    return charts


def metric_charts(h: RunHistory) -> list[Figure]:
    """A chart for each further metric of the evaluations, with its training values where steps have them."""
    charts: list[Figure] = []
    for key in h.metric_names:
        name = key.removeprefix("val_")
        if key in ANOTHER_UNIT or not any(finite_number(record.get(key)) is not None for record in h.evaluations):
            continue
        lines = [_evaluated(h, "validation", key, 1)]
        if name in h.curves:
            lines.insert(0, Line("smoothed", *smooth(h.curves["step"], h.curves[name], _span(h)), color=0))
        charts.append(_chart(h, metric_name(key), lines, y_from_zero=False, compact=True))
    return charts


def diagnostic_maps(h: RunHistory) -> list[Figure]:
    """Update ratios and gradients by layer over time, and activations where the recipe records them."""
    maps: list[Figure] = []
    steps = [record["step"] for record in h.diagnostics]
    groups = np.array_split(np.arange(len(steps)), min(MOST_MAP_COLUMNS, max(len(steps), 1)))
    columns = [f"{steps[group[-1]]:,}" for group in groups if len(group)]
    for title, part, key, log in MAPS:
        rows = _diagnostic_rows(h, part, key)
        values = np.array(list(rows.values()), dtype=float).reshape(len(rows), len(steps))
        if not (values > 0 if log else np.isfinite(values)).any():
            continue
        values = np.where(np.isfinite(values), values, -np.inf)
        joined = np.stack([values[:, group].max(axis=1) for group in groups], axis=1)  # the highest shows
        joined = np.where(np.isfinite(joined), joined, np.nan)
        maps.append(HeatMap(title, joined, list(rows), columns, "", "step", "weights", log=log))
    return maps


def _diagnostic_rows(h: RunHistory, part: str, key: str) -> dict[str, np.ndarray]:
    """A row for each name; where there are too many, one for each part of a layer, then one for each layer; what shares
    a row gives its highest value."""
    rows: dict[str, np.ndarray] = {}
    for depth in (9, 3, 2):  # words of a name
        rows = {}
        for i, record in enumerate(h.diagnostics):
            names = record.get(part)
            for name, numbers in names.items() if isinstance(names, dict) else ():
                value = finite_number(numbers.get(key)) if isinstance(numbers, dict) else None
                if value is not None:
                    words = name.removesuffix(".weight").split(".")[:depth]
                    row = rows.setdefault(".".join(words), np.full(len(h.diagnostics), math.nan))
                    row[i] = np.fmax(row[i], value)
        if len(rows) <= MOST_MAP_ROWS:
            break
    return rows


def event_table(h: RunHistory) -> Table:
    """The last events."""
    rows = [(count(e.get("step")), e.get("kind", ""), e.get("text", "")) for e in h.events[-MOST_TABLE_ROWS:]]
    return Table("", (Column("step"), Column("kind"), Column("event")), rows)


def evaluation_table(h: RunHistory) -> Table:
    """The last evaluations."""
    keys = ["train_loss_eval", "val_loss", "val_interval", *h.metric_names]
    names = ["training loss", "validation loss", "± (95 %)", *map(metric_name, h.metric_names)]
    rows = [
        (record["step"], *(finite_number(record.get(key)) for key in keys))
        for record in h.evaluations[-MOST_TABLE_ROWS:]
    ]
    columns = (Column("step", "count"), *(Column(name, "number", 4) for name in names))
    return Table(f"Evaluations ({len(h.evaluations):,}; the last {len(rows)})", columns, rows)


def plan_table(h: RunHistory) -> Table:
    """What was predicted, what came, and actual / predicted."""
    memory = h.plan.get("memory_bytes")
    memory = memory if isinstance(memory, dict) else {}
    done, speeds = h.summary, h.curves["tokens_per_second"]
    tokens = finite_number(h.plan.get("tokens_per_step"))
    speed = finite_number(float(np.nanmedian(speeds))) if np.isfinite(speeds).any() else None
    per_step = tokens / speed if tokens and speed else None  # without evaluations and samples
    rows = [
        ("parameters", h.plan.get("parameters"), done.get("parameters"), count),
        ("peak memory", memory.get("peak"), done.get("peak_memory_bytes"), size),
        ("time", h.plan.get("seconds"), done.get("whole_seconds") or done.get("seconds"), duration),
        ("time a step", h.plan.get("seconds_per_step"), per_step, duration),
        ("validation loss", h.plan.get("val_loss"), done.get("val_loss"), decimal),
        *((f"memory: {name}", value, None, size) for name, value in memory.items() if name != "peak"),
    ]
    cells = []
    for name, planned, actual, form in rows:
        planned, actual = finite_number(planned), finite_number(actual)
        if planned is None:
            continue
        ratio = f"{actual / planned:.2f}" if actual is not None and planned else ""
        shown = form(planned)
        if name == "validation loss" and isinstance(interval := h.plan.get("val_loss_interval"), list):
            low, high = (finite_number(end) for end in (*interval, None, None)[:2])
            shown += f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else ""
        cells.append((name, shown, "" if actual is None else form(actual), ratio))
    return Table("", (Column(""), Column("predicted"), Column("actual"), Column("actual / predicted")), cells)


def configuration_tables(h: RunHistory) -> list[Table]:
    """recipe.toml as tables: what was asked, what was derived, the machine, then section by section."""
    first = [name for name in ("asked", "derived", "machine") if name in h.recipe]
    names = [*first, *(name for name in h.recipe if name not in first)]
    columns = (Column("key"), Column("value"))
    return [Table(f"recipe: {name}", columns, list(_flat(h.recipe[name]))) for name in names]


def _flat(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        yield name, "\n".join(map(str, value)) or "–"
    else:
        yield name, str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "–"


def _chart(h: RunHistory, title: str, lines: list[Line], **options: Any) -> Curves:
    """A chart over the steps with the run's events."""
    events = [(str(e.get("kind", "event")), e["step"]) for e in h.events if finite_number(e.get("step")) is not None]
    return Curves(title, lines, "step", events=events, **options)


def _evaluated(h: RunHistory, name: str, key: str, color: int) -> Line:
    """A number of the evaluations, with its 95 % interval where they have one."""
    records = [record for record in h.evaluations if finite_number(record.get(key)) is not None]
    y = np.array([record[key] for record in records], dtype=float)
    prefix = "train" if key.startswith("train") else "val" if key == "val_loss" else key
    half = [finite_number(record.get(f"{prefix}_interval")) for record in records]
    band = np.array([math.nan if value is None else value for value in half], dtype=float)
    known = {"low": y - band, "high": y + band} if np.isfinite(band).any() else {}
    return Line(name, [record["step"] for record in records], y, color=color, dots=True, **known)


def _span(h: RunHistory) -> float:
    """Steps that a smoothed curve is a mean over."""
    return max(10.0, len(h.curves["step"]) / 50)


def smooth(steps: Any, values: Any, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps and means over the neighbours on both sides, so without a lag: weights fall by e within `span` / 2 steps.

    NaN has no weight. More than `SMOOTHED_POINTS` points are first joined to that many, which cannot be seen.

    >>> smooth([1, 2, 3, 4], [1.0, 1.0, math.nan, 1.0], 4)[1].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    joined = max(1, len(y) // SMOOTHED_POINTS)
    known = np.isfinite(y)
    starts = np.arange(0, len(y), joined)
    if not len(starts):
        return x, y
    weight = np.add.reduceat(known.astype(float), starts)
    total = np.add.reduceat(np.where(known, y, 0.0), starts)
    keep = math.exp(-2 * joined / span)

    def both_sides(a: np.ndarray) -> np.ndarray:
        forward, backward = (
            np.array(list(accumulate(side.tolist(), lambda past, now: keep * past + now))) for side in (a, a[::-1])
        )
        return forward + backward[::-1] - a  # each direction counts a step itself

    near = both_sides(weight)
    middle = x[np.minimum(starts + joined // 2, len(x) - 1)]
    return middle, np.where(near > 1e-9, both_sides(total) / np.maximum(near, 1e-9), math.nan)
