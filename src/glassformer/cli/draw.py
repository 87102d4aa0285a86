"""`glassformer draw`: images of a class or a caption, or the rest of an image, written pixel by pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

if TYPE_CHECKING:
    import numpy as np

WIDEST = 96  # of a picture in the terminal, in pixels
ENLARGED = 256  # pixels that an image has in a file, at least


def draw(
    model: options.Run,
    labels: list[str] = typer.Argument(
        None, metavar="[WHAT] ...", help="A class or a caption; default: every class, or some captions of the data."
    ),
    samples: int = typer.Option(1, metavar="N", min=1, help="How many images of each, one row of the grid each."),
    temperature: list[float] = typer.Option(
        [], metavar="T", help="0: the most likely pixel; default 1. Repeat for a row of the grid at each."
    ),
    top_k: int = typer.Option(0, metavar="K", help="Keep the k most likely levels or colours; 0 keeps all."),
    guidance: float = typer.Option(
        1.0, metavar="G", help="Take what the caption adds to the logits G times; 1: as it is."
    ),
    seed: options.Seed = None,
    complete: str = typer.Option(
        None, metavar="FILE", help="Keep the upper half of this image; without a class, the one that fits it best."
    ),
    keep: float = typer.Option(None, metavar="SHARE", help="With --complete: the share of its rows; default 0.5."),
    out: str = typer.Option(None, metavar="FILE", help="Write the grid as a picture (.png or another format)."),
    device: options.Device = "auto",
    as_json: bool = typer.Option(False, "--json", help="Print the pixels of every image, 0 to 255, as JSON."),
) -> None:
    """Draw images of a class or a caption.

    A decoder of image tokens reads the class or the caption and writes the pixels in raster order, from the top left.

    Examples:

    glassformer draw runs/digits-pixels-1 --samples 4 --out digits.png

    glassformer draw runs/digits-pixels-1 7 --temperature 0.5 --temperature 1 --temperature 1.5

    glassformer draw runs/text-to-image-1 "a small blue three, bottom right" --guidance 2 --out three.png

    glassformer draw runs/digits-pixels-1 --complete seven.png --keep 0.4
    """

    from glassformer.cli.options import open_for
    from glassformer.errors import UsageError
    from glassformer.generation import Sampling
    from glassformer.generation.generalist import painter
    from glassformer.generation.image_tokens import class_log_probabilities, draw_images
    from glassformer.processors.image_tokens import grid

    if keep is not None and complete is None:
        raise UsageError("--keep needs --complete FILE; add it")
    if keep is not None and not 0 < keep < 1:
        raise UsageError(f"--keep {keep:g} is out of range; use a share between 0 and 1")
    if out is not None:
        _check_file(out)
    loaded, p = painter(open_for("generate", model, device))
    columns, given = list(labels or p.labels), None
    if complete is not None:
        rows = max(1, round((0.5 if keep is None else keep) * p.size[0]))
        rows = max(1, rows // p.patch_size) * p.patch_size
        given = p.pieces_of(complete)[: rows // p.patch_size].ravel()
        if not labels:
            scores = class_log_probabilities(loaded, p, given[None])[0]
            columns = [p.labels[int(scores.argmax())]]
            typer.echo(f"its upper {rows} rows are most probable as {columns[0]}", err=True)
    seed, wanted = options.seed_or_random(seed), temperature or [1.0]
    pictures: list[list[np.ndarray]] = []
    found: list[dict[str, Any]] = []
    for t in wanted:
        for sample in range(samples):
            sampling = Sampling(temperature=t, top_k=top_k, seed=seed + sample * len(columns))
            drawn = draw_images(loaded, p, columns, given=given, sampling=sampling, guidance=guidance)
            pictures.append([p.picture(each.ravel()) for each in drawn])
            found += [
                {
                    "caption" if p.words else "class": label,
                    "temperature": t,
                    "seed": sampling.seed + i,
                    "pixels": picture.tolist(),
                }
                for i, (label, picture) in enumerate(zip(columns, pictures[-1], strict=True))
            ]
    whole = grid(pictures)
    if out is not None:
        _write(out, whole, max(1, ENLARGED // max(p.size)))
        typer.echo(f"{out}: {len(found)} images", err=True)
    if as_json:
        print_json(found, indent=None)
    else:
        _show(grid, pictures, columns, [t for t in wanted for _ in range(samples)])


def _check_file(path: str) -> None:
    """Raise `UsageError` unless a picture can be written there, before anything is drawn."""
    from pathlib import Path

    from glassformer.errors import MissingExtraError, UsageError

    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("writing pictures", "images") from None
    known = Image.registered_extensions()
    if known.get(Path(path).suffix.lower()) not in Image.SAVE:
        raise UsageError(f"--out {path}: its ending is no format of pictures; use .png")


def _write(path: str, whole: np.ndarray, times: int) -> None:
    from pathlib import Path

    from PIL import Image

    from glassformer.files import atomic_file

    picture = Image.fromarray(whole.repeat(times, axis=0).repeat(times, axis=1))
    with atomic_file(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[Path(path).suffix.lower()])


def _show(grid: Any, pictures: list[list[np.ndarray]], columns: list[str], temperatures: list[float]) -> None:
    """A picture of each row of the grid, as many images beside each other as fit."""
    from rich.console import Console

    from glassformer.figures import HeatMap, to_terminal

    console = Console(highlight=False)
    at_once = max(1, min(console.width - 2, WIDEST) // (pictures[0][0].shape[1] + 1))
    for temperature, row in zip(temperatures, pictures, strict=True):
        for start in range(0, len(row), at_once):
            part, names = row[start : start + at_once], columns[start : start + at_once]
            title = f"{' | '.join(names)} at temperature {temperature:g}"
            whole = grid([part])
            if whole.ndim == 3 and console.color_system is not None:
                console.print(title, style="bold")
                console.print(_in_colours(whole))
                continue
            values = (whole if whole.ndim == 2 else whole.mean(axis=2)) / 255
            figure = HeatMap(title, values, [""] * len(values), [""] * values.shape[1], highest=1.0, compact=True)
            for line in to_terminal([figure], console, console.options):
                console.print(line)


def _in_colours(picture_HW3: np.ndarray) -> Any:
    """A picture with two rows of pixels in a line of text."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    text = Text()
    for upper, lower in zip(picture_HW3[::2].tolist(), [*picture_HW3[1::2].tolist(), None], strict=False):
        for i, pixel in enumerate(upper):
            below = None if lower is None else Color.from_rgb(*lower[i])
            text.append("▀", style=Style(color=Color.from_rgb(*pixel), bgcolor=below))
        text.append("\n")
    text.rstrip()
    return text
