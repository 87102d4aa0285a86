"""The charts, heat maps and tables of a run's report."""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import Any

import numpy as np

from glassformer.figures import Column, Curves, Figure, HeatMap, Line, Table
from glassformer.tasks import Score
from glassformer.training.formats import count, decimal, duration, finite_number, metric_name, size
from glassformer.training.run_history import RunHistory

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


def score_chart(h: RunHistory, *, x_log: bool = False) -> Curves | None:
    """The score of training and validation over the steps; None before the first. A score that the steps have too (the
    loss) has their curve."""
    score, levels = h.score, h.references
    lines = of_steps(h, "training", score.metric)
    for name, key, color in (("training, in eval mode", score.train_name, 2), ("validation", score.name, 1)):
        line = evaluated(h, name, key, color)
        if len(line.x):
            lines.append(line)
    if not lines:
        return None
    options: dict[str, Any] = {"y_axis": "nats a token" if score == Score() else "", "x_log": x_log}
    highest = max([1.2 * level for _, level in levels], default=None)
    return _chart(h, metric_name(score.name), lines, y_from_zero=False, y_max=highest, levels=levels, **options)


def step_charts(h: RunHistory) -> list[Figure]:
    """Learning rate, gradient norm, speed, utilisation, and every other number that a step has."""
    charts: list[Figure] = []
    for key, values in h.curves.items():
        if key in ("step", h.score.metric) or not np.isfinite(values).any() or f"val_{key}" in h.metric_names:
            continue
        title, factor, options = STEP_CHARTS.get(key, (key.replace("_", " "), 1.0, {"y_from_zero": False}))
        noisy = key != "lr"
        lines = [Line(title if not noisy else "each step", h.curves["step"], factor * values, color=0, faint=noisy)]
        if noisy:
            lines.append(Line("smoothed", *smooth(h.curves["step"], factor * values, _span(h)), color=0))
        charts.append(_chart(h, title, lines, compact=True, **options))
    return charts


def reward_chart(h: RunHistory) -> list[Figure]:
    """The reward over the distance from the model that the run began with, of runs that have both; each point is a mean
    over neighbouring steps."""
    if not all(np.isfinite(h.curves.get(key, np.empty(0))).any() for key in ("reward", "kl")):
        return []
    far, reward = (smooth(h.curves["step"], h.curves[key], _span(h))[1] for key in ("kl", "reward"))
    line = Line("reward", far, reward, color=1, dots=True)
    return [Curves("Reward against KL", [line], "KL from the start, nats an answer", "reward", y_from_zero=False)]


def residual_map(h: RunHistory) -> list[Figure]:
    """What each layer adds as a part of the residual stream behind its block, at evaluations that record activations
    (`training.watch_activations`): blocks come online over time."""
    steps = [record["step"] for record in h.diagnostics]
    rows: dict[str, np.ndarray] = {}
    for i, record in enumerate(h.diagnostics):
        given = record.get("activations")
        taps: dict[str, Any] = given if isinstance(given, dict) else {}
        for name, numbers in taps.items():
            found = re.fullmatch(r"((?:\w+\.)*blocks\.\d+)\.(attention|feedforward)\.output", name)
            after = taps.get(f"{found[1]}.residual.after") if found else None
            if found and after and (size := finite_number(after.get("rms"))):
                row = rows.setdefault(f"{found[1]}.{found[2]}", np.full(len(steps), math.nan))
                row[i] = (finite_number(numbers.get("rms")) or 0.0) / size
    if not rows:
        return []
    columns = np.unique(np.linspace(0, len(steps) - 1, MOST_MAP_COLUMNS).round().astype(int))
    values, named = np.stack(list(rows.values()))[:, columns], [f"{steps[i]:,}" for i in columns]
    return [
        HeatMap("What each layer adds, as a part of the residual stream", values, list(rows), named, "", "step", "key")
    ]


def metric_charts(h: RunHistory) -> list[Figure]:
    """A chart for each further metric of the evaluations, with its training values where steps have them; none for the
    score in another unit."""
    charts: list[Figure] = []
    for key in h.metric_names:
        line = evaluated(h, "validation", key, 1)
        name = key.removeprefix("val_")
        if not len(line.x) or (name not in h.curves and _is_the_score_in_another_unit(h, key)):
            continue
        smoothed = of_steps(h, "", name)[1:]
        charts.append(_chart(h, metric_name(key), [*smoothed, line], y_from_zero=False, compact=True))
    return charts


def _is_the_score_in_another_unit(h: RunHistory, key: str) -> bool:
    """Whether a metric is a fixed multiple of the score in all of several evaluations."""
    pairs = [(finite_number(record.get(key)), record[h.score.name]) for record in h.evaluations]
    ratios = [value / score for value, score in pairs if value is not None and score]
    return len(ratios) > 1 and np.allclose(ratios, ratios[0], rtol=1e-4)


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
    score = h.score
    keys = [score.train_name, score.name, "val_interval", *h.metric_names]
    names = [f"training {score.metric}", score.words, "± (95 %)", *map(metric_name, h.metric_names)]
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
    done, speeds, score = h.summary, h.curves["tokens_per_second"], h.score
    tokens = finite_number(h.plan.get("tokens_per_step"))
    speed = finite_number(float(np.nanmedian(speeds))) if np.isfinite(speeds).any() else None
    per_step = tokens / speed if tokens and speed else None  # without evaluations and samples
    rows = [
        ("parameters", h.plan.get("parameters"), done.get("parameters"), count),
        ("peak memory", memory.get("peak"), done.get("peak_memory_bytes"), size),
        ("time", h.plan.get("seconds"), done.get("whole_seconds") or done.get("seconds"), duration),
        ("time a step", h.plan.get("seconds_per_step"), per_step, duration),
        (score.words, h.plan.get(score.name), h.best[score.name], decimal),
        *((f"memory: {name}", value, None, size) for name, value in memory.items() if name != "peak"),
    ]
    cells = []
    for name, planned, actual, form in rows:
        planned, actual = finite_number(planned), finite_number(actual)
        if planned is None:
            continue
        ratio = f"{actual / planned:.2f}" if actual is not None and planned else ""
        shown = form(planned)
        if name == score.words and isinstance(interval := h.plan.get(f"{score.name}_interval"), list):
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


def of_steps(h: RunHistory, name: str, key: str) -> list[Line]:
    """A number of the steps as it is, and smoothed; no lines where steps have none."""
    step, values, span = h.curves["step"], h.curves.get(key, np.empty(0)), _span(h)
    if not np.isfinite(values).any():
        return []
    smoothed = Line(
        f"{name}, smoothed over {span:,.0f} steps" if name else "smoothed", *smooth(step, values, span), color=0
    )
    return [Line(name, step, values, color=0, faint=True), smoothed]


def evaluated(h: RunHistory, name: str, key: str, color: int) -> Line:
    """A number of the evaluations, with its 95 % interval where they have one."""
    records = [record for record in h.evaluations if finite_number(record.get(key)) is not None]
    y = np.array([record[key] for record in records], dtype=float)
    prefix = "train" if key == h.score.train_name else "val" if key == h.score.name else key
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
