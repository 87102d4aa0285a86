"""Two pictures and two tables of `compare_history`, as SVG files and as one page that any browser shows by itself.

The geometry of the curves is that of a run's report (`glassformer.training.charts`), and so are the rules: no network,
no script from elsewhere, every text through the template engine's escaping.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from glassformer.training.charts import Chart, Series, line_chart

# Okabe and Ito 2008: told apart by most who see colours differently; n-grams are grey, the Transformer the warmest
STYLES = {
    "n-gram": "c0",
    "bigram": "c1",
    "mlp": "c2",
    "rnn": "c3",
    "gru": "c4",
    "lstm": "c5",
    "transformer": "c6",
    "seq2seq": "c5",
    "seq2seq-attention": "c4",
}


def charts_of(result: dict[str, Any]) -> dict[str, list[tuple[Chart, str]]]:
    """The pictures: by the name of their file, charts to stand below each other, each with what its x-axis counts."""
    made: dict[str, list[tuple[Chart | None, str]]] = {}
    if loss := result.get("loss"):
        counted = {f"{p['n']}-grams, counted": p["loss"] for p in loss["curves"][0]["points"] if 1 < p["n"] < 6}
        made["loss"] = [
            (
                line_chart(
                    "flops",
                    "Validation loss (nats a character) against operations of training",
                    [_series(c, "flops", "loss") for c in loss["curves"] if c["kind"] != "n-gram"],
                    x_log=True,
                    lines=list(counted.items()),
                    height=340,
                ),
                "operations (FLOPs)",
            ),
            (
                line_chart(
                    "seconds",
                    "The same against seconds of training",
                    [_series(c, "seconds", "loss") for c in loss["curves"]],
                    x_log=True,
                    height=340,
                ),
                "seconds",
            ),
        ]
    if bottleneck := result.get("bottleneck"):
        made["bottleneck"] = [
            (
                line_chart(
                    key, title, [_series(c, "length", key) for c in bottleneck["curves"]], y_from_zero=True, height=260
                ),
                "letters of the string",
            )
            for key, title in (
                ("exact", "Share of strings copied without a mistake"),
                ("tokens", "Share of letters said right when all before them are told"),
            )
        ]
    return {name: [(chart, x) for chart, x in charts if chart is not None] for name, charts in made.items()}


def svg(charts: Sequence[tuple[Chart, str]]) -> str:
    """Charts below each other with one key to the colours, as one SVG file; it follows the reader's light or dark."""
    tops, height = [], 34
    for chart, _ in charts:
        tops.append(height)
        height += chart.height + 44
    keys = {series.style: series.name for chart, _ in charts for series in chart.series}
    drawn = [(top, chart, x) for top, (chart, x) in zip(tops, charts, strict=True)]
    return _template("history_chart.svg").render(charts=drawn, keys=sorted(keys.items()), height=height)


def page(result: dict[str, Any]) -> str:
    """All of it as one HTML page."""
    from markupsafe import Markup

    pictures = {name: Markup(svg(charts)) for name, charts in charts_of(result).items()}
    return _template("history_page.html").render(pictures=pictures, **{"loss": None, "bottleneck": None, **result})


def _series(curve: dict[str, Any], x: str, y: str) -> Series:
    points = sorted((p[x], p[y]) for p in curve["points"])  # a longer n-gram may be counted in less time
    return Series(curve["name"], [x for x, _ in points], [y for _, y in points], STYLES[curve["kind"]])


@lru_cache
def _template(name: str) -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files(__package__).joinpath(name).read_text(encoding="utf-8").lstrip())
