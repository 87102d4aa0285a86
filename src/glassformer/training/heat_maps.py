"""Heat maps as geometry, beside the curves of `charts`: rows of values over time as colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from glassformer.training.charts import BOTTOM, RIGHT, TOP, WIDTH, Chart, Scale

CELLS = 60  # columns at most
ROW = 17  # height, user units
SHADES = 24
# viridis (Smith and van der Walt, 2015): even in lightness, so that it also reads in grey and to the colour-blind
VIRIDIS = (
    *((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142)),
    *((31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37)),
)


def heat_map(
    id: str, title: str, steps: Sequence[int], rows: dict[str, np.ndarray], *, log: bool = True
) -> Chart | None:
    """Rows of values over time, (number of steps,) each, as colours; None when there is nothing to draw.

    More than `CELLS` steps are joined to as many columns, each of which shows the highest value in it.
    """
    table = np.array(list(rows.values()), dtype=float)  # (R, N)
    fine = np.isfinite(table) & ((table > 0) if log else True)
    if not rows or not fine.any():
        return None
    groups = np.array_split(np.arange(len(steps)), min(CELLS, len(steps)))
    table = np.where(fine, table, -np.inf)
    table = np.stack([table[:, group].max(axis=1) for group in groups], axis=1)  # (R, columns)
    seen = table[np.isfinite(table)]
    unit = Scale(float(seen.min()), float(seen.max()), 0, SHADES - 1, log)
    longest = max(len(name) for name in rows)
    left = min(250, 14 + round(6.6 * longest))
    height = TOP + ROW * len(rows) + BOTTOM
    width = (WIDTH - RIGHT - left) / len(groups)
    shades = np.full(table.shape, -1)
    shades[np.isfinite(table)] = np.clip(np.rint(unit(seen)), 0, SHADES - 1)
    chart = Chart(id, title, height, [], [], left=left)
    for shade in np.unique(shades[shades >= 0]):
        path = "".join(
            f"M{left + c * width:.1f} {TOP + r * ROW}h{width + 0.3:.1f}v{ROW - 1}h{-width - 0.3:.1f}z"
            for r, c in np.argwhere(shades == shade)
        )
        chart.cells.append((colour(shade / (SHADES - 1)), path))
    chart.y_ticks = [(TOP + ROW * (r + 0.5), name) for r, name in enumerate(rows)]
    chosen = sorted({0, len(groups) // 3, 2 * len(groups) // 3, len(groups) - 1})
    chart.x_ticks = [(left + (c + 0.5) * width, f"{steps[groups[c][-1]]:,}") for c in chosen]
    if log:
        ends = [unit.low * (unit.high / unit.low) ** (i / 6) for i in range(7)]
    else:
        ends = [unit.low + (unit.high - unit.low) * i / 6 for i in range(7)]
    chart.legend = [(colour(i / 6), f"{value:.1e}" if log else f"{value:.2f}") for i, value in enumerate(ends)]
    cells = [[float(f"{v:.3g}") if math.isfinite(v) else None for v in line] for line in table]
    chart.hover = {"left": left, "right": WIDTH - RIGHT, "top": TOP, "row": ROW, "names": list(rows), "cells": cells}
    chart.hover["steps"] = [int(steps[group[-1]]) for group in groups]
    return chart


def colour(share: float) -> str:
    """A share from 0 to 1 as a colour of viridis, `#rrggbb`."""
    place = share * (len(VIRIDIS) - 1)
    i = min(int(place), len(VIRIDIS) - 2)
    mixed = [round(a + (b - a) * (place - i)) for a, b in zip(VIRIDIS[i], VIRIDIS[i + 1], strict=True)]
    return "#" + "".join(f"{c:02x}" for c in mixed)
