"""What a run costs and what it comes to, predicted from its resolved recipe; afterwards, predicted against actual."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from glassformer.models import ModelConfig, flops_per_token, parameters_by_part
from glassformer.processors.tokenizers import Tokenizer
from glassformer.recipes import derive
from glassformer.recipes.held_out import training_rows
from glassformer.recipes.loss_curve import Prediction, predict_loss
from glassformer.recipes.memory import memory_plan
from glassformer.recipes.probe import Probe, probe
from glassformer.recipes.schema import Recipe, TrainingSection
from glassformer.training.utilisation import peak_flops

PROBING = 0.03, 0.2, 5.0  # part of the predicted time that a probe may take, and its bounds in seconds
FINISH = 0.6  # seconds of the report and of the last files
TYPICAL = 0.25  # utilisation that arithmetic without a probe assumes
SAVING = 1e9  # bytes a second at which a snapshot is copied beside the loop
LOOKING = 2  # steps' time that an evaluation takes for its statistics of weights and activations


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
    """A prediction. Bytes are of one device, seconds of the whole command, start-up included; `basis` says how each
    figure was got."""

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
    before: float = 0.0,
) -> Plan:
    """The arithmetic: every figure of a plan from a resolved recipe, with a probe's seconds or without. before: seconds
    of the command before the first step."""
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
        before += timed.first
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
    saved = memory.weights + memory.optimizer
    parts = {"start": before, "steps": t.steps * step}
    parts |= _beside(config, t, step, evaluation, sample, train_tokens, val_tokens, saved)
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
        seconds=sum(parts.values()),
        seconds_by_part=parts,
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
    sizes: dict[str, int],
    tokenizer: Tokenizer,
    world_size: int = 1,
    started: float | None = None,
) -> dict[str, Any]:
    """What `train` writes into plan.json before the first step.

    A probe is made that is short beside what arithmetic says (`PROBING`): arithmetic knows nothing of small operations
    and of other programs.

    Args:
        machine: that of recipe.toml. sizes: of the text, `TextTask.sizes`. started: `time.perf_counter()` when the
            command began.
    """
    before = 0.0 if started is None else time.perf_counter() - started
    device, precision = machine["device"], machine["precision"]
    told = Machine(device, world_size, peak_flops(device, precision), derive.available_memory(device), True)
    given: dict[str, Any] = {"machine": told, "precision": precision, "before": before}
    given |= sizes
    made = predict(config, r, **given)
    if world_size == 1:
        part, least, most = PROBING
        seconds = min(most, max(least, part * made.seconds))
        given["before"] += seconds  # the probe itself
        timed = probe(config, r.training, device=device, precision=precision, seconds=seconds, tokenizer=tokenizer)
        made = predict(config, r, **given, timed=timed)
    return made.to_dict()


def against_actual(plan: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """(what, predicted, actual, predicted / actual) of everything that stands in both plan.json and summary.json."""
    pairs = (
        ("seconds", plan.get("seconds"), summary.get("whole_seconds") or summary.get("seconds")),
        ("peak memory, MB", plan["memory_bytes"]["peak"] / 1e6, (summary.get("peak_memory_bytes") or 0) / 1e6),
        ("validation loss", plan.get("val_loss"), summary.get("val_loss")),
    )
    return [(what, told, was, told / was) for what, told, was in pairs if told and was]


def _beside(
    config: ModelConfig,
    t: TrainingSection,
    step: float,
    evaluation: float,
    sample: float,
    train: int,
    val: int,
    kept: int,
) -> dict[str, float]:
    """Seconds of evaluations, samples and files. The last step always evaluates, and a run ends with a whole split."""
    assert t.steps and isinstance(t.batch_size, int)
    times = max(1, -(-t.steps // t.eval_every)) if t.eval_every else 1
    each = t.eval_batches * t.batch_size * config.block_size if t.eval_batches else val
    each += min(train, each, training_rows(t) * config.block_size)
    samples = t.steps // t.sample_every if t.sample_every else 0
    saved = -(-t.steps // t.checkpoint_every) if t.checkpoint_every else 1
    return {
        "evaluations": times * (each * evaluation + LOOKING * step) + (val * evaluation if t.eval_batches else 0.0),
        "samples": samples * t.sample_tokens * sample,
        "files": saved * kept / SAVING + FINISH,
    }


def _basis(how: str, loss: Prediction | None) -> dict[str, str]:
    return {
        "parameters": "counted",
        "memory_bytes": "counted, with what autograd keeps of small models",
        "seconds": how,
        "val_loss": loss.basis if loss else "no curve for this text and tokenizer",
    }
