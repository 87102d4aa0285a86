"""Adapters as `peft` writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.

ours     blocks.0.attention.qkv, part 0          theirs   base_model.model.model.layers.0.self_attn.q_proj
         .lora_a.0, .lora_b.0                             .lora_A.weight, .lora_B.weight
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
        save_weights(temporary / WEIGHTS, theirs)


KNOWN = {"bias": "none", "use_dora": False, "use_rslora": False, "modules_to_save": None, "rank_pattern": {},
         "alpha_pattern": {}, "layers_to_transform": None}  # fmt: skip
"""Keys of adapter_config.json that change what is computed, and the value that is known here."""


def load_adapter(folder: str | os.PathLike[str], model: Any) -> None:
    """Give a model the adapter of a folder that `save_adapter` or `peft` wrote; its weights are frozen.

    Raises:
        ModelFolderError: there is none, it is of another kind, or it does not fit this model.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ModelFolderError(f"{folder}: holds no {CONFIG}, so it is no adapter; give the folder that peft wrote")
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ModelFolderError(f"{folder}: a {config.get('peft_type')} adapter, and only LORA is known")
    whole = heads(model)
    for key, value in KNOWN.items():
        known = sorted(name.removesuffix(".weight") for name in whole.values()) if key == "modules_to_save" else value
        if config.get(key) not in (value, known, None, [], {}):
            raise ModelFolderError(f"{folder}: {key}={config[key]!r} is not known here; merge it with peft first")
    theirs = dict(load_weights(folder / WEIGHTS))
    for head, name in whole.items():
        if (tensor := theirs.pop(PREFIX + name, None)) is not None:
            model.get_parameter(head).data.copy_(tensor)
    parts = adaptable(model)
    wanted = {name: all_of for name, all_of in parts.items() if any(_key(part, "A") in theirs for part in all_of)}
    add_lora(
        model,
        {name: [part.rows for part in all_of] for name, all_of in wanted.items()},
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
    )
    for name, layer in lora_layers(model):
        for part, a, b in zip(wanted[name], layer.lora_a, layer.lora_b, strict=True):
            for mine, kind in ((a, "A"), (b, "B")):
                tensor = theirs.pop(_key(part, kind), None)
                if tensor is None:  # a part without an adapter of its own
                    tensor = mine.detach() * 0
                if tensor.shape != mine.shape:
                    raise ModelFolderError(
                        f"{folder}: {_key(part, kind)} has shape {tuple(tensor.shape)} and this model needs "
                        f"{tuple(mine.shape)}; it was made for another model ({_base(config)})"
                    )
                mine.data.copy_(tensor)
    if theirs:
        raise ModelFolderError(
            f"{folder}: {next(iter(theirs))} has no place in this model; it was made for {_base(config)}"
        )


def _key(part: Part, kind: str) -> str:
    return f"{PREFIX}{part.theirs}.lora_{kind}.weight"


def _base(config: dict[str, Any]) -> str:
    return str(config.get("base_model_name_or_path") or "another one")


__all__ = ["TARGETS", "adaptable", "load_adapter", "new_adapter", "save_adapter"]
