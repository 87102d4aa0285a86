"""`glassformer evaluate`: the loss on a split, answers in free form, or a suite of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

if TYPE_CHECKING:
    from glassformer.evaluation import Metric


def evaluate(
    run: options.Run,
    data: str = typer.Option(None, metavar="TEXT", help="Another text or other examples; default: the run's own."),
    split: str = typer.Option(
        None, metavar="NAME", help="train or validation (default); for examples also test; of a suite those it names."
    ),
    answers: bool = typer.Option(False, help="Also generate and score answers: BLEU and chrF, or the word error rate."),
    beam: int = typer.Option(None, metavar="N", help="With --answers: beam width; default 4."),
    limit: int = typer.Option(
        None, metavar="N", min=1, help="With --answers or --suite: use N examples, spread over the split."
    ),
    out: str = typer.Option(None, metavar="FILE", help="With --answers or --suite: write the answers here."),
    suite: list[str] = typer.Option(
        [],
        metavar="FILE",
        help="Ask the questions of a JSONL file or of a named suite (docs/judging.md); repeat for more.",
    ),
    shots: str = typer.Option(
        None, metavar="N,N", help="With --suite: examples before each question, such as 4 or 0,1,2,4; default 0."
    ),
    chrf: bool = typer.Option(False, "--chrf", help="With --suite: also the chrF of generated answers (translations)."),
    plot: str = typer.Option(
        None, metavar="FILE", help="Draw shares with their intervals as .svg, .html or .json: of --suite, or by group."
    ),
    beside: list[str] = typer.Option([], metavar="RUN", help="With --plot: another run in the same picture."),
    chat: bool = typer.Option(False, "--chat", help="With --suite: ask through the model's chat template."),
    seed: int = typer.Option(None, metavar="NUMBER", help="With --suite: draws the examples; default 0."),
    stop: list[str] = typer.Option(
        [], metavar="TEXT", help="With --suite: a generated answer ends here; repeat for more; default an empty line."
    ),
    max_new_tokens: int = typer.Option(
        None, "--max-new-tokens", "-n", metavar="N", min=1, help="With --suite: of a generated answer; default 64."
    ),
    pattern: str = typer.Option(
        None, metavar="REGEX", help="With --suite: compare what this matches (its first group) of a generated answer."
    ),
    device: str = typer.Option(None, metavar="DEVICE", help="With --suite: auto (default), cpu or cuda."),
    dtype: str = typer.Option(
        None, metavar="TYPE", help="With --suite: fp32 (exact, default), auto, bf16, int8 or int4."
    ),
    as_json: options.Json = False,
) -> None:
    """Measure a model on a whole split of its data.

    With --suite, ask it questions with known answers: multiple choice by log-likelihood (acc, and acc_norm by
    length) and exact match of generated text (docs/judging.md).

    Prints the loss (95 % interval, number of targets), perplexity and bits per byte; for classifiers and translators
    also the accuracy; for word vectors the agreement with human ratings of word pairs.

    Examples:

    glassformer evaluate runs/shakespeare-fast-1

    glassformer evaluate runs/translate-en-fr-1 --split test --answers --out translations.jsonl

    glassformer evaluate smollm2-135m-instruct --suite questions.jsonl --shots 4

    glassformer evaluate smollm2-135m-instruct --suite spelling --shots 0,1,2,4,8 --plot spelling.svg

    glassformer evaluate runs/scratchpad --split test --beside runs/plain --plot addition.svg
    """
    from glassformer.errors import DataError
    from glassformer.recipes.opening import open_run

    asking = {
        "shots": shots,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "stop": stop or None,
        "chat": chat or None,
        "chrf": chrf or None,
    }
    asking = {name: value for name, value in asking.items() if value is not None}
    opening = {"pattern": pattern, "device": device, "dtype": dtype}
    if plot is None:
        _refuse({"beside": beside or None}, "needs --plot; add it")
    if suite:
        others = {"data": data, "beam": beam, "answers": answers or None, "beside": beside or None}
        _refuse(others, "does not go with --suite; leave it out")
        opening = {name: value for name, value in opening.items() if value is not None}
        _ask(run, suite, out, plot, as_json, {**asking, "split": split, "limit": limit}, **opening)
        return
    _refuse({**asking, **opening}, "needs --suite; add it")
    if not answers:
        _refuse({"beam": beam, "limit": limit, "out": out}, "needs --answers; add it")
    split = split or "validation"
    model, task = open_run(run, data)
    metrics = task.evaluate(model, split)
    estimate = metrics.loss_estimate()
    results = metrics.to_dict() if estimate is None else estimate.to_dict()
    lines = []
    try:
        if scores := task.extra_scores(model, split):
            results |= scores.to_dict()
            lines = scores.lines()
        if plot is not None:
            _plot_run(plot, run, scores, beside, split)
    except DataError as error:  # the loss is known without them
        if plot is not None:
            raise
        typer.echo(f"note: {error}", err=True)
    if answers:
        from glassformer.files import json_text, write_text

        scored = task.score_answers(model, split=split, beam=4 if beam is None else beam, limit=limit)
        results |= scored.scores.to_dict()
        lines = scored.lines()
        if out is not None:
            write_text(out, "".join(json_text(line) + "\n" for line in scored.rows()))
    if as_json:
        print_json(results)
        return
    if estimate is None:
        for name, metric in metrics.values.items():
            typer.echo(f"{name.replace('_', ' '):<14} {metric.value:.4f}{interval_text(metric)} ({metric.n:,} cases)")
    else:
        typer.echo(
            f"loss           {estimate.loss:.4f} +- {estimate.interval:.4f} nats a token (95 %, {estimate.n:,} targets)"
        )
        typer.echo(f"perplexity     {estimate.perplexity:.3f}")
        if estimate.bits_per_byte is not None:
            typer.echo(f"bits per byte  {estimate.bits_per_byte:.4f}")
    if accuracy := metrics.values.get("accuracy"):
        typer.echo(f"accuracy       {100 * accuracy.value:.2f} % +- {100 * accuracy.interval:.2f} (95 %)")
    for line in lines:
        typer.echo(line)


def _refuse(flags: Mapping[str, Any], why: str) -> None:
    """Raise `UsageError` for the first flag that is given."""
    from glassformer.errors import UsageError

    if name := next((name for name, value in flags.items() if value is not None), None):
        raise UsageError(f"--{name.replace('_', '-')} {why}")


def _plot_run(file: str, run: str, scores: Any, beside: Sequence[str], split: str) -> None:
    """Draw what `glassformer evaluate` adds to the loss of a run, that of other runs in the same chart."""
    from glassformer.errors import UsageError
    from glassformer.figures import save
    from glassformer.recipes.opening import open_run

    drawn = []
    if hasattr(scores, "together"):
        found = {run: scores}
        for path in beside:
            model, task = open_run(path)
            found[path] = task.extra_scores(model, split)
            if type(found[path]) is not type(scores):
                raise UsageError(f"--beside {path}: {scores.lacking}")
        drawn = scores.together({Path(path).name: scores for path, scores in found.items()})
    elif hasattr(scores, "figures") and not beside:
        drawn = scores.figures()
    if not drawn:
        raise UsageError(
            f"--plot {file}: {run} has no shares by group to draw; give a run with task.group_by, or --suite"
        )
    save(drawn, file)


def _ask(
    path: str,
    suites: Sequence[str],
    out: str | None,
    plot: str | None,
    as_json: bool,
    asking: dict[str, Any],
    *,
    pattern: str | None = None,
    device: str = "auto",
    dtype: str = "fp32",
) -> None:
    """Ask a model the questions of suites, and print its accuracies."""
    from glassformer.data.suites import load_suite
    from glassformer.evaluation.suites import compiled_pattern, suite_lines
    from glassformer.figures import save
    from glassformer.files import json_text, write_text
    from glassformer.tasks.share_figures import suite_figures
    from glassformer.tasks.suites import answer_by_shots

    shots, chrf = _numbers(asking.pop("shots", "0")), asking.pop("chrf", False)
    rows, compiled = [load_suite(name, quiet=as_json) for name in suites], compiled_pattern(pattern)
    model, tokenizer = options.open_for("generate", path, device, dtype)
    found = []
    for name, questions in zip(suites, rows, strict=True):
        shared = {"name": name, "pattern": compiled, "quiet": as_json, "chrf": chrf, **asking}
        found += answer_by_shots(model, tokenizer, questions, shots, **shared)
    if out is not None:
        write_text(out, "".join(json_text(row) + "\n" for scores in found for row in scores.rows()))
    if plot is not None:
        save(suite_figures(found), plot)
    if as_json:
        print_json(found[0].to_dict() if len(found) == 1 else [scores.to_dict() for scores in found])
        return
    for line in suite_lines(found):
        typer.echo(line)


def _numbers(text: str) -> list[int]:
    """The numbers of "0,1,4".

    Raises:
        UsageError: they are none, or one comes twice.
    """
    from glassformer.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--shots {text} is no list of numbers; give one, such as 4, or several, such as 0,1,2,4")
    return list(map(int, words))


def interval_text(metric: Metric) -> str:
    """ " +- 0.0123 (95 %)"; nothing where no interval is known."""
    return f" +- {metric.interval:.4f} (95 %)" if metric.interval < float("inf") else ""
