"""Numbers of a run as text; a dash for what is not known."""

from __future__ import annotations

import math
from typing import Any


def finite_number(value: Any) -> float | None:
    """The value if it is a finite number, else None.

    >>> finite_number(2), finite_number(float("nan")), finite_number("2"), finite_number(True)
    (2, None, None, None)
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return value if real and math.isfinite(value) else None


def metric_name(key: str) -> str:
    """
    >>> metric_name("val_accuracy"), metric_name("val_bits_per_byte")
    ('Accuracy', 'Bits per byte')
    """
    return key.removeprefix("val_").replace("_", " ").capitalize()


def count(value: Any) -> str:
    """`1,003,854`"""
    return decimal(value, 0, ",")


def decimal(value: Any, digits: int = 4, separator: str = "") -> str:
    """`1.6470`"""
    return f"{value:{separator}.{digits}f}" if finite_number(value) is not None else "–"


def with_interval(value: Any, interval: Any) -> str:
    """`1.6470 ± 0.0124`, without an interval where it is not known."""
    return decimal(value) + (f" ± {decimal(interval)}" if finite_number(interval) is not None else "")


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


def clock(seconds: float) -> str:
    """`1:02:03`, `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def size(value: Any) -> str:
    """Bytes as `1.50 GiB`."""
    if (b := finite_number(value)) is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if b < 1024:
            return f"{b:.0f} B" if unit == "B" else f"{b:.1f} {unit}"
        b /= 1024
    return f"{b:.2f} GiB"
