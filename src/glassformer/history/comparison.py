"""The experiments about the models that came before, together: results as JSON, pictures as SVG, a page as HTML.

loss          what a loss costs in operations and seconds      `loss_against_compute`
bottleneck    how much of a sentence fits into one vector      `bottleneck`
recall        who remembers a fact that is far back            `recall`
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError
from glassformer.figures import Curves, save
from glassformer.files import write_json
from glassformer.history.bottleneck import bottleneck
from glassformer.history.figures import history_figures
from glassformer.history.loss_against_compute import Log, loss_against_compute
from glassformer.history.recall import recall

# Half an hour or more of two cores; and about a minute, to see that it works: those figures mean little.
FULL: dict[str, dict[str, Any]] = {"loss": {"steps": 200}, "bottleneck": {"steps": 1200}, "recall": {"steps": 1500}}
QUICK: dict[str, dict[str, Any]] = {
    "loss": {"steps": 24, "longest_n_gram": 5},
    "bottleneck": {"steps": 40, "longest": 12, "examples": 50},
    "recall": {"steps": 30, "distances": (8, 32), "examples": 50, "learning_rates": (0.003,)},
}
PAGE_TITLE = "The models that came before"
EXPERIMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "loss": loss_against_compute,
    "bottleneck": bottleneck,
    "recall": recall,
}


def compare_history(
    out: str | os.PathLike[str] = "compare-history",
    *,
    quick: bool = False,
    scale: float = 1.0,
    source: str = "tinyshakespeare",
    device: str = "auto",
    seed: int = 0,
    settings: dict[str, dict[str, Any]] | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Run all and write results.json, a picture of each (`loss.svg`) and index.html into the folder `out`.

    Args:
        quick: so few steps that only the machinery is tested. source: the text of the first experiment.
        scale: so many times the steps. settings: for each experiment, by name, arguments that stand over these.

    Returns:
        what stands in results.json: {"loss": ..., "bottleneck": ..., "recall": ...}, each as its function returns it.

    Raises:
        UsageError: `out` is a file, or scale is out of range. UsageError, DataError: as the functions.
    """
    chosen = copy.deepcopy(QUICK if quick else FULL)
    if not 0 < scale <= 1000:
        raise UsageError(f"scale={scale} is out of range; use more than 0 and at most 1000, for example 0.5")
    for arguments in chosen.values():
        arguments["steps"] = max(1, round(scale * arguments["steps"]))
    for name, own in (settings or {}).items():
        chosen[name].update(own)
    chosen["loss"].setdefault("source", source)
    if Path(out).is_file():  # refused before minutes are spent
        raise UsageError(f"{out} is a file; give the name of a folder")
    result: dict[str, Any] = {}
    for name, arguments in chosen.items():
        result[name] = EXPERIMENTS[name](device=device, seed=seed, log=log, **arguments)
        write_comparison(result, out)
    return result


def write_comparison(result: dict[str, Any], out: str | os.PathLike[str]) -> Path:
    """Write the files of a result, whole or not at all each; returns the page's path."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", result)
    found = history_figures(result)
    for name, figures in found.items():
        save([figure for figure in figures if isinstance(figure, Curves)], folder / f"{name}.svg")
    save([figure for figures in found.values() for figure in figures], folder / "index.html", PAGE_TITLE)
    return folder / "index.html"
