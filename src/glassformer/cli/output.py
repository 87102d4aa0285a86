"""What commands print: results as JSON; pieces as they come, plain or colored by surprise; sizes and short texts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glassformer.cli.startup import is_utf8

if TYPE_CHECKING:
    from glassformer.generation import Piece


def print_json(data: Any, *, indent: int | None = 2) -> None:
    """JSON on standard output (`files.json_text`); on one line if `indent` is None, escaped beyond ASCII where the
    console is not UTF-8."""
    from glassformer.files import json_text

    sys.stdout.write(json_text(data, indent=indent, ascii=not is_utf8(sys.stdout)) + "\n")
    sys.stdout.flush()


def piece_printer(colors: bool) -> Callable[[Piece], None]:
    """A function that writes one piece to standard output, at once."""
    if not colors:
        return lambda piece: print(piece.text, end="", flush=True)
    from rich.console import Console
    from rich.text import Text

    from glassformer.figures.terminal import surprise_style  # rich takes a fifth of a second: for colors only

    console = Console(highlight=False, soft_wrap=True)

    def colored(piece: Piece) -> None:
        console.print(Text(piece.text, style=surprise_style(piece.probability)), end="")
        sys.stdout.flush()

    return colored


def size(n: float) -> str:
    """
    >>> size(2_500_000), size(8e10)
    ('2.50 MB', '80.0 GB')
    """
    scale, unit = next(((s, u) for s, u in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if n >= s), (1e3, "kB"))
    digits = 2 if n / scale < 10 else 1 if n / scale < 100 else 0
    return f"{n / scale:,.{digits}f} {unit}"


def one_line(text: str) -> str:
    """A text as one line, so that line n of the output belongs to line n of the input."""
    return " ".join(text.splitlines())


def shortened(text: str, width: int = 48) -> str:
    """A text as one line of `width` characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
