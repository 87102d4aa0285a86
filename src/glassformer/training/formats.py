"""Numbers of a run as text; a dash for what is not known."""

from __future__ import annotations

from typing import Any

from glassformer.training.run_history import finite_number


def count(value: Any) -> str:
    """`1,003,854`; a dash for what is not known."""
    return f"{value:,.0f}" if finite_number(value) is not None else "–"


def decimal(value: Any, digits: int = 4) -> str:
    """`1.6470`; a dash for what is not known."""
    return f"{value:.{digits}f}" if finite_number(value) is not None else "–"


def duration(seconds: Any) -> str:
    """`2 h 5 min`, `4 min 3 s`, `12.3 s`, `85.0 ms`."""
    if (s := finite_number(seconds)) is None:
        return "–"
    if s < 1:
        return f"{1000 * s:.1f} ms"
    if s < 60:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def size(value: Any) -> str:
    """Bytes as `1.50 GiB`."""
    if (b := finite_number(value)) is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if b < 1024:
            return f"{b:.0f} B" if unit == "B" else f"{b:.1f} {unit}"
        b /= 1024
    return f"{b:.2f} GiB"
