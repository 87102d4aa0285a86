"""What the stages of a recipe changed: held-out measures after each of them, and answers to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassformer.data.example_splits import spread
from glassformer.evaluation.estimate import Metrics, Share
from glassformer.figures import Column, Figure, Note, Table, to_html
from glassformer.files import write_text
from glassformer.hub import load, model_folder_of
from glassformer.recipes.opening import open_task
from glassformer.recipes.recipe_file import read_recipe_text
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.stage_folder import StageFolder
from glassformer.tasks import SFT, TASKS, NextToken, Task
from glassformer.tasks.chats import ChatTask, prompt_ids
from glassformer.tasks.examples import shortened
from glassformer.tasks.held_out_answers import LOOKED_AT, last_text, question_of
from glassformer.tasks.rollouts import roll_out
from glassformer.training import RunFolder, write_report
from glassformer.training.formats import duration, with_interval
from glassformer.training.run_history import RunHistory


def compares(task: type[Task]) -> bool:
    """Whether a task learns which of two answers is better."""
    return issubclass(task, ChatTask) and task.n_row_answers == 2


def of_tokens(task: type[Task]) -> bool:
    """Whether the loss of a task is that of given tokens, so that the models of all stages can be measured by it."""
    return issubclass(task, NextToken | SFT)


def results(folder: StageFolder, name: str, stages: Sequence[str]) -> dict[str, Any]:
    """Plain data, also as results.json, and as figures in report.html.

    folder; recipe; stages: each with name, task, source, steps, tokens, parameters, seconds; held_out: by the stage
    whose data it is, then by the stage whose model it is: [value, n, half the 95 % interval] of each metric; answers:
    each with the prompt, and what the model of each stage writes, always its most likely token.
    """
    runs = {stage: folder.out / stage for stage in stages}
    file = folder.out / "results.json"
    found = folder.made(file, lambda: {"recipe": name, **_measured(folder, runs)})
    _write_page(folder.out, name, figures_of(found), stages)
    return {"folder": str(folder.out), **found}


def write_stages_report(out: Path) -> Path:
    """Make `report.html` for a folder of stages, finished or not, and those of its stages; return its path.

    Raises:
        RunError: a file of the folder is damaged.
    """
    kept, made = StageFolder.read(out / "settings.json"), out / "results.json"
    stages = list(kept["stages"])
    runs = [RunFolder(out / stage) for stage in stages]
    for run in runs:
        if run.recipe.is_file():
            write_report(run)
    figures = figures_of(StageFolder.read(made)) if made.is_file() else _so_far(out, kept["stages"], runs)
    return _write_page(out, kept["recipe"], figures, stages)


def _so_far(out: Path, tables: dict[str, Any], runs: Sequence[RunFolder]) -> list[Figure]:
    """How far the stages are."""
    rows = []
    for (stage, table), run in zip(tables.items(), runs, strict=True):
        h = RunHistory(run) if run.recipe.is_file() else None
        state = "not begun" if h is None else h.state
        steps = "" if h is None else f"{h.steps_done:,} of {h.steps_asked:,}"
        rows.append([stage, table.get("task", {}).get("kind", "next_token"), state, steps])
    columns = [Column("stage"), Column("task"), Column("state"), Column("steps")]
    again = f"What each stage changed is measured after the last one. To go on: glassformer resume {out}"
    return [Note(again), Table("The stages", columns, rows)]


def _write_page(out: Path, name: str, figures: Sequence[Figure], stages: Sequence[str]) -> Path:
    """`report.html`, with links to the reports of stages."""
    links = {
        f"report of {stage}": f"{stage}/report.html" for stage in stages if (out / stage / "report.html").is_file()
    }
    write_text(out / "report.html", to_html(figures, name, links))
    return out / "report.html"


def _measured(folder: StageFolder, runs: dict[str, Path]) -> dict[str, Any]:
    tables, held_out, answers = [], dict[str, Any](), list[dict[str, str]]()
    for stage, run in runs.items():
        r, rest = read_recipe_text(RunFolder(run))
        summary = StageFolder.read(run / "summary.json")
        counts = {key: summary[key] for key in ("parameters", "steps", "tokens")}
        tables.append({"name": stage, "task": r.task.kind, "source": r.data.source, **counts})
        tables[-1]["seconds"] = folder.seconds.get(stage)
        held_out[stage] = {}
        for other in runs if of_tokens(TASKS[r.task.kind]) else [stage]:
            model, processor = load(runs[other], device=rest["machine"]["device"])
            task, _ = open_task(r, model_folder_of(runs[other]))
            task = task.with_run(ResolvedTraining.complete(r.training, model.config.block_size).run_settings)
            split = "test" if isinstance(task, ChatTask) else "validation"
            held_out[stage][other] = task.evaluate(model, split).to_dict()
            if isinstance(task, SFT):
                answers = answers or [{"prompt": last_text(row.prompt)} for row in _prompts(task)]
                for answer, text in zip(answers, _answers(model, processor, task), strict=True):
                    answer[other] = text
    return {"stages": tables, "held_out": held_out, "answers": answers}


def _prompts(task: Task) -> list[Any]:
    """Different prompts of rows that this stage did not learn from; the same for the same data."""
    rows = map(question_of, task.source.examples["test"])
    return spread([*{last_text(row.prompt): row for row in rows}.values()], LOOKED_AT)


def _answers(model: Any, tokenizer: Any, task: Task) -> list[str]:
    """What a model writes: after the chat template, or, before it knows one, after the text alone."""
    rows = _prompts(task)
    if tokenizer.chat_template is None:
        rows = [replace(row, prompt=last_text(row.prompt)) for row in rows]
    prompts = [(row, prompt_ids(tokenizer, row)[-(model.config.block_size - 1) :]) for row in rows]
    more: dict[str, Any] = {"max_new_tokens": task.run.sample_tokens, "temperature": 0.0}
    return [found.text for found in roll_out(model, tokenizer, prompts, samples=1, **more)]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """All of report.html, in order."""
    stages, names = result["stages"], [stage["name"] for stage in result["stages"]]
    rows = [
        [s["name"], s["task"], s["source"], s["steps"], f"{s['tokens']:,} {_unit(s)}", duration(s["seconds"])]
        for s in stages
    ]
    columns = [Column("stage"), Column("task"), Column("data"), Column("steps", "count"), Column("trained on")]
    held_out = Table(
        "Held out: loss in nats a token, and pairs in the right order, with 95 % intervals",
        [Column("after"), *(Column(f"{s['name']}: {_metric(s)}") for s in stages)],
        [[after, *(_cell(result["held_out"][s["name"]].get(after), s) for s in stages)] for after in names],
    )
    return [
        Note(f"{stages[-1]['parameters']:,} parameters. Each stage has its own report: NAME/report.html."),
        Table("The stages", [*columns, Column("time")], rows),
        held_out,
        *(_answer(number, answer, names) for number, answer in enumerate(result["answers"], 1)),
    ]


def _unit(stage: dict[str, Any]) -> str:
    task = TASKS[stage["task"]]
    return "tokens" if of_tokens(task) else "pairs" if compares(task) else "rows"


def _metric(stage: dict[str, Any]) -> str:
    task = TASKS[stage["task"]]
    return "loss" if of_tokens(task) else "pairs" if compares(task) else "score"


def _cell(values: dict[str, Any] | None, stage: dict[str, Any]) -> str | None:
    if values is None:
        return None
    metrics = Metrics.from_dict(values)
    if compares(TASKS[stage["task"]]):
        value, n, _ = metrics["accuracy"]
        return str(Share.of([i < round(value * n) for i in range(n)]))
    value, _, interval = next(iter(metrics.values.values()))
    return with_interval(value, interval)


def _answer(number: int, answer: dict[str, str], names: Sequence[str]) -> Note:
    """A prompt, and what each stage makes of it."""
    lines = (f"{name + ':':<6} {' '.join(answer[name].split()) or '(nothing)'}" for name in names)
    return Note("\n".join(lines), f"{number}. {shortened(answer['prompt'])}", verbatim=True)
