"""Model folders: write one that `transformers` loads, read one that it or we wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import DeviceError, ModelFolderError, UsageError, did_you_mean
from glassformer.files import atomic_folder, write_json
from glassformer.hub.configuration import generates, read_config, read_json, read_labels, write_config
from glassformer.hub.families.family import Family
from glassformer.hub.families.refused import refuse_adapter
from glassformer.hub.families.registry import family_for
from glassformer.hub.families.weight_table import Tensors
from glassformer.hub.generation_config import read_generation_settings
from glassformer.hub.published import is_published, pulled_folder
from glassformer.hub.sentence_transformers import apply_pooling, apply_text_limits
from glassformer.hub.tensor_names import match_names
from glassformer.hub.weights import load_sharded, save_weights
from glassformer.layers import int8_copy
from glassformer.models import Decoder, EncoderDecoderConfig, GenerationSettings, build_model, settings_of
from glassformer.models.counts import ShapesOnly
from glassformer.native import library, quantized_copy
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.reading import load_source_tokenizer_of

DTYPES = ("auto", "fp32", "bf16", "int8", "int4")
SOURCE = "source"  # the folder inside a model's with the tokenizer of what it reads


def save(
    folder: str | os.PathLike[str],
    model: Any,
    tokenizer: Tokenizer | None = None,
    source_tokenizer: Tokenizer | None = None,
    *,
    weights: dict[str, Tensor] | None = None,
    labels: Sequence[str] = (),
    beside: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write a Hugging Face model folder, whole or not at all; an existing one is replaced when the new one is whole.

    Args:
        model: any model of `glassformer.models.MODELS`.
        tokenizer: of what it says. source_tokenizer: of what it reads, where that is another one.
        weights: a state dict that is written in place of the model's own: a snapshot, while the model learns on.
        labels: the names of the classes of a classifier, in the order of its logits.
        beside: further JSON files that go with it, by their names; fields of generation_config.json join those that are
            written anyway.

    Raises:
        ModelFolderError: the folder holds other things and no model, which would be lost; or there is not one label for
            each class.
        GlassformerError: the disk is full or the folder cannot be written; the old folder is untouched.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder}: holds other things than a model; choose an empty or a new folder")
    family = family_for(model.config)
    tensors = {**(model.state_dict() if weights is None else weights)}
    for second in tied_names(model):
        tensors.pop(second, None)
    config, generation = write_config(family, model.config, tokenizer, labels, settings_of(model))
    written = {"generation_config.json": generation} if generation is not None else {}
    kept_as = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    with atomic_folder(folder, replace=True) as temporary:
        write_json(temporary / "config.json", {**config, "torch_dtype": str(kept_as).removeprefix("torch.")})
        for name in {**written, **(beside or {})}:
            write_json(temporary / name, {**written.get(name, {}), **(beside or {}).get(name, {})})
        save_weights(temporary / "model.safetensors", family.write_tensors(tensors, model.config))
        if tokenizer is not None:
            tokenizer.save(temporary)
        if source_tokenizer is not None and source_tokenizer != tokenizer:
            source_tokenizer.save(temporary / SOURCE)


def load(path: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "fp32") -> tuple[Any, Any]:
    """Open a run folder, a checkpoint or a model folder: the model in eval mode, and the tokenizer of what it says (of
    an encoder: of what it reads); None for a model that neither reads nor writes text, such as a ViT.

    Args:
        dtype: see `as_dtype`.

    Raises:
        UsageError: there is no such dtype.
        DeviceError: int4 without a C++ compiler.
        ModelFolderError: it is not there, damaged, or of a family that nobody here can read.
        TokenizerError: its tokenizer is missing or damaged.
    """
    check_dtype(dtype)
    folder = model_folder_of(path)
    model = as_dtype(load_model(folder, device=device), dtype)
    if not (reads_text(model.config) or writes_text(model.config)):
        return model, None
    tokenizer = load_tokenizer(folder)
    apply_text_limits(tokenizer, model.config, folder)
    with_settings(model, tokenizer, settings_of(model))
    check_vocabulary(folder, tokenizer, model.config.vocab_size, "logits")
    return model, tokenizer


def with_settings(model: Any, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
    """Let a model carry its settings, and its tokenizer know which tokens end a text."""
    model.generation_settings = settings
    tokenizer.further_ends = frozenset(i for i in settings.eos_token_id if i < tokenizer.vocab_size)


def check_dtype(dtype: str) -> None:
    """Raises UsageError if there is no such dtype."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype!r} is unknown; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def as_dtype(model: Any, dtype: str) -> Any:
    """The model with its weights in another number format.

    Args:
        dtype: `fp32`, as one trains. `bf16`, half as wide. `int8` and `int4`, to generate on a CPU: matrices are
            rounded to 8 or 4 bits, and what they are multiplied with to 8; logits are a little off
            (`benchmarks/smollm2.py` tells by how much). `auto`: int8 for a decoder on a CPU, bf16 on a GPU, else fp32.

    Raises:
        UsageError: there is no such dtype.
        DeviceError: int4 without a C++ compiler, or on a GPU.
    """
    check_dtype(dtype)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if dtype == "auto":
        dtype = "bf16" if not on_cpu else "int8" if isinstance(model, Decoder) and library() is not None else "fp32"
    if dtype == "int4" and not on_cpu:
        raise DeviceError("int4 is for the CPU; on a GPU use --dtype bf16")
    if dtype == "int4" or (dtype == "int8" and on_cpu and library() is not None):
        return quantized_copy(model.float(), 4 if dtype == "int4" else 8)
    if dtype == "int8":
        return int8_copy(model)
    return model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])


def load_source_tokenizer(path: str | os.PathLike[str]) -> Any:
    """The tokenizer of what a model reads: that of its sources where it has one, else the one that `load` gives; None
    for a model that reads images or sound.

    Raises: as `load`.
    """
    folder = model_folder_of(path)
    _, config = read_config(folder)
    if not reads_text(config):
        return None
    tokenizer = own_source_tokenizer(folder) or load_tokenizer(folder)
    rows = config.encoder.vocab_size if isinstance(config, EncoderDecoderConfig) else config.vocab_size
    check_vocabulary(folder, tokenizer, getattr(config, "source_vocab_size", None) or rows, "rows for them")
    return tokenizer


def own_source_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of what a model reads, where its folder has one beside that of what it writes: in `source/`, or in
    Marian's form."""
    if (folder / SOURCE).is_dir():
        return load_tokenizer(folder / SOURCE)
    return load_source_tokenizer_of(folder)


def reads_text(config: Any) -> bool:
    """Whether what a model takes in is text, and not patches of an image or frames of sound."""
    return config.reads == "text"  # type: ignore[no-any-return]


def writes_text(config: Any) -> bool:
    """Whether a model has a decoder beside its encoder, which writes text whatever the encoder reads."""
    return isinstance(config, EncoderDecoderConfig)


def load_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the classes that a classifier chooses from, in the order of its logits; () for other models.

    Raises: as `load`.
    """
    return read_labels(model_folder_of(path))


def load_model(folder: str | os.PathLike[str], *, device: str = "cpu") -> Any:
    """The model of a model folder alone, in eval mode.

    Raises:
        ModelFolderError: it is not there, damaged, or of a family that nobody here can read.
    """
    folder = Path(folder)
    family, config = read_config(folder)
    model = model_of(family, config, load_sharded(folder), folder).to(device)
    apply_pooling(model, folder)
    if generates(config):
        model.generation_settings = read_generation_settings(folder, read_json(folder / "config.json"))
    return model


def model_of(family: Family, config: Any, theirs: Tensors, where: str | os.PathLike[str]) -> Any:
    """The model of this configuration, in eval mode, with a family's tensors as its parameters.

    Args:
        where: what they were read from, for the errors.

    Raises:
        ModelFolderError: a tensor is missing, left over, of another shape, or holds no floating-point numbers.
    """
    check_count(where, config, sum(len(tensor) if tensor.dim() > 2 else 1 for tensor in theirs.values()))
    try:
        theirs = match_names(theirs, family.names(config), family.base_prefix)
        ours = family.read_tensors(theirs, config)
    except KeyError as error:
        raise ModelFolderError(f"{where}: tensor {error.args[0]} is missing; copy the weights again, whole") from None
    except ModelFolderError as error:
        raise ModelFolderError(f"{where}: {error}") from None
    with ShapesOnly():  # the loaded tensors then become the parameters, nothing is drawn
        model = build_model(config)
    second = tied_names(model)
    expected = {name for name in model.state_dict() if name not in second}
    ours = {n: t for n, t in ours.items() if n in expected or t.any()}  # drop the zero biases of a bias-free model
    _check(where, model, expected, ours)
    model.load_state_dict({**ours, **{name: ours[first] for name, first in second.items()}}, assign=True)
    for name, first in second.items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(first))
    return model.eval()


def model_folder_of(path: str | os.PathLike[str]) -> Path:
    """Where the model lies: the folder itself, `model/` in it (a run folder, a checkpoint), or, for the name of a model
    that was pulled, its place in the cache. A GGUF file or a folder of CTranslate2 becomes one there (`in_place`).

    Raises:
        ModelFolderError: nothing of the kind is there; the message says what is nearest.
    """
    from glassformer.hub.in_place import converted  # it reads with this file

    folder = Path(path)
    if (kept := converted(folder)) is not None:
        return kept
    if not folder.exists() and (pulled_folder(str(path)) / "config.json").is_file():
        return pulled_folder(str(path))
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if not folder.exists():
        if is_published(str(path)):
            raise ModelFolderError(f"{path}: not fetched yet; run: glassformer pull {path}")
        beside = folder.parent
        names = [str(entry) for entry in beside.iterdir() if entry.is_dir()] if beside.is_dir() else []
        hint = did_you_mean(str(folder), names) if names else "train one first: glassformer train shakespeare-fast"
        raise ModelFolderError(f"{folder}: there is no such run or model folder; {hint}")
    if not folder.is_dir():
        raise ModelFolderError(
            f"{folder}: a file, where the folder of a run or a model or a .gguf file is needed; of other files make a "
            f"folder first: glassformer import {folder}"
        )
    refuse_adapter(folder)
    if inside := sorted(str(entry.parent.parent) for entry in folder.glob("*/model/config.json")):
        raise ModelFolderError(f"{folder}: holds several runs, name one of them: {', '.join(inside[:20])}")
    if files := sorted(map(str, folder.glob("*.gguf"))):
        raise ModelFolderError(f"{folder}: holds GGUF files, name one of them: {', '.join(files[:20])}")
    raise ModelFolderError(
        f"{folder}: no config.json here nor in its model/ folder; a run gets one at its first evaluation"
    )


def tied_names(model: nn.Module) -> dict[str, str]:
    """What is tied: every further name of a parameter, and its first."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in every if first[id(parameter)] != name}


def check_vocabulary(where: str | os.PathLike[str], tokenizer: Tokenizer, rows: int, what: str) -> None:
    """Every token that text can become has a row in the model. Added tokens need none: published tokenizers have a few
    that no text model was given (Gemma 3's marks for images); they are refused in prompts and never drawn.

    Raises:
        ModelFolderError: the tokenizer belongs to another model.
    """
    if tokenizer.n_text_ids > rows:
        raise ModelFolderError(
            f"{where}: {tokenizer.vocab_size:,} tokens in the tokenizer, {rows:,} {what} in the model; they do not "
            "belong together: take the tokenizer of this model"
        )


def check_count(where: str | os.PathLike[str], config: Any, n_tensors: int) -> None:
    """No more layers and experts than there are tensors: a number in a file is no reason to build a million of them."""
    parts = (config.encoder, config.decoder) if isinstance(config, EncoderDecoderConfig) else (config,)
    asked = sum(getattr(part, "n_layer", 0) * max(1, getattr(part, "n_expert", 0)) for part in parts)
    if asked > n_tensors:
        raise ModelFolderError(
            f"{where}: config.json asks for {asked:,} layers or experts, the weights hold {n_tensors} tensors"
        )


def _check(where: str | os.PathLike[str], model: nn.Module, expected: set[str], ours: dict[str, Tensor]) -> None:
    """Every tensor is there, of the right shape, and floating; buffers (counts of n-grams) are what they are."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name in expected}
    for name in [*expected - ours.keys(), *ours.keys() - expected, *shapes]:
        asks, holds = shapes.get(name), tuple(ours[name].shape) if name in ours else None
        if asks != holds:
            raise ModelFolderError(f"{where}: config.json asks for {name} of shape {asks}, the weights hold {holds}")
        if name in shapes and not ours[name].is_floating_point():
            kind = ours[name].dtype
            raise ModelFolderError(f"{where}: {name} holds {kind}; only floating-point weights can be read")
