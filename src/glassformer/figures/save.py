"""Figures as a file, whose name decides the form."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from glassformer.errors import UsageError
from glassformer.figures.primitives import Figure
from glassformer.files import write_text


def save(figures: Sequence[Figure], path: str | os.PathLike[str], title: str = "") -> None:
    """Write figures to a file, atomically: `.html`, `.svg` (no tables or texts) or `.json`.

    Raises:
        UsageError: the name ends otherwise, or SVG cannot hold the figures.
        GlassformerError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".html":
        from glassformer.figures.html import to_html

        text = to_html(figures, title)
    elif path.suffix.lower() == ".svg":
        from glassformer.figures.svg import to_svg

        text = to_svg(figures, title)
    elif path.suffix.lower() == ".json":
        from glassformer.figures.json import to_json

        text = json.dumps(to_json(figures), allow_nan=False)
    else:
        raise UsageError(f"{path}: figures are written as .svg, .html or .json; name it {path.stem}.svg")
    write_text(path, text)
