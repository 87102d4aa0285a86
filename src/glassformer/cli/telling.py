"""What commands print: results as JSON; pieces as they come, plain or coloured by surprise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glassformer.cli.console import is_utf8

if TYPE_CHECKING:
    from glassformer.generation import Piece


def print_json(data: Any, *, indent: int | None = 2) -> None:
    """A result for machines on standard output: JSON that any reader takes (`files.json_text`); on one line if `indent`
    is None, and escaped beyond ASCII where the console is not UTF-8."""
    from glassformer.files import json_text

    sys.stdout.write(json_text(data, indent=indent, ascii=not is_utf8(sys.stdout)) + "\n")
    sys.stdout.flush()


def teller(colors: bool) -> Callable[[Piece], None]:
    """What writes one piece to standard output, at once."""
    if not colors:

        def plain(piece: Piece) -> None:
            sys.stdout.write(piece.text)
            sys.stdout.flush()

        return plain
    from rich.console import Console
    from rich.text import Text

    from glassformer.figures.terminal import surprise_style  # a fifth of a second: only for who asks for colours

    console = Console(highlight=False, soft_wrap=True)

    def coloured(piece: Piece) -> None:
        console.print(Text(piece.text, style=surprise_style(piece.probability)), end="")
        sys.stdout.flush()

    return coloured
