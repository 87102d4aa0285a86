"""`glassformer demo`, `train`, `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.evaluate import interval_text
from glassformer.cli.output import print_json
from glassformer.cli.startup import started

if TYPE_CHECKING:
    from glassformer.recipes import Run


def train(
    recipe_and_settings: options.RecipeAndSettings = None,
    data: str = typer.Option(
        None, metavar="TEXT", help="A corpus, a file, a folder, - for standard input, or owner/name on the hub."
    ),
    out: str = typer.Option(None, metavar="FOLDER", help="The run folder; default runs/<recipe>-<n>."),
    seed: int = typer.Option(None, metavar="NUMBER", help="Same seed, same device, same result."),
    device: options.TrainingDevice = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a Transformer with a recipe, or on your own text.

    Without a recipe, it chooses sizes for the text and this machine and prints them with the reasons. Ctrl-C saves the
    run; glassformer resume continues it.

    Examples:

    glassformer train --data my.txt

    glassformer train shakespeare-char model.n_layer=4 training.steps=500

    glassformer train shakespeare-bpe --data book.txt --out runs/book

    glassformer train chatgpt-from-scratch sft.training.steps=200
    """
    from glassformer import recipes
    from glassformer.recipes.stages import has_stages

    recipe, settings = options.split_recipe(recipe_and_settings)
    if has_stages(recipe):
        made = recipes.train_stages(str(recipe), settings, data=data, out=out, seed=seed, device=device, **watch(quiet))
        _print_stages(made, as_json)
        return
    if recipe is None and data is None and not any(word.startswith("data.source=") for word in settings):
        from glassformer.errors import UsageError

        raise UsageError("name a recipe (see: glassformer recipes list), or give your own text with --data FILE")
    run = recipes.train(
        recipe,
        settings,
        data=data,
        out=out,
        seed=seed,
        device=device,
        started=started(),
        **watch(quiet),
    )
    _print_result(run, as_json)


def tune(
    method: str = typer.Argument(metavar="METHOD", help="sft, reward, dpo, kto, ppo, grpo or distill."),
    recipe_and_settings: options.RecipeAndSettings = None,
    data: str = typer.Option(None, metavar="FILE", help="Chats, preferences or prompts (glassformer data show FILE)."),
    model: str = typer.Option(None, metavar="MODEL", help="The model to start from: training.start_from."),
    out: str = typer.Option(None, metavar="FOLDER", help="The run folder; default runs/<data>-<n>."),
    seed: int = typer.Option(None, metavar="NUMBER", help="Same seed, same device, same result."),
    device: options.TrainingDevice = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune on answers, preferences or rewards.

    It is glassformer train with task.kind=METHOD. What you leave open is chosen and
    printed with the reasons. Then: glassformer chat RUN, glassformer serve RUN.

    Examples:

    glassformer tune sft --data my.jsonl --model smollm2-135m-instruct

    glassformer tune dpo --data pairs.jsonl --model runs/my-1 training.lora_rank=16
    """
    from glassformer import recipes

    recipe, settings = options.split_recipe(recipe_and_settings)
    run = recipes.tune(
        method,
        recipe,
        settings,
        data=data,
        model=model,
        out=out,
        seed=seed,
        device=device,
        started=started(),
        **watch(quiet),
    )
    _print_result(run, as_json)


def resume(
    run: options.RunFolder,
    overrides: list[str] = typer.Argument(
        None, metavar="SECTION.KEY=VALUE", help="Settings that may still change, such as training.steps."
    ),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Continue a stopped run, or train a finished one longer.

    With more training.steps the learning-rate schedule follows the new length; a rate that was already low warms up
    again.

    Examples:

    glassformer resume runs/shakespeare-fast-1

    glassformer resume runs/shakespeare-fast-1 training.steps=2000
    """
    from glassformer import recipes
    from glassformer.recipes.stages import is_stage_folder

    if is_stage_folder(run):
        _print_stages(recipes.resume_stages(run, overrides or [], **watch(quiet)), as_json)
        return
    _print_result(recipes.resume(run, overrides or [], **watch(quiet)), as_json)


def demo(
    overrides: list[str] = typer.Argument(None, metavar="SECTION.KEY=VALUE", help="Settings to change in the recipe."),
    out: str = typer.Option(None, metavar="FOLDER", help="The run folder; default runs/demo-<n>."),
) -> None:
    """Train a small GPT on Shakespeare in a minute.

    Example: glassformer demo
    """
    import math

    from glassformer import recipes
    from glassformer.generation import generate
    from glassformer.hub import load
    from glassformer.training import RunFolder

    path = out or str(RunFolder.next_free("runs", "demo"))
    run = recipes.train("shakespeare-fast", overrides or [], out=path, started=started(), **watch(False))
    if run is None or run.loss is None:
        return
    model, tokenizer = load(run.path)
    text = generate(model, tokenizer, "\n", max_new_tokens=500, temperature=0.8, seed=1)[0].text
    typer.echo(f"\n{text}\n")
    uniform = f"uniform guessing: {math.log(tokenizer.vocab_size):.4f}"
    typer.echo(f"validation loss {run.loss.loss:.4f} ({uniform}) after {run.seconds:.0f} s of training")
    typer.echo(f"the run is in {run.path}; transformers can load its model/ folder\n")
    typer.echo("try next:")
    typer.echo(f'  glassformer generate {run.path} --prompt "ROMEO:"')
    typer.echo(f'  glassformer generate {run.path} --prompt "To be, or not" --max-new-tokens 20 --alternatives 5')
    typer.echo("  glassformer train --data my.txt")


def watch(quiet: bool) -> dict[str, Any]:
    """The display, and a log on standard error: standard output has only the result."""
    log = {"log": lambda line: typer.echo(line, err=True)}
    if quiet:
        return log
    from glassformer.training.display import display_for

    return {"callbacks": [display_for()], **log}


def _print_stages(result: dict[str, Any], as_json: bool) -> None:
    """What the stages of a recipe changed, and where the model is."""
    if as_json:
        print_json(result)
        return
    from rich.console import Console

    from glassformer.figures import to_terminal
    from glassformer.recipes.stage_results import figures_of

    console = Console(highlight=False)
    console.print(*to_terminal(figures_of(result), console, console.options), sep="\n")
    folder = result["folder"]
    typer.echo(f"\nthe model is in {folder}/model, all of this in {folder}/report.html")
    typer.echo(f"try it: glassformer chat {folder}, or glassformer serve {folder}")


def _print_result(run: Run | None, as_json: bool) -> None:
    if run is None:  # one of several processes, and not the main one
        return
    if as_json:
        print_json(run.to_dict())
        return
    from glassformer.recipes.plan import against_actual
    from glassformer.training import RunFolder

    samples = RunFolder(run.path).read_samples()
    if samples and samples[0]["step"] == 0:  # of a model that was tuned
        typer.echo(f"before the first step:\n{samples[0]['text']}\n")
        typer.echo(f"after step {samples[-1]['step']}:\n{samples[-1]['text']}\n")
    typer.echo(_score_line(run))
    typer.echo(f"{run.steps:,} steps, {run.tokens:,} tokens in {run.seconds:.1f} s; the run is in {run.path}")
    if plan := RunFolder(run.path).read_plan():
        rows = against_actual(plan, run.to_dict())
        pairs = (f"{what} {predicted:,.4g} ({actual:,.4g})" for what, predicted, actual, _ in rows)
        typer.echo(f"predicted (and actual): {', '.join(pairs)}")
    if run.command in ("generate", "diffuse"):
        typer.echo(f'try it: glassformer {run.command} {run.path} --prompt "..."')
    elif run.command == "chat":
        typer.echo(f"try it: glassformer chat {run.path}, or glassformer serve {run.path}")
    elif run.command in ("caption", "transcribe"):
        typer.echo(f"try it: glassformer {run.command} {run.path} FILE")
    elif run.command in ("play", "draw"):
        typer.echo(f"try it: glassformer {run.command} {run.path}")
    elif run.command:
        typer.echo(f'try it: glassformer {run.command} {run.path} "..."')


def _score_line(run: Run) -> str:
    """What the best weights measure on the validation split."""
    if (loss := run.loss) is None:
        score = run.metrics[run.score.metric]
        return f"{run.score.words} {score.value:.4f}{interval_text(score)} ({score.n:,} cases, step {run.best_step})"
    bits = "" if loss.bits_per_byte is None else f", {loss.bits_per_byte:.4f} bits per byte"
    hits = "" if loss.accuracy is None else f", accuracy {100 * loss.accuracy:.2f} %"
    training = "" if run.train_loss is None else f", training loss {run.train_loss.loss:.4f}"
    return (
        f"validation loss {loss.loss:.4f} +- {loss.interval:.4f}{training}{bits}, perplexity "
        f"{loss.perplexity:.3f}{hits} ({loss.n:,} targets; best at step {run.best_step})"
    )
