"""Cross-attention as a picture: where a decoder looked in the source for each token that it wrote.

One large map, the mean over the heads of the last layer, and a small one for every head of every layer. Rows are target
tokens, columns source tokens; a row adds up to 1. The first such picture: Bahdanau et al. 2014,
https://arxiv.org/abs/1409.0473, figure 3. It is SVG without a script, which a browser, an editor or a page can take.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures import visible
from glassformer.files import write_text
from glassformer.processors.tokenizers.alphabet import legible
from glassformer.training.heat_maps import SHADES, colour

CELL, SMALLEST_CELL = 26.0, 13.0  # side of a cell of the large map, user units
WIDTH = 860.0  # what the picture fills, unless a long sentence needs more
LETTER = 7.2  # width of one, at the size of the labels
LABEL = 18  # characters of a label that are shown
GAP = 14.0


def write_attention_picture(
    path: str | os.PathLike[str],
    weights_LHTS: np.ndarray,
    source: Sequence[str],
    target: Sequence[str],
    *,
    title: str = "",
) -> None:
    """Write `attention_svg` to a file, atomically: .svg as it is, .html as a page of its own.

    Raises:
        UsageError: the name ends otherwise.
        GlassformerError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".html"):
        raise UsageError(f"{path}: a picture of attention is an .svg or an .html; name it {Path(path).stem}.svg")
    svg = attention_svg(weights_LHTS, source, target, title=title)
    if suffix == ".html":
        head = f'<meta charset="utf-8"><title>{_xml(title or "Cross-attention")}</title>'
        svg = f'<!doctype html>\n<html lang="en"><head>{head}</head><body style="margin:1rem">\n{svg}</body></html>\n'
    write_text(Path(path), svg)


def attention_svg(weights_LHTS: np.ndarray, source: Sequence[str], target: Sequence[str], *, title: str = "") -> str:
    """The picture as SVG text.

    Args:
        weights: (layers, H, T, S), as `glassformer.generation.cross_attention` gives it.
        source, target: the S and T tokens as text.

    Raises:
        UsageError: there are not as many tokens as rows and columns.
    """
    L, H, T, S = weights_LHTS.shape
    if (len(target), len(source)) != (T, S):
        raise UsageError(f"{T} x {S} weights for {len(target)} x {len(source)} tokens; give one label for each")
    across, down = [_short(text) for text in source], [_short(text) for text in target]
    left = 2 * GAP + LETTER * max(map(_letters, down))
    cell = min(CELL, max(SMALLEST_CELL, (WIDTH - left - GAP) / S))
    top = 58 + LETTER * max(map(_letters, across))
    mean_TS = weights_LHTS[-1].mean(axis=0)
    kind = f"last layer, mean over {H} heads" if H > 1 else "weights"
    parts = [
        _text(GAP, 20, title or "Cross-attention", size=15, weight="bold"),
        _text(GAP, 38, f"{kind}; down: what was written, across: what was read", fill="#555"),
        *(_across(left + (s + 0.5) * cell, top - 6, label) for s, label in enumerate(across)),
        *(_text(left - 6, top + (t + 0.5) * cell + 4, label, anchor="end") for t, label in enumerate(down)),
        _cells(mean_TS, left, top, cell, across, down),
        _legend(float(mean_TS.max()), left, top + T * cell + GAP),
    ]
    width, y = max(WIDTH, left + S * cell + GAP), top + T * cell + 64
    if L * H > 1:
        parts.append(_text(GAP, y, "every head of every layer, each from 0 to its own highest weight", fill="#555"))
        step = (width - GAP) / H
        small = min(CELL / 2, (step - GAP) / S)
        y += 12
        for layer in range(L):
            for head in range(H):
                x = GAP + head * step
                name = f"layer {layer + 1}, head {head + 1}" if step > 120 else f"{layer + 1}.{head + 1}"
                parts.append(_text(x, y + 12, name, size=11, fill="#555"))
                parts.append(_shades(weights_LHTS[layer, head], x, y + 18, small))
            y += T * small + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" '
        f'viewBox="0 0 {width:.0f} {y:.0f}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _cells(weights_TS: np.ndarray, x: float, y: float, cell: float, across: list[str], down: list[str]) -> str:
    """A map whose cells say what they are when the mouse rests on them."""
    highest = max(float(weights_TS.max()), 1e-12)
    return "".join(
        f'<rect x="{x + s * cell:.1f}" y="{y + t * cell:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
        f'fill="{colour(float(weight) / highest)}"><title>{_xml(down[t])} ← {_xml(across[s])}: {weight:.3f}</title>'
        "</rect>"
        for (t, s), weight in np.ndenumerate(weights_TS)
    )


def _shades(weights_TS: np.ndarray, x: float, y: float, cell: float) -> str:
    """A small map: one path a shade, neighbours of one shade joined."""
    T, S = weights_TS.shape
    shades = np.rint(weights_TS / max(float(weights_TS.max()), 1e-12) * (SHADES - 1)).astype(int)
    paths: dict[int, str] = {}
    for t, row in enumerate(shades):
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        for start, end in zip(starts, [*starts[1:], S], strict=True):
            run = (end - start) * cell
            box = f"M{x + start * cell:.2f} {y + t * cell:.2f}h{run:.2f}v{cell:.2f}h{-run:.2f}z"
            paths[row[start]] = paths.get(row[start], "") + box
    drawn = (f'<path d="{path}" fill="{colour(shade / (SHADES - 1))}"/>' for shade, path in paths.items())
    return f'<g shape-rendering="crispEdges">{"".join(drawn)}</g>'


def _legend(highest: float, x: float, y: float) -> str:
    boxes = "".join(
        f'<rect x="{x + 12 * i:.1f}" y="{y:.1f}" width="12" height="10" fill="{colour(i / 9)}"/>' for i in range(10)
    )
    return boxes + _text(x, y + 24, "0", size=11) + _text(x + 120, y + 24, f"{highest:.2f}", size=11, anchor="end")


def _across(x: float, y: float, label: str) -> str:
    """A label above a column, to be read from below."""
    return f'<text transform="translate({x + 4:.1f} {y:.1f}) rotate(-90)">{_xml(label)}</text>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, fill: str = "#000", anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{_xml(text)}</text>'
    )


def _xml(text: str) -> str:
    """Text as XML may hold it."""
    return escape(legible(text))


def _letters(label: str) -> int:
    """How many letters wide a label is: those of Chinese, Japanese and Korean are two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)


def _short(token: str) -> str:
    """A token as a label, a space as a sign that can be seen."""
    return visible(token, LABEL)
