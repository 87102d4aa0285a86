"""`load`: a run folder, a checkpoint, a model folder, a GGUF file or the name of a pulled model, opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from glassformer.errors import DeviceError, UsageError
from glassformer.hub.adapters import load_adapter
from glassformer.hub.bundle import Bundle
from glassformer.hub.configuration import read_config, read_labels
from glassformer.hub.folder import load_processors, open_folder
from glassformer.hub.locate import model_folder_of
from glassformer.layers import int8_copy
from glassformer.layers.lora import merge_lora, shared_copy
from glassformer.native import compile_exactly, library, quantized_copy
from glassformer.processors.tokenizers import Tokenizer

DTYPES = ("auto", "fp32", "bf16", "int8", "int4")


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "fp32",
    adapter: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Open a model, in eval mode, with its processors and the names of its classes.

        model, tokenizer = load("runs/shakespeare-char-1")
        bundle = load("runs/digits-1")      # bundle.model, bundle.processor, bundle.labels

    Args:
        dtype: see `as_dtype`. adapter: a LoRA adapter in `peft`'s format, or a run with `training.lora_rank`; it is
            merged into the weights, before they are rounded.

    Raises:
        UsageError: there is no such dtype.
        DeviceError: int4 without a C++ compiler.
        ModelFolderError: it is not there, damaged, or of a family that is not read here.
        TokenizerError: its tokenizer is missing or damaged.
    """
    check_dtype(dtype)
    bundle = open_folder(model_folder_of(path), device=device)
    if adapter is not None:
        load_adapter(adapter, bundle.model)
        merge_lora(bundle.model)
    bundle.model = as_dtype(bundle.model, dtype)
    return bundle


def load_with_adapters(
    path: str | os.PathLike[str],
    adapters: Mapping[str, str | os.PathLike[str]],
    *,
    device: str = "cpu",
    dtype: str = "fp32",
) -> tuple[Bundle, dict[str, Bundle]]:
    """A model, and the same with each of some adapters, by name. The weights are read once; in fp32 and bf16 they are
    in memory once, and an adapter adds its own tensors alone. int8 and int4 merge before they round, so each adapter
    has its own rounded weights. Raises as `load`."""
    check_dtype(dtype)
    bundle = open_folder(model_folder_of(path), device=device)
    merged = dtype in ("int8", "int4")
    found = {}
    for name, adapter in adapters.items():
        model = shared_copy(bundle.model)
        load_adapter(adapter, model)
        if merged:
            merge_lora(model)
            model = as_dtype(model, dtype)
        found[name] = replace(bundle, model=model)
    bundle.model = as_dtype(bundle.model, dtype)
    for other in found.values() if not merged else ():
        other.model = as_dtype(other.model, dtype)  # the shared weights are changed already
    return bundle, found


def load_source_tokenizer(path: str | os.PathLike[str]) -> Any:
    """The processor of what a model reads, without the model. Raises as `load`."""
    folder = model_folder_of(path)
    return load_processors(folder, read_config(folder)[1])[1]


def load_tokenizer_of(path: str | os.PathLike[str]) -> Tokenizer | None:
    """The tokenizer of what a model reads, else of what it writes, without the model; None of a model of no text.
    Raises as `load`."""
    folder = model_folder_of(path)
    writes, reads = load_processors(folder, read_config(folder)[1])
    found = (reads, getattr(reads, "tokenizer", None), writes)
    return next((each for each in found if isinstance(each, Tokenizer)), None)


def load_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a classifier's classes, in the order of its logits; () for other models. Raises as `load`."""
    return read_labels(model_folder_of(path))


def check_dtype(dtype: str) -> None:
    """Raises UsageError if there is no such dtype."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype!r} is unknown; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def chosen_dtype(model: Any, dtype: str) -> str:
    """What `auto` means for a model; others stay. Raises UsageError if there is no such dtype."""
    check_dtype(dtype)
    if dtype != "auto":
        return dtype
    if next(model.parameters()).device.type != "cpu":
        return "bf16"
    return "fp32"


def as_dtype(model: Any, dtype: str) -> Any:
    """The model with its weights in another number format.

    Args:
        dtype: `fp32`, as in training. `auto`: on a GPU bf16; on a CPU the same numbers as fp32, and a decoder whose
            parts are known generates in one compiled call (`native.compile_exactly`). `bf16`, half as wide. `int8` and
            `int4`, to generate on a CPU: matrices are rounded to 8 or 4 bits, and what they are multiplied with to 8;
            logits are a little off (`benchmarks/smollm2.py` measures how much).

    Raises:
        UsageError: there is no such dtype.
        DeviceError: int4 without a C++ compiler, or on a GPU.
    """
    exactly, on_cpu = dtype == "auto", next(model.parameters()).device.type == "cpu"
    dtype = chosen_dtype(model, dtype)
    if dtype == "int4" and not on_cpu:
        raise DeviceError("int4 is for the CPU; on a GPU use --dtype bf16")
    if dtype == "int4" or (dtype == "int8" and on_cpu and library() is not None):
        return quantized_copy(model.float(), 4 if dtype == "int4" else 8)
    if dtype == "int8":
        return int8_copy(model)
    model = model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    if exactly and on_cpu:
        compile_exactly(model)
    return model
