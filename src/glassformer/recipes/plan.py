"""What a run will cost and what it will come to, before it is paid for; and afterwards, predicted against actual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from glassformer.data import CORPORA
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, UsageError
from glassformer.models import ModelConfig, flops_per_token, parameters_by_part
from glassformer.recipes import derive, finetuning
from glassformer.recipes.held_out import training_rows
from glassformer.recipes.loss_curve import Prediction, predict_loss
from glassformer.recipes.measured import thread_choice
from glassformer.recipes.memory import memory_plan
from glassformer.recipes.parts import detect_machine
from glassformer.recipes.probe import Probe, probe
from glassformer.recipes.schema import Recipe, TrainingSection, read_recipe
from glassformer.recipes.start import Start
from glassformer.recipes.task import open_task
from glassformer.recipes.text_task import TextTask, store_of, tokenizer_of
from glassformer.training.utilisation import peak_flops

LONG = 300.0  # seconds: a run that arithmetic says takes longer is worth a probe of five
TYPICAL = 0.25  # utilisation that arithmetic without a probe assumes
BYTES_PER_TOKEN = {"characters": 1.0, "bytes": 1.0}  # of English; of subwords 4.4, as of web text in GPT-2's tokens
VOCABULARIES = {"characters": 100, "bytes": 257, "gpt2": 50_257}  # entries, where the text cannot be read; else 32,768
SAVING = 1e9  # bytes a second at which a snapshot is copied beside the loop


@dataclass(frozen=True)
class Machine:
    """What the run is planned for. flops: operations a second of one device, measured here or told. memory: bytes of
    one device, or None where the system does not say. measured: whether it is this machine."""

    name: str
    devices: int
    flops: float
    memory: int | None
    measured: bool


@dataclass(frozen=True)
class Plan:
    """A prediction. Bytes are of one device, seconds of the whole run; `basis` says how each figure was got."""

    recipe: str
    shape: str
    machine: Machine
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
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    device: str | None = None,
    probing: bool = True,
    devices: int = 1,
    device_memory: float | None = None,
    device_flops: float | None = None,
    utilisation: float = 0.4,
) -> Plan:
    """Plan what `train` with the same words would do. Nothing is trained, and nothing is written but the token store.

    Args:
        probing: time steps here for five seconds; else arithmetic from the speed of a matrix product.
        devices, device_memory (bytes), device_flops (operations a second), utilisation (the part of it that a model
            gets): of machines one does not have. Seconds are then arithmetic.

    Raises:
        UsageError, DataError: as `train`, and for what is no decoder; a text of the hub that cannot be reached is no
            reason not to plan.
    """
    r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"device": device}})
    if r.objective.kind != "next_token" or r.model.kind not in (None, "decoder"):
        raise UsageError(
            f"a plan is made for decoders that learn the next token, not for {r.model.kind or r.objective.kind}; "
            "to see its speed: glassformer train ... training.steps=20"
        )
    notes: list[str] = []
    here = devices == 1 and device_flops is None and device_memory is None
    machine = detect_machine(r)
    config, train_tokens, val_tokens = _text_of(r, recipe, machine["device"], notes)
    t, kind = r.training, machine["device"] if here else "cuda"
    precision = machine["precision"] if here else "bf16" if t.precision == "auto" else t.precision
    if t.batch_size == "auto":
        derive.fill_training(t)
        if here:
            choice = derive.batch_size_choice(config, t, train_tokens, device=kind, precision=precision)
            t.batch_size = choice.value
            notes.append(str(choice))
        else:
            t.batch_size = 8 * devices
            notes.append("training.batch_size=auto is measured on the machine itself; 8 sequences a device are assumed")
    derive.fill_training(t)
    if here:
        thread_choice(t, config, machine)
    flops = device_flops or peak_flops(machine["device"], precision if here else "fp32")
    limit = (
        derive.available_memory(machine["device"]) if here else None if device_memory is None else int(device_memory)
    )
    told = Machine(machine["device"] if here else "told", devices, flops, limit, here)
    timed = probe(config, t, device=kind, precision=precision) if here and probing else None
    made = predict(
        config, r, machine=told, precision=precision, train_tokens=train_tokens, val_tokens=val_tokens, timed=timed,
        utilisation=TYPICAL if here else utilisation,
    )  # fmt: skip
    return Plan(**{**asdict(made), "machine": told, "notes": [*notes, *made.notes]})


def predict(
    config: ModelConfig,
    r: Recipe,
    *,
    machine: Machine,
    precision: str,
    train_tokens: int,
    val_tokens: int,
    timed: Probe | None = None,
    utilisation: float = TYPICAL,
) -> Plan:
    """The arithmetic: every figure of a plan from a resolved recipe, with a probe's seconds or without."""
    t = r.training
    assert t.steps and isinstance(t.batch_size, int) and t.micro_batch_size
    kind = machine.name if machine.measured else "cuda"
    memory = memory_plan(
        config, t, device=kind, precision=precision, world_size=machine.devices, sharding=t.sharding
    )  # fmt: skip
    operations = flops_per_token(config)
    step_tokens = t.batch_size * config.block_size
    speed = machine.flops * machine.devices
    if timed is not None:
        step, fraction = timed.step, operations.training * step_tokens / timed.step / speed
        how = f"{timed.steps} steps timed here in {timed.took:.1f} s" + (
            ", fewer sequences each" if timed.scaled else ""
        )
        evaluation, sample = timed.evaluation_token, timed.sample_token
    else:
        step, fraction = operations.training * step_tokens / (speed * utilisation), utilisation
        whose = "measured here" if machine.measured else "told"
        how = f"arithmetic: {100 * utilisation:.0f} % of {machine.flops / 1e9:,.0f} GFLOP/s {whose}, no probe"
        evaluation = sample = operations.forward / (speed * utilisation)
    seconds = t.steps * step + _beside(config, t, evaluation, sample, val_tokens, memory.weights + memory.optimizer)
    loss = predict_loss(
        source=r.data.source, tokenizer=str(r.tokenizer.kind), optimizer=t.optimizer, train_tokens=train_tokens,
        parameters=config.parameter_count(), tokens=t.steps * step_tokens, block_size=config.block_size,
    )  # fmt: skip
    notes = (
        [] if machine.memory is None or memory.peak <= machine.memory else ["it does not fit into the memory there is"]
    )
    return Plan(
        recipe=r.name,
        shape=f"{config.family}, {config.n_layer} x {config.n_embd}, {config.n_head} heads, T {config.block_size}",
        machine=machine,
        parameters=config.parameter_count(),
        parameters_by_part=parameters_by_part(config),
        flops_per_token=operations.training,
        steps=t.steps,
        tokens_per_step=step_tokens,
        tokens=t.steps * step_tokens,
        memory_bytes=memory.to_dict(),
        fullest=memory.moment,
        seconds_per_step=step,
        seconds=seconds,
        utilisation=fraction,
        tokens_per_day=86_400 * step_tokens / step,
        val_loss=None if loss is None else loss.loss,
        val_loss_interval=None if loss is None else loss.interval,
        basis=_basis(how, loss),
        notes=notes,
    )


def predict_run(
    config: ModelConfig,
    r: Recipe,
    machine: dict[str, Any],
    *,
    train_tokens: int,
    val_tokens: int,
    world_size: int = 1,
) -> dict[str, Any]:
    """What `train` writes into plan.json before the first step. `machine` is that of recipe.toml. A probe is made only
    when arithmetic says that the run will take five minutes or more: five seconds must not matter."""
    device, precision = machine["device"], machine["precision"]
    told = Machine(device, world_size, peak_flops(device, precision), derive.available_memory(device), True)
    given: dict[str, Any] = {"machine": told, "precision": precision}
    given |= {"train_tokens": train_tokens, "val_tokens": val_tokens}
    made = predict(config, r, **given)
    if made.seconds >= LONG and world_size == 1:
        made = predict(config, r, **given, timed=probe(config, r.training, device=device, precision=precision))
    return made.to_dict()


def against_actual(plan: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """(what, predicted, actual, predicted / actual) of everything that both of plan.json and summary.json tell."""
    pairs = (
        ("seconds", plan.get("seconds"), summary.get("seconds")),
        ("peak memory, MB", plan["memory_bytes"]["peak"] / 1e6, (summary.get("peak_memory_bytes") or 0) / 1e6),
        ("validation loss", plan.get("val_loss"), summary.get("val_loss")),
    )
    return [(what, told, was, told / was) for what, told, was in pairs if told and was]


def _beside(config: ModelConfig, t: TrainingSection, evaluation: float, sample: float, val: int, kept: int) -> float:
    """Seconds of evaluations (of held-out text and of some training text), samples and snapshots. The last step always
    evaluates, and on the whole split."""
    assert t.steps and isinstance(t.batch_size, int)
    times = max(1, -(-t.steps // t.eval_every)) if t.eval_every else 1
    each = t.eval_batches * t.batch_size * config.block_size if t.eval_batches else val
    each += min(each, training_rows(t) * config.block_size)
    samples = t.steps // t.sample_every if t.sample_every else 0
    saved = -(-t.steps // t.checkpoint_every) if t.checkpoint_every else 1
    return times * each * evaluation + samples * t.sample_tokens * sample + saved * kept / SAVING


def _text_of(r: Recipe, name: str | None, device: str, notes: list[str]) -> tuple[ModelConfig, int, int]:
    """The configuration with its vocabulary, and the tokens of both splits. A text that cannot be had is estimated."""
    source = r.data.source
    if r.training.start_from is not None:
        return _started(r, name, device, notes)
    try:
        if source in CORPORA and CORPORA[source].hub:
            raise DataError("it is streamed from a dataset hub")
        r.data.source = keep_source(source)
        tokenizer, choices = tokenizer_of(r)
        store = store_of(r, tokenizer)
        train_tokens, val_tokens, V = len(store.split("train")), len(store.split("validation")), tokenizer.vocab_size
        if name is None:
            choices += derive.size_choices(r, train_tokens, V, derive.typical_gflops(device))
        notes += [str(choice) for choice in choices]
    except DataError as error:
        if source not in CORPORA:
            raise
        kind = str(r.tokenizer.kind)
        V = r.tokenizer.vocab_size or VOCABULARIES.get(kind, 32_768)
        total = round(CORPORA[source].bytes / BYTES_PER_TOKEN.get(kind, 4.4))
        val_tokens = round(total * r.data.validation_fraction)
        train_tokens = total - val_tokens
        notes.append(f"{source} was not read ({error}): assumed are {V:,} entries, about {total:,} tokens of text")
    return derive.as_trained(derive.model_config(r, vocab_size=V), r.training), train_tokens, val_tokens


def _started(r: Recipe, name: str | None, device: str, notes: list[str]) -> tuple[ModelConfig, int, int]:
    """The same for a run that starts from a model."""
    start = Start.open(str(r.training.start_from))
    start.configuration(r, {})
    r.data.source = keep_source(r.data.source)
    task, choices = open_task(r)
    assert isinstance(task, TextTask)  # plans are made for next tokens alone
    choices += start.tokenizer_choices(r, task.tokenizer, None)
    config, changes = start.configuration(r, start.facts(task.facts(), task.tokenizer, None))
    choices += changes
    sizes = task.sizes()
    if name is None:
        choices += finetuning.text_choices(r, config, **sizes, gflops=derive.typical_gflops(device))
    choices += finetuning.rate_choices(r, config)
    notes += [str(choice) for choice in choices]
    return derive.as_trained(config, r.training), sizes["train_tokens"], sizes["val_tokens"]


def _basis(how: str, loss: Prediction | None) -> dict[str, str]:
    return {
        "parameters": "counted",
        "memory_bytes": "counted, with what autograd keeps of small models",
        "seconds": how,
        "val_loss": loss.basis if loss else "no curve for this text and tokenizer",
    }
