"""Adapters as `peft` writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.

ours     blocks.0.attention.qkv, part 0          theirs   base_model.model.model.layers.0.self_attn.q_proj
         .lora_a.0, .lora_b.0                             .lora_A.weight, .lora_B.weight
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from glassformer.errors import ModelFolderError, UsageError
from glassformer.files import atomic_folder, write_json
from glassformer.hub.configuration import read_json
from glassformer.hub.families.family import is_classifier
from glassformer.hub.families.registry import family_for
from glassformer.hub.families.weight_table import TRANSPOSE, Row
from glassformer.hub.weights import load_weights, save_weights
from glassformer.layers.lora import add_lora, lora_layers, lora_state

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
TARGETS = {"all": ("attention", "feedforward"), "attention": ("attention",), "feedforward": ("feedforward",)}
"""Which linear layers of the blocks get an adapter."""


class Part(NamedTuple):
    """A part of the output of a layer of ours: the layer of theirs, its rows, and whether their matrix is (in, out)."""

    theirs: str
    rows: int
    transposed: bool


def adaptable(model: Any) -> dict[str, list[Part]]:
    """The linear layers of a model's blocks as its family has them, by our name."""
    found: dict[str, list[Part]] = {}
    for row in family_for(model.config).table(model.config):
        if not isinstance(row, Row):
            continue
        name, _, kind = row.ours.rpartition(".")
        if kind != "weight" or not name.startswith("blocks."):
            continue
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and None not in row.theirs:
            n = module.out_features
            sizes = row.sizes or (n // len(row.theirs),) * len(row.theirs)
            names = [str(theirs).removesuffix(".weight") for theirs in row.theirs]
            found[name] = [Part(part, size, row.layout is TRANSPOSE) for part, size in zip(names, sizes, strict=True)]
    return found


def new_adapter(model: Any, targets: str, *, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Freeze a model and give it an adapter that changes nothing yet.

    targets: of `TARGETS`.

    Raises:
        UsageError: the model has no such layers.
    """
    wanted = {
        name: [part.rows for part in parts]
        for name, parts in adaptable(model).items()
        if any(target in name.split(".") for target in TARGETS[targets])
    }
    if not wanted:
        raise UsageError(f"this model has no linear layers for LoRA in its {targets} blocks; train all of its weights")
    add_lora(model, wanted, rank=rank, alpha=alpha, dropout=dropout)
    for head in heads(model):  # a fresh one, which an adapter of the blocks cannot teach
        model.get_parameter(head).requires_grad_(True)


def heads(model: Any) -> dict[str, str]:
    """The tensors that are trained whole beside an adapter, and their names there: the head over classes."""
    if not is_classifier(model.config):
        return {}
    rows = family_for(model.config).table(model.config)
    return {row.ours: str(row.theirs[0]) for row in rows if isinstance(row, Row) and row.ours == "classifier.weight"}


def save_adapter(
    folder: str | os.PathLike[str], model: Any, *, base: str = "", tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter of a model in `peft`'s format, whole or not at all.

    base: the name of the model that it belongs to. tensors: written in place of the model's own (`lora_state`): a
    snapshot, while training continues.
    """
    ours = lora_state(model) if tensors is None else tensors
    layers, parts = dict(lora_layers(model)), adaptable(model)
    first = next(iter(layers.values()))
    theirs = {
        _key(part, kind.upper()): ours[f"{name}.lora_{kind}.{i}"].detach().cpu()
        for name in layers
        for i, part in enumerate(parts[name])
        for kind in "ab"
    }
    whole = heads(model)
    theirs |= {PREFIX + name: ours[head].detach().cpu() for head, name in whole.items()}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if whole else "CAUSAL_LM",
        "modules_to_save": [name.removesuffix(".weight") for name in whole.values()] or None,
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": first.scale * first.rank,
        "lora_dropout": first.dropout,
        "target_modules": sorted({".".join(part.theirs.split(".")[-2:]) for name in layers for part in parts[name]}),
        "fan_in_fan_out": any(part.transposed for name in layers for part in parts[name]),
        "bias": "none",
        "inference_mode": True,
    }
    with atomic_folder(folder, replace=True) as temporary:
        write_json(temporary / CONFIG, config)
        save_weights(temporary / WEIGHTS, theirs, base=fingerprint(model))


def fingerprint(model: Any) -> str:
    """A digest of the first row of every layer that may have an adapter: another one means another base model. `peft`
    ignores it, and its own adapters have none."""
    digest = hashlib.sha256()
    for name in adaptable(model):
        digest.update(model.get_submodule(name).weight[0].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def base_digest(model: Any) -> str:
    """SHA-256 of all weights that stay as they are while an adapter is trained."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def adapter_folder_of(path: str | os.PathLike[str]) -> Path:
    """The adapter's folder: the path itself, or `adapter/` of a run.

    Raises:
        ModelFolderError: there is none.
    """
    for folder in (Path(path), Path(path) / "adapter"):
        if (folder / CONFIG).is_file():
            return folder
    raise ModelFolderError(
        f"{path}: holds no {CONFIG}, so it is no adapter; give the folder that peft wrote, or a run with "
        "training.lora_rank"
    )


KNOWN = {"bias": "none", "use_dora": False, "use_rslora": False, "modules_to_save": None, "rank_pattern": {},
         "alpha_pattern": {}, "layers_to_transform": None}  # fmt: skip
"""Keys of adapter_config.json that change what is computed, and the value that is known here."""


def load_adapter(folder: str | os.PathLike[str], model: Any) -> None:
    """Give a model the adapter of a folder that `save_adapter` or `peft` wrote; its weights are frozen. A model with an
    adapter of this shape takes over the numbers.

    Raises:
        ModelFolderError: there is none, it is of another kind, or it does not fit this model.
    """
    folder = adapter_folder_of(folder)
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ModelFolderError(f"{folder}: a {config.get('peft_type')} adapter, and only LORA is known")
    whole = heads(model)
    for key, value in KNOWN.items():
        known = sorted(name.removesuffix(".weight") for name in whole.values()) if key == "modules_to_save" else value
        if config.get(key) not in (value, known, None, [], {}):
            raise ModelFolderError(f"{folder}: {key}={config[key]!r} is not known here; merge it with peft first")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise ModelFolderError(f"{folder / CONFIG}: r and lora_alpha must be numbers; copy the adapter again") from None
    theirs, parts = load_weights(folder / WEIGHTS), adaptable(model)
    trained = {head: theirs.pop(PREFIX + name) for head, name in whole.items() if PREFIX + name in theirs}
    _check_fits(folder, theirs, parts, model, rank, str(config.get("base_model_name_or_path") or "another model"))
    for head, tensor in trained.items():
        model.get_parameter(head).data.copy_(tensor)
    wanted = {name: all_of for name, all_of in parts.items() if any(_key(part, "A") in theirs for part in all_of)}
    if not lora_state(model):
        rows = {name: [part.rows for part in all_of] for name, all_of in wanted.items()}
        add_lora(model, rows, rank=rank, alpha=alpha, dropout=config.get("lora_dropout") or 0.0)
    for name, layer in lora_layers(model):
        for part, a, b in zip(wanted[name], layer.lora_a, layer.lora_b, strict=True):
            for mine, kind in ((a, "A"), (b, "B")):
                mine.data.copy_(theirs.get(_key(part, kind), torch.zeros(())))  # a part without an adapter of its own


def _check_fits(
    folder: Path, theirs: dict[str, Tensor], parts: dict[str, list[Part]], model: Any, rank: int, base: str
) -> None:
    """Raise unless every tensor of an adapter has a place of its shape in this model, and was made for its weights."""
    shapes = {}
    for name, all_of in parts.items():
        for part in all_of:
            shapes[_key(part, "A")] = (rank, model.get_submodule(name).in_features)
            shapes[_key(part, "B")] = (part.rows, rank)
    for name, tensor in theirs.items():
        if name not in shapes:
            raise ModelFolderError(f"{folder}: {name} has no place in this model; the adapter was made for {base}")
        if tensor.shape != shapes[name]:
            raise ModelFolderError(
                f"{folder}: {name} has shape {tuple(tensor.shape)} and this model needs {shapes[name]}; the "
                f"adapter was made for {base}"
            )
    with safe_open(folder / WEIGHTS, "pt") as file:  # type: ignore[no-untyped-call]
        made_for = (file.metadata() or {}).get("base")
    if made_for not in (None, fingerprint(model)):
        raise ModelFolderError(
            f"{folder}: the adapter was made for other weights of this shape ({base}); give that model"
        )


def _key(part: Part, kind: str) -> str:
    return f"{PREFIX}{part.theirs}.lora_{kind}.weight"


__all__ = ["TARGETS", "adaptable", "adapter_folder_of", "base_digest", "load_adapter", "new_adapter", "save_adapter"]
