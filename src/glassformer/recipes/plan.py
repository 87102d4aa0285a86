"""What a run will cost and what it will come to, before it is paid for; afterwards, predicted against actual."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glassformer.data import CORPORA
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, UsageError
from glassformer.files import write_json
from glassformer.models import ModelConfig, flops_per_token, parameter_count, parameters_by_part
from glassformer.recipes.draft import Draft
from glassformer.recipes.loss_curve import predict_loss
from glassformer.recipes.machine import Machine, detect_machine
from glassformer.recipes.memory import memory_plan
from glassformer.recipes.opening import open_task
from glassformer.recipes.probe import Probe, probe
from glassformer.recipes.reading import read_recipe
from glassformer.recipes.resolve import can_plan, decide, fit_batch, open_start
from glassformer.recipes.resolved import ResolvedRecipe, ResolvedTraining, as_trained
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import is_transformer, kind_for, model_config
from glassformer.tasks import TASKS, Task
from glassformer.training import RunFolder, available_memory
from glassformer.training.devices import peak_flops

BYTES_PER_TOKEN = {"characters": 1.0, "bytes": 1.0}  # of English; of subwords 4.4, as of web text in GPT-2's tokens
VOCABULARIES = {"characters": 100, "bytes": 257, "gpt2": 50_257}  # entries, where the text cannot be read; else 32,768
PROBING = 0.03, 0.2, 5.0  # part of the predicted time that a probe may take, and its bounds in seconds
FINISH = 0.6  # seconds of the report and of the last files
TYPICAL = 0.25  # utilisation that arithmetic without a probe assumes
SAVING = 1e9  # bytes a second at which a snapshot is copied beside the loop
LOOKING = 2  # steps' time that an evaluation takes for its statistics of weights and activations


@dataclass(frozen=True)
class Devices:
    """What a run is planned for: flops and memory (None: unknown) are those of one device."""

    name: str
    devices: int
    flops: float
    memory: int | None
    measured: bool
    """whether it is this machine"""

    @classmethod
    def here(cls, machine: Machine, devices: int = 1) -> Devices:
        """Those of this machine."""
        flops = peak_flops(machine.device, machine.precision)
        return cls(machine.device, devices, flops, available_memory(machine.device), True)


@dataclass(frozen=True)
class Plan:
    """A prediction. Bytes are of one device, seconds of the whole command, start-up included; `basis` says how each
    figure was got."""

    recipe: str
    shape: str
    machine: Devices
    parameters: int
    parameters_by_part: dict[str, int]
    flops_per_token: int
    steps: int
    tokens_per_step: int
    tokens: int
    memory_bytes: dict[str, int]
    fullest: str
    seconds_per_step: float
    seconds: float
    seconds_by_part: dict[str, float]
    utilisation: float
    tokens_per_day: float
    val_loss: float | None
    val_loss_interval: tuple[float, float] | None
    basis: dict[str, str]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every field by its name."""
        return asdict(self)


def plan(
    recipe: str | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    device: str | None = None,
    probing: bool = True,
    devices: int = 1,
    device_memory: float | None = None,
    device_flops: float | None = None,
    utilisation: float = 0.4,
    started: float | None = None,
) -> Plan:
    """Plan what `train` with the same words would do. Nothing is trained, and nothing is written but the token store.

    Args:
        probing: time steps here for five seconds; else arithmetic from the speed of a matrix product.
        devices, device_memory (bytes), device_flops (operations a second), utilisation (the part of it that a model
            gets): of another machine. Seconds are then arithmetic.
        started: `time.perf_counter()` when the command began, if that was before this call.

    Raises:
        UsageError, DataError: as `train`, and for what is no decoder. A text of the hub that cannot be reached is
            estimated.
    """
    started = time.perf_counter() if started is None else started
    overrides = list(overrides)
    r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"device": device}})
    if not is_counted(r):
        counted = " or ".join(kind for kind, task in TASKS.items() if task.planned)
        raise UsageError(
            f"memory, time and loss are counted for decoders that learn task.kind={counted}, not for "
            f"{r.model.kind or r.task.kind}; time its first steps on this machine: glassformer plan without --no-probe "
            "and without another machine's --devices, --device-memory, --device-flops"
        )
    draft, machine, assumed = Draft(r), detect_machine(r), list[str]()
    config, task, sizes = _read_text(draft, overrides, machine, assumed, fresh=recipe is None)
    before, timed = 0.0, None
    if devices == 1 and device_flops is None and device_memory is None:
        t, machine = fit_batch(draft, task, config, machine, sizes["train_tokens"])
        planned_for, utilisation = Devices.here(machine), TYPICAL
        before = time.perf_counter() - started  # `train` has as much to do before its first step
        if probing:
            timed = probe(task, as_trained(config, t), t, machine)
    else:
        batch = None
        if r.training.batch_size == "auto":
            batch = 8 * devices
            assumed.append(
                "training.batch_size=auto is measured on the machine itself; 8 sequences a device are assumed"
            )
        t = ResolvedTraining.complete(draft.recipe.training, config.block_size, batch_size=batch)
        flops = device_flops or peak_flops(machine.device, "fp32")
        planned_for = Devices("given", devices, flops, None if device_memory is None else int(device_memory), False)
        precision = "bf16" if r.training.precision == "auto" else r.training.precision
        machine = machine.model_copy(update={"device": "cuda", "precision": precision})
    resolved = ResolvedRecipe.of(draft.recipe, t, config=config, machine=machine)
    notes = [*map(str, draft.choices), *assumed]
    return predict(resolved, planned_for, **sizes, timed=timed, utilisation=utilisation, before=before, notes=notes)


def is_counted(r: Recipe) -> bool:
    """Whether a run of this recipe can be planned by arithmetic; any other can be rehearsed (`recipes.rehearsal`)."""
    return TASKS[r.task.kind].planned and is_transformer(kind_for(r))


def _read_text(
    draft: Draft, overrides: list[str], machine: Machine, notes: list[str], *, fresh: bool
) -> tuple[ModelConfig, Task, dict[str, int]]:
    """The configuration with its vocabulary, the task, and the tokens of both splits. A corpus that cannot be read is
    estimated; the task then has no data."""
    r, source = draft.recipe, draft.recipe.data.source
    start = open_start(draft)
    try:
        if start is None and source in CORPORA and CORPORA[source].hub:
            raise DataError("it is streamed from a dataset hub")
        draft.recipe = draft.recipe.with_values({"data.source": keep_source(source)})
        task, choices = open_task(draft.recipe)
        draft.add(choices)
        return decide(draft, task, start, machine, overrides, fresh=fresh), task, task.text_sizes()
    except DataError as error:
        if start is not None or source not in CORPORA:
            raise
        kind = str(r.tokenizer.kind)
        V = r.tokenizer.vocab_size or VOCABULARIES.get(kind, 32_768)
        total = round(CORPORA[source].bytes / BYTES_PER_TOKEN.get(kind, 4.4))
        held_out = round(total * r.data.validation_fraction)
        notes.append(f"{source} was not read ({error}): assumed are {V:,} entries, about {total:,} tokens of text")
        sizes = {"train_tokens": total - held_out, "val_tokens": held_out}
        return model_config(r, vocab_size=V), TASKS[r.task.kind](**r.task.settings), sizes


def predict(
    r: ResolvedRecipe,
    machine: Devices,
    *,
    train_tokens: int,
    val_tokens: int,
    timed: Probe | None = None,
    utilisation: float = TYPICAL,
    before: float = 0.0,
    notes: Iterable[str] = (),
) -> Plan:
    """Every figure of a plan, from a probe's seconds or by arithmetic. before: seconds of the command before the first
    step."""
    config, t = as_trained(r.config, r.training), r.training
    memory = memory_plan(config, t, r.machine.device, r.machine.precision, world_size=machine.devices)
    operations = flops_per_token(config)
    step_tokens = t.batch_size * config.block_size
    speed = machine.flops * machine.devices
    if timed is not None:
        step, utilisation = timed.step, operations.training * step_tokens / timed.step / speed
        evaluation, sample = timed.evaluation_token, timed.sample_token
        before += timed.first
        how = f"{timed.steps} steps timed here in {timed.took:.1f} s"
        how += ", fewer sequences each" if timed.scaled else ""
    else:
        step = operations.training * step_tokens / (speed * utilisation)
        evaluation = sample = operations.forward / (speed * utilisation)
        whose = "measured here" if machine.measured else "given"
        how = f"arithmetic: {100 * utilisation:.0f} % of {machine.flops / 1e9:,.0f} GFLOP/s {whose}, no probe"

    # the last step always evaluates, and a run ends with a whole split
    evaluations = max(1, -(-t.steps // t.eval_every)) if t.eval_every else 1
    each = t.eval_batches * step_tokens if t.eval_batches else val_tokens
    each += min(train_tokens, each, t.run_settings.train_eval_rows * config.block_size)
    samples = t.steps // t.sample_every if t.sample_every else 0
    saved = -(-t.steps // t.checkpoint_every) if t.checkpoint_every else 1
    seconds = {
        "start": before,
        "steps": t.steps * step,
        "evaluations": evaluations * (each * evaluation + LOOKING * step)
        + (val_tokens * evaluation if t.eval_batches else 0.0),
        "samples": samples * t.sample_tokens * sample,
        "files": saved * (memory.parts["weights"] + memory.parts["optimizer"]) / SAVING + FINISH,
    }
    n, tokens = parameter_count(config), t.steps * step_tokens
    loss = predict_loss(
        source=r.data.source, tokenizer=str(r.tokenizer.kind), optimizer=t.optimizer, train_tokens=train_tokens,
        parameters=n, tokens=tokens, block_size=config.block_size,
    )  # fmt: skip
    fits = machine.memory is None or memory.peak <= machine.memory
    return Plan(
        recipe=r.name,
        shape=f"{config.family}, {config.n_layer} x {config.n_embd}, {config.n_head} heads, T {config.block_size}",
        machine=machine,
        parameters=n,
        parameters_by_part=parameters_by_part(config),
        flops_per_token=operations.training,
        steps=t.steps,
        tokens_per_step=step_tokens,
        tokens=tokens,
        memory_bytes={**memory.parts, "peak": memory.peak},
        fullest=memory.moment,
        seconds_per_step=step,
        seconds=sum(seconds.values()),
        seconds_by_part=seconds,
        utilisation=utilisation,
        tokens_per_day=86_400 * step_tokens / step,
        val_loss=None if loss is None else loss.loss,
        val_loss_interval=None if loss is None else loss.interval,
        basis={
            "parameters": "counted",
            "memory_bytes": "counted, with what autograd keeps of small models",
            "seconds": how,
            "val_loss": loss.basis if loss else "no curve for this text and tokenizer",
        },
        notes=[*notes, *([] if fits else ["it does not fit into the memory there is"])],
    )


def write_plan(run: RunFolder, r: ResolvedRecipe, task: Task, world_size: int, started: float | None = None) -> None:
    """Write plan.json, before the first step, where time and memory can be predicted (`can_plan`); with a probe that is
    short beside the whole run (`PROBING`): arithmetic does not know the cost of small operations and of other programs.

    started: `time.perf_counter()` when the command began.
    """
    if not can_plan(task, r.config):
        return
    before = 0.0 if started is None else time.perf_counter() - started
    sizes: dict[str, Any] = task.text_sizes()
    devices = Devices.here(r.machine, world_size)
    made = predict(r, devices, **sizes, before=before)
    if world_size == 1:
        part, least, most = PROBING
        seconds = min(most, max(least, part * made.seconds))
        timed = probe(task, as_trained(r.config, r.training), r.training, r.machine, seconds)
        made = predict(r, devices, **sizes, before=before + seconds, timed=timed)
    write_json(run.plan, made.to_dict())


def against_actual(plan: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """(what, predicted, actual, predicted / actual) of everything that stands in both plan.json and summary.json."""
    pairs = (
        ("seconds", plan.get("seconds"), summary.get("whole_seconds") or summary.get("seconds")),
        ("peak memory, MB", plan["memory_bytes"]["peak"] / 1e6, (summary.get("peak_memory_bytes") or 0) / 1e6),
        ("validation loss", plan.get("val_loss"), summary.get("val_loss")),
    )
    return [(what, made, was, made / was) for what, made, was in pairs if made and was]
