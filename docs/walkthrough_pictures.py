"""Make the figures of the walkthrough: `python docs/walkthrough_pictures.py`, about a minute.

They are drawn from what the lessons compute; the ladder from `walkthrough/table.json`, the rows of `glassformer lessons
--table --seeds 3 --json`; the last rung from `walkthrough/scaled.json`, the losses of lesson 8's first steps on a CPU.
Needs `pip install 'glassformer[plot]'`.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files, no window
import matplotlib.pyplot as plt
import torch

from glassformer.lessons import lesson_2_averaging as lesson_2
from glassformer.lessons import lesson_4_heads as lesson_4
from glassformer.lessons.attention_as_messages import GRAPHS
from glassformer.lessons.runner import read_text
from glassformer.lessons.table import split_ids

HERE = Path(__file__).resolve().parent / "walkthrough"
WIDTHS = (1, 4, 16, 64, 256)


def averaging(folder: Path, T: int = 8) -> None:
    """What the softmax makes of a matrix of zeros whose future is minus infinity."""
    weights = lesson_2.average_by_softmax(torch.eye(T)[None])[0]  # (T, T): what each makes of each
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.6), layout="constrained")
    future = torch.ones(T, T).triu(diagonal=1)
    left.imshow(future, cmap="Greys", vmax=2)
    for t in range(T):
        for s in range(T):
            left.text(s, t, "-∞" if s > t else "0", ha="center", va="center", fontsize=8)
    left.set_title("scores: all equal, the future shut", fontsize=10)
    image = right.imshow(weights, cmap="magma", vmin=0, vmax=1)
    right.set_title("weights after the softmax: 1 / (t + 1)", fontsize=10)
    for axes in (left, right):
        axes.set(xlabel="token that is heard", ylabel="token that listens")
    figure.colorbar(image, ax=right, shrink=0.8)
    save(figure, folder / "averaging.png")


def attention_weights(text: str, steps: int, window: str) -> torch.Tensor:
    """(H, T, T): what the four heads of lesson 4 look at in a window, after so many steps of training."""
    training, _, vocab_size = split_ids(text)
    torch.manual_seed(1337)
    model = lesson_4.LanguageModel(vocab_size)
    lesson_4.train(model, training, steps)
    characters = sorted(set(text))
    with torch.no_grad():
        model(torch.tensor([[characters.index(c) for c in window]]))
    return torch.stack([head.weights[0] for head in model.attention.heads])


def attention(folder: Path, text: str, steps: int, window: str) -> None:
    """The four heads, each a heat-map."""
    weights = attention_weights(text, steps, window)
    figure, panels = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
    letters = ["␣" if c == " " else c for c in window]
    for n, (axes, head) in enumerate(zip(panels, weights, strict=True), start=1):
        image = axes.imshow(head, cmap="magma", vmin=0, vmax=1)
        axes.set_title(f"head {n}", fontsize=10)
        axes.set_xticks(range(len(letters)), letters, family="DejaVu Sans Mono")
        axes.set_yticks(range(len(letters)), letters, family="DejaVu Sans Mono")
    panels[0].set_ylabel("token that listens")
    figure.supxlabel("token that is heard", fontsize=10)
    figure.colorbar(image, ax=panels, shrink=0.8)
    save(figure, folder / "attention.png")


def scores_of(width: int, generator: torch.Generator) -> torch.Tensor:
    """(512, 8): dot products of random queries with eight random keys, not scaled."""
    q = torch.randn(512, 1, width, generator=generator)
    k = torch.randn(512, 8, width, generator=generator)
    return (q * k).sum(dim=-1)


def root(folder: Path) -> None:
    """Why the scores are divided by sqrt(D): their variance, and how the softmax shares among eight keys."""
    generator = torch.Generator().manual_seed(1337)
    raw = [scores_of(width, generator) for width in WIDTHS]
    scaled = [scores / width**0.5 for scores, width in zip(raw, WIDTHS, strict=True)]
    figure, (curve, left, right) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    curve.loglog(WIDTHS, [scores.var() for scores in raw], "o-", label="q · k")
    curve.loglog(WIDTHS, [scores.var() for scores in scaled], "s-", label="q · k / sqrt(D)")
    curve.set(xlabel="head width D", title="variance of the scores")
    curve.legend()
    for axes, scores, title in ((left, raw, "softmax(q · k)"), (right, scaled, "softmax(q · k / sqrt(D))")):
        shares = torch.stack([s.softmax(dim=-1).sort(descending=True).values.mean(dim=0) for s in scores])
        image = axes.imshow(shares, cmap="magma", vmin=0, vmax=1, aspect="auto")
        axes.set(title=title, xlabel="keys, the loudest first")
        axes.set_yticks(range(len(WIDTHS)), [f"D = {width}" for width in WIDTHS])
    figure.colorbar(image, ax=right)
    save(figure, folder / "root.png")


def graphs(folder: Path, n: int = 16) -> None:
    """The edges of each graph as a matrix: who may listen to whom."""
    figure, panels = plt.subplots(1, len(GRAPHS), figsize=(10, 2.4), layout="constrained")
    for axes, (name, edges) in zip(panels, GRAPHS.items(), strict=True):
        matrix = torch.zeros(n, n)
        for i, j in edges(n):
            matrix[i, j] = 1
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.4)
        axes.set_title(name, fontsize=10)
        axes.set(xticks=[], yticks=[])
    save(figure, folder / "graphs.png")


def ladder(folder: Path, table: Path = HERE / "table.json") -> None:
    """Our losses (each seed a dot) beside those told in the lecture."""
    rows = [row for row in json.loads(table.read_text())["rungs"] if row["rung"] != "random table"]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for n, row in enumerate(rows):
        axes.plot(
            [n] * len(row["losses"]), row["losses"], "o", color="tab:blue", label="here, a seed" if n == 0 else None
        )
        if row["told"].replace(".", "").isdigit():
            axes.hlines(float(row["told"]), n - 0.3, n + 0.3, color="tab:orange", label="told" if n == 0 else None)
    axes.set_xticks(
        range(len(rows)), [row["rung"].replace(", ", ",\n") for row in rows], rotation=30, ha="right", fontsize=8
    )
    axes.set_ylabel("validation loss, nats")
    axes.legend()
    save(figure, folder / "ladder.png")


def scaled(folder: Path, curve: Path = HERE / "scaled.json") -> None:
    """The loss of each batch of the scaled-up model on a CPU, as far as it came."""
    told = json.loads(curve.read_text())
    figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    axes.plot(told["steps"], told["losses"], color="tab:blue")
    axes.axhline(1.48, color="tab:orange", label="told after 5,000 steps (validation)")
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(1.3, None))
    axes.legend()
    save(figure, folder / "scaled.png")


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main(folder: Path = HERE, text: str | None = None, steps: int = 2000, window: str = "Romeo, t") -> None:
    folder.mkdir(exist_ok=True)
    averaging(folder)
    attention(folder, read_text(None) if text is None else text, steps, window)
    root(folder)
    graphs(folder)
    ladder(folder)
    scaled(folder)


if __name__ == "__main__":
    main()
