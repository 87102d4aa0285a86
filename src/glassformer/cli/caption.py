"""`glassformer caption`: images in, captions out."""

from __future__ import annotations

from typing import Annotated

import typer

from glassformer.cli import options
from glassformer.cli.output import one_line, print_json


def caption(
    model: options.Run,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files: PNG, JPEG and others.")],
    beam: int = typer.Option(1, metavar="N", min=1, help="Beam width: 1 always takes the most likely token."),
    n_best: int = typer.Option(1, metavar="N", min=1, help="Print the N best captions; needs a beam of N or more."),
    max_new_tokens: options.NewTokens = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Write the caption of an image.

    Where each word looks on the image: glassformer look image-attention MODEL IMAGE.

    Examples:

    glassformer caption runs/captions-1 picture.png

    glassformer caption runs/captions-1 photos/*.png --beam 4 --n-best 3
    """
    from glassformer.cli.options import open_for
    from glassformer.generation.caption import caption as captions_of

    bundle = open_for("caption", model, device)
    found = captions_of(
        bundle.model,
        bundle.tokenizer,
        bundle.source_processor,
        images,
        beam=beam,
        n_best=n_best,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    if as_json:
        print_json([{"image": name, "caption": best.to_dict()} for name, best in zip(images, found, strict=True)])
        return
    for name, best in zip(images, found, strict=True):
        label = f"{name}: " if len(images) > 1 else ""
        for each in (best, *best.alternatives):
            scores = f"{each.log_probability:>9.2f}  " if n_best > 1 else ""
            typer.echo(f"{scores}{label}{one_line(each.text)}")
