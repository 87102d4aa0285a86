"""What a run will cost and what it will come to, before it is paid for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict

from glassformer.data import CORPORA
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, UsageError
from glassformer.models import ModelConfig
from glassformer.processors.tokenizers import Tokenizer
from glassformer.recipes import derive, finetuning
from glassformer.recipes.measured import thread_choice
from glassformer.recipes.parts import detect_machine
from glassformer.recipes.prediction import TYPICAL, Machine, Plan, predict
from glassformer.recipes.probe import probe
from glassformer.recipes.schema import Recipe, read_recipe
from glassformer.recipes.start import Start
from glassformer.recipes.task import open_task
from glassformer.recipes.text_task import TextTask, store_of, tokenizer_of
from glassformer.training.utilisation import peak_flops

BYTES_PER_TOKEN = {"characters": 1.0, "bytes": 1.0}  # of English; of subwords 4.4, as of web text in GPT-2's tokens
VOCABULARIES = {"characters": 100, "bytes": 257, "gpt2": 50_257}  # entries, where the text cannot be read; else 32,768


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
    started: float | None = None,
) -> Plan:
    """Plan what `train` with the same words would do. Nothing is trained, and nothing is written but the token store.

    Args:
        probing: time steps here for five seconds; else arithmetic from the speed of a matrix product.
        devices, device_memory (bytes), device_flops (operations a second), utilisation (the part of it that a model
            gets): of machines one does not have. Seconds are then arithmetic.
        started: `time.perf_counter()` when the command began, if that was before this call.

    Raises:
        UsageError, DataError: as `train`, and for what is no decoder; a text of the hub that cannot be reached is no
            reason not to plan.
    """
    started = time.perf_counter() if started is None else started
    r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"device": device}})
    if r.task.kind != "next_token" or r.model.kind not in (None, "decoder"):
        raise UsageError(
            f"a plan is made for decoders that learn the next token, not for {r.model.kind or r.task.kind}; "
            "to see its speed: glassformer train ... training.steps=20"
        )
    notes: list[str] = []
    here = devices == 1 and device_flops is None and device_memory is None
    machine = detect_machine(r)
    config, tokenizer, train_tokens, val_tokens = _text_of(r, recipe, machine["device"], notes)
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
    before = time.perf_counter() - started  # `train` has as much to do before its first step
    timed = probe(config, t, device=kind, precision=precision, tokenizer=tokenizer) if here and probing else None
    made = predict(
        config, r, machine=told, precision=precision, train_tokens=train_tokens, val_tokens=val_tokens, timed=timed,
        utilisation=TYPICAL if here else utilisation, before=before if here else 0.0,
    )  # fmt: skip
    return Plan(**{**asdict(made), "machine": told, "notes": [*notes, *made.notes]})


def _text_of(
    r: Recipe, name: str | None, device: str, notes: list[str]
) -> tuple[ModelConfig, Tokenizer | None, int, int]:
    """The configuration with its vocabulary, the tokenizer, and the tokens of both splits. A text that cannot be had is
    estimated, without a tokenizer."""
    tokenizer: Tokenizer | None = None
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
    config = derive.as_trained(derive.model_config(r, vocab_size=V), r.training)
    return config, tokenizer, train_tokens, val_tokens


def _started(r: Recipe, name: str | None, device: str, notes: list[str]) -> tuple[ModelConfig, Tokenizer, int, int]:
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
    return derive.as_trained(config, r.training), task.tokenizer, sizes["train_tokens"], sizes["val_tokens"]
