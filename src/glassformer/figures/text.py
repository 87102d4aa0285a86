"""Numbers and tokens as text, the same in every renderer."""

from __future__ import annotations

import unicodedata


def percent(share: float) -> str:
    """
    >>> percent(0.5), percent(0.00012), percent(1e-9), percent(0.0)
    ('50.0 %', '0.012 %', '1e-07 %', '0 %')
    """
    if share == 0:
        return "0 %"
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits after the point; in powers of ten where those would all be 0, or it is very large.

    >>> number(3.14159), number(0.00001), number(123456.0), number(float("-inf")), number(0.0)
    ('3.142', '1.00e-05', '1.23e+05', '-inf', '0.000')
    """
    if value != 0 and abs(value) < float("inf") and not 10.0**-digits <= abs(value) < 100_000:
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def short_number(value: float) -> str:
    """The label of a tick.

    >>> short_number(20000.0), short_number(0.25), short_number(0.00003), short_number(0)
    ('20k', '0.25', '3e-05', '0')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def bar(fraction: float, width: int) -> str:
    """A bar in eighths of a character.

    >>> bar(0.5, 3), bar(0.0, 3)
    ('█▌', '')
    """
    full, rest = divmod(round(min(max(fraction, 0.0), 1.0) * width * 8), 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def visible(token: str, width: int | None = None) -> str:
    """A token with visible spaces, cut to `width` characters: a space as ␣; one that does not break or has another
    width as ⍽ (its symbol in ISO 9995-7).

    >>> visible(" the"), visible("oui\xa0!"), visible("understanding", 6)
    ('␣the', 'oui⍽!', 'under…')
    """
    token = "".join("␣" if c == " " else "⍽" if unicodedata.category(c) == "Zs" else c for c in token)
    return token if width is None or len(token) <= width else token[: width - 1] + "…"
