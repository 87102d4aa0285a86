"""`glassformer plan`: predict what a run costs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json, size
from glassformer.cli.startup import started

if TYPE_CHECKING:
    from glassformer.recipes.plan import Plan
    from glassformer.recipes.rehearsal import Rehearsal
    from glassformer.recipes.stages import StageEstimate


def plan(
    recipe_and_settings: options.RecipeAndSettings = None,
    data: str = typer.Option(None, metavar="TEXT", help="A corpus, a file, a folder, or owner/name on the hub."),
    device: options.TrainingDevice = None,
    probe: bool = typer.Option(True, help="Time some steps on this machine for five seconds, or only estimate."),
    devices: int = typer.Option(1, metavar="N", min=1, help="How many devices another machine has."),
    device_memory: str = typer.Option(None, metavar="SIZE", help="The memory of each device, for example 80GB."),
    device_flops: float = typer.Option(None, metavar="X", help="The peak FLOP/s of each device, for example 989e12."),
    utilisation: float = typer.Option(
        0.4, metavar="PART", min=0.001, max=1, help="The fraction of the peak that training reaches."
    ),
    as_json: options.Json = False,
) -> None:
    """Predict memory, time and loss of a run.

    By default a few steps are timed on this machine, and thrown away. Decoders of texts can also be planned for another
    machine; describe it with the options. Of other tasks the first steps and one evaluation are made on their own data.

    Examples:

    glassformer plan shakespeare-fast

    glassformer plan gpt2-124m --devices 8 --device-memory 80GB --device-flops 312e12
    """
    from dataclasses import asdict

    from glassformer.recipes.plan import is_counted
    from glassformer.recipes.plan import plan as make_plan
    from glassformer.recipes.reading import read_recipe
    from glassformer.recipes.rehearsal import rehearse
    from glassformer.recipes.stages import has_stages, plan_stages

    recipe, settings = options.split_recipe(recipe_and_settings)
    words: dict[str, Any] = {
        "data": data,
        "device": device,
        "probing": probe,
        "devices": devices,
        "device_memory": None if device_memory is None else _bytes(device_memory),
        "device_flops": device_flops,
        "utilisation": utilisation,
        "started": started(),
    }
    if has_stages(recipe):
        first, later = plan_stages(str(recipe), settings, **words)
        if as_json:
            print_json({"first": first.to_dict(), "later": [asdict(stage) for stage in later]})
            return
        _print(first)
        _print_later(later)
        return
    here = probe and devices == 1 and device_memory is None and device_flops is None
    if here and not is_counted(read_recipe(recipe, settings)):
        log = (lambda line: None) if as_json else (lambda line: typer.echo(line, err=True))
        found = rehearse(recipe, settings, data=data, device=device, started=started(), log=log)
        print_json(found.to_dict()) if as_json else _print_rehearsal(found)
        return
    made = make_plan(recipe, settings, **words)
    print_json(made.to_dict()) if as_json else _print(made)


def _print_later(later: list[StageEstimate]) -> None:
    for stage in later:
        most = "not known: its answers are sampled" if stage.seconds is None else f"at most {clock(stage.seconds)}"
        typer.echo(f"stage {stage.name}: {most} ({stage.steps:,} steps, {amount(stage.tokens)} tokens, all rows full)")


def _bytes(text: str) -> float:
    """80GB -> 8e10."""
    from glassformer.errors import UsageError

    amount = re.fullmatch(r"([\d.]+) *([kMGT]?)B?", text.strip(), re.IGNORECASE)
    if not amount or amount[1].count(".") > 1:
        raise UsageError(f"--device-memory={text} is no amount of memory; write it like 80GB")
    return float(amount[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[amount[2].upper()]


class Sections:
    """Tables below each other in the terminal: label, value and a note in each row."""

    def __init__(self, title: str):
        from rich.console import Console

        self.console = Console(highlight=False)
        self._print(title, "bold")

    def add(self, title: str, rows: list[tuple[str, str, str]]) -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(width=14)
        table.add_column(justify="right", width=15)
        table.add_column(overflow="fold", width=min(self.console.width, 80) - 35)
        for label, value, note in rows:
            table.add_row(Text(label), Text(value, style="bold"), Text(note, style="dim"))
        self._print(f"\n{title}", "cyan")
        self.console.print(Padding(table, (0, 0, 0, 2)))

    def add_parameters(self, by_part: dict[str, int]) -> None:
        total = sum(by_part.values())
        rows = [(name, f"{n:,}" if n < 1e11 else amount(n), share(n / total)) for name, n in by_part.items()]
        self.add("parameters", [*rows, ("together", f"{total:,}" if total < 1e11 else amount(total), "")])

    def add_notes(self, notes: list[str]) -> None:
        for note in notes:
            self._print(f"\nnote: {note}", "yellow")

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self.console.print(Text(text, style=style))


def share(part: float) -> str:
    """A bar of a part of 1."""
    from glassformer.figures.text import bar

    return bar(part, 30)


def _print_rehearsal(p: Rehearsal) -> None:
    shown = Sections(f"{p.recipe}: {p.shape}")
    shown.add_parameters(p.parameters_by_part)
    there = f"of {size(p.memory)}; " if p.memory else ""
    grown = f"{there}{size(p.memory_before_bytes)} before the model was built"
    shown.add("memory", [("peak", size(p.peak_memory_bytes), f"{grown}; of the process, measured")])
    timed = f"{p.rows_per_step:,} rows, {p.targets_per_step:,.0f} targets; {p.steps_timed} steps timed here"
    rows = [
        ("a step", clock(p.seconds_per_step), timed),
        *((name, clock(seconds), "") for name, seconds in p.seconds_by_part.items() if seconds >= 0.005 * p.seconds),
        ("together", clock(p.seconds), f"{p.steps:,} steps on {p.device}"),
    ]
    shown.add("time", rows)
    shown.add_notes(p.notes)


def _print(p: Plan) -> None:
    shown = Sections(f"{p.recipe}: {p.shape}")
    shown.add_parameters(p.parameters_by_part)
    m = p.memory_bytes
    bytes_of = {name: n for name, n in m.items() if name != "peak" and n >= 5e4}
    largest = max(bytes_of.values())
    rows = [(name, size(n), share(n / largest)) for name, n in bytes_of.items()]
    there = f"of {size(p.machine.memory)}; " if p.machine.memory else ""
    shown.add("memory of a device", [*rows, ("peak", size(m["peak"]), f"{there}in {p.fullest}")])
    work = amount(p.flops_per_token)
    rows = [
        ("a token", f"{work}FLOP", "forward and backward, 6 N + 12 L H D T (PaLM, appendix B)"),
        ("a step", clock(p.seconds_per_step), f"{p.tokens_per_step:,} tokens; {p.basis['seconds']}"),
        ("utilisation", f"{100 * p.utilisation:.0f} %", f"of {amount(p.machine.flops * p.machine.devices)}FLOP/s"),
        ("a day", f"{amount(p.tokens_per_day).strip()} tokens", ""),
        *((name, clock(seconds), "") for name, seconds in p.seconds_by_part.items() if seconds >= 0.005 * p.seconds),
        ("together", clock(p.seconds), f"{p.steps:,} steps, {amount(p.tokens).strip()} tokens"),
    ]
    shown.add("time", rows)
    if p.val_loss is None or p.val_loss_interval is None:
        shown.add("loss", [("validation", "?", p.basis["val_loss"])])
    else:
        low, high = p.val_loss_interval
        shown.add("loss", [("validation", f"{p.val_loss:.2f}", f"{low:.2f} to {high:.2f}: {p.basis['val_loss']}")])
    shown.add_notes(p.notes)


def amount(n: float) -> str:
    """
    >>> amount(1_234_567), amount(989e12), amount(12)
    ('1.23 M', '989 T', '12 ')
    """
    for unit, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n:.3g} "


def clock(seconds: float) -> str:
    """
    >>> clock(0.031), clock(5.25), clock(90), clock(7200), clock(400_000)
    ('31 ms', '5.2 s', '1 min 30 s', '2 h 0 min', '4.6 days')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86_400:,.1f} days"
