"""`glassformer look`: what goes on inside a model, in numbers."""

from __future__ import annotations

import typer

from glassformer.cli.look import chances, heads, layers, meaning, parts

app = typer.Typer(
    help="Look inside a model, in true numbers.\n\n"
    "Drawn in the terminal; --json prints all of them, and --html writes a page that needs nothing else.\n\n"
    'Example: glassformer look next runs/demo-1 "To be, or not to "',
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("tokens")(parts.tokens)
app.command("neighbours")(meaning.neighbours)
app.command("analogy")(meaning.analogy)
app.command("direction")(meaning.direction)
app.command("components")(meaning.components)
app.command("parameters")(parts.parameters)
app.command("tensors")(parts.tensors)
app.command("next")(chances.next_)
app.command("surprise")(chances.surprise)
app.command("compare")(chances.compare)
app.command("attention")(heads.attention)
app.command("induction")(heads.induction)
app.command("step")(heads.step)
app.command("context")(meaning.context)
app.command("neurons")(meaning.neurons)
app.command("residual")(layers.residual)
app.command("lens")(layers.lens)
app.command("attribution")(layers.attribution)
