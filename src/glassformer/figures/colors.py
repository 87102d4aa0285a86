"""The colours of figures: one for each role of a number, one for each line of a chart.

Roles have the colours of 3Blue1Brown's lectures (Deep Learning, chapters 5 to 7): weights blue and red, data grey,
queries yellow, keys teal, values red. Lines have those of Okabe and Ito (2008), which differ for most people.
"""

from __future__ import annotations

RGB = tuple[int, int, int]

ROLES: dict[str, RGB] = {
    "data": (128, 128, 128),
    "query": (214, 178, 18),
    "key": (22, 150, 142),
    "value": (205, 62, 50),
    "weights": (52, 110, 200),
    "share": (52, 110, 200),
}
NEGATIVE: RGB = (205, 62, 50)  # of signed numbers; positive ones have the colour of their role

TOKEN_STRENGTH = 0.78  # the strongest colour behind a token: its letters keep a contrast of 4.5 to 1
FULL_SURPRISE_BITS = 10.0  # surprise that is drawn in full colour

LINES: tuple[tuple[RGB, RGB], ...] = (  # on white, on black
    ((0, 114, 178), (86, 180, 233)),
    ((213, 94, 0), (240, 128, 48)),
    ((0, 140, 105), (53, 196, 154)),
    ((160, 130, 0), (240, 228, 66)),
    ((204, 121, 167), (222, 150, 190)),
    ((138, 90, 43), (201, 143, 91)),
    ((86, 150, 200), (130, 200, 240)),
    ((107, 116, 128), (154, 164, 176)),
)


def negative_of(role: str) -> RGB:
    """The colour of a role's negative numbers: red, or blue where red is the colour of the positive ones.

    >>> negative_of("key") == NEGATIVE, negative_of("value") == NEGATIVE
    (True, False)
    """
    return ROLES["weights"] if ROLES[role] == NEGATIVE else NEGATIVE


def role_color(role: str, share: float) -> RGB:
    """The full colour of a role; of its negative numbers where `share` is negative."""
    return negative_of(role) if share < 0 else ROLES[role]


def shade(role: str, share: float, *, background: int = 255) -> RGB:
    """The colour of a number that is `share` (-1 to 1) of the scale, mixed with a grey background (255: white)."""
    strength = min(abs(share), 1.0)
    red, green, blue = (round(background + (c - background) * strength) for c in role_color(role, share))
    return red, green, blue


def line_color(index: int, *, dark: bool = False) -> RGB:
    """The colour of a chart's line; they repeat after the last."""
    return LINES[index % len(LINES)][dark]


def css(color: RGB, alpha: float | None = None) -> str:
    """
    >>> css((1, 2, 3)), css((1, 2, 3), 0.5)
    ('rgb(1,2,3)', 'rgba(1,2,3,0.500)')
    """
    red, green, blue = color
    return f"rgb({red},{green},{blue})" if alpha is None else f"rgba({red},{green},{blue},{min(alpha, 1.0):.3f})"
