"""Make the pictures of the documentation: `python docs/pictures.py`, about a minute and a half.

live-display.svg   the panel at the end of `glassformer demo`
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from rich.console import Console

from glassformer.recipes import train
from glassformer.training.display import LivePanel

HERE = Path(__file__).resolve().parent


class Recorder(LivePanel):
    """A live panel that draws into memory and keeps its last state."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())

    def on_end(self) -> None:
        super().on_end()
        console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
        console.print(self._panel())
        svg = console.export_svg(title="glassformer demo")
        # rich's own form names a font on another host; a picture in a repository should ask nobody
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
        (HERE / "live-display.svg").write_text(svg, encoding="utf-8")


def main(overrides: tuple[str, ...] = ()) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that the panel shows a path as a reader would have it
        train("shakespeare-fast", overrides, out="runs/demo-1", callbacks=[Recorder()])


if __name__ == "__main__":
    main()
