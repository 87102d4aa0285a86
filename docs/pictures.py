"""Make the pictures of the documentation: `python docs/pictures.py`, about a minute and a half.

live-display.svg                  the panel at the end of `glassformer demo`
alignment/induction.svg           induction and loss over the steps of a run: `python docs/pictures.py runs/induction-1`
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from glassformer.figures import Curves, Line, save
from glassformer.recipes import train
from glassformer.training import RunFolder
from glassformer.training.display import LivePanel
from glassformer.training.run_history import RunHistory

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


def induction(run: str) -> None:
    """Induction and loss over the steps of a run of `task.kind=induction`."""
    found = RunHistory(RunFolder.open(run)).evaluations
    steps = [record["step"] for record in found]

    def line(name: str, key: str) -> Line:
        return Line(name, steps, [record[key] for record in found])

    losses = [
        line("Shakespeare", "val_loss"),
        line("random tokens, first time", "val_loss_first_time"),
        line("random tokens, second time", "val_loss_second_time"),
    ]
    figures = [
        Curves("Induction score of the best head", [line("score", "val_induction")], "step", y_max=1.0),
        Curves("Loss", losses, "step", "nats a token", y_max=5.0),
    ]
    save(figures, HERE / "alignment" / "induction.svg")


def main(overrides: tuple[str, ...] = ()) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that the panel shows a path as a reader would have it
        train("shakespeare-fast", overrides, out="runs/demo-1", callbacks=[Recorder()])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        induction(sys.argv[1])
    else:
        main()
