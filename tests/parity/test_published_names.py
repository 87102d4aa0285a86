"""Weights under the names that other programs gave them: saved from the base class, out of a larger model, while they
were wrapped. The model is the same; what is left over or missing is still refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import CASES
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.hub import load_model
from glassformer.hub.configuration import read_config

WEIGHTS = "model.safetensors"
ONE_EACH = [*{case.config.model_type: name for name, case in CASES.items()}.values()]  # one case of every family


def compiled_blocks(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every block compiled by itself, as those who train with FSDP do."""
    return {name.replace(".0.", ".0._orig_mod."): tensor for name, tensor in theirs.items()}


WRAPPED = {
    "compiled": lambda theirs: {f"_orig_mod.{name}": tensor for name, tensor in theirs.items()},
    "compiled in DDP": lambda theirs: {f"module._orig_mod.{name}": tensor for name, tensor in theirs.items()},
    "compiled blocks": compiled_blocks,
    "a part of a larger model": lambda theirs: {f"net.language_model.{name}": t for name, t in theirs.items()},
}


def folder_of(name: str, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    CASES[name].build().save_pretrained(tmp_path)
    return tmp_path, load_file(tmp_path / WEIGHTS)


def same(folder: Path, expected: dict[str, Tensor]) -> bool:
    found = load_model(folder).state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[n], t) for n, t in expected.items())


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("name", ONE_EACH)
def test_what_wraps_a_model_leaves_its_weights_alone(name: str, how: str, tmp_path: Path):
    folder, theirs = folder_of(name, tmp_path)
    expected = load_model(folder).state_dict()
    save_file(WRAPPED[how](theirs), folder / WEIGHTS)
    assert same(folder, expected)


@pytest.mark.parametrize("name", ONE_EACH)
def test_weights_of_the_base_class(name: str, tmp_path: Path):
    """Without the first component, as `LlamaModel.save_pretrained` writes them; and with that of BERT in front of
    BertModel's own, as they lie in a BertForMaskedLM."""
    folder, theirs = folder_of(name, tmp_path)
    family, config = read_config(folder)
    base = family.base_prefix
    expected = load_model(folder).state_dict()
    has = any(key.startswith(base) for key in theirs) if base else False
    changed = {key.removeprefix(base) if has else f"{base or 'model.'}{key}": t for key, t in theirs.items()}
    assert changed.keys() != theirs.keys()
    save_file(changed, folder / WEIGHTS)
    assert same(folder, expected)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "marian"])
def test_base_names_in_several_files(name: str, tmp_path: Path):
    folder, theirs = folder_of(name, tmp_path)
    family, _ = read_config(folder)
    expected = load_model(folder).state_dict()
    theirs = {f"module.{key.removeprefix(family.base_prefix)}": t for key, t in theirs.items()}
    (folder / WEIGHTS).unlink()
    names = sorted(theirs)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({key: theirs[key] for key in held}, folder / file)
    index = {"weight_map": {key: file for file, held in halves.items() for key in held}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert same(folder, expected)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert, masked tokens", "t5", "vit"])
def test_what_is_missing_left_over_or_there_twice_is_refused(name: str, tmp_path: Path):
    folder, theirs = folder_of(name, tmp_path)
    wrapped = {f"_orig_mod.{key}": t for key, t in theirs.items()}

    def refusal(tensors: dict[str, Tensor]) -> str:
        save_file(tensors, folder / WEIGHTS)
        with pytest.raises(ModelFolderError) as error:
            load_model(folder)
        assert str(error.value).startswith(f"{folder}: ")
        return str(error.value)

    last = sorted(theirs)[-1]
    left = refusal({**wrapped, "_orig_mod.surprise.weight": torch.ones(3)})
    assert "surprise.weight" in left and "alone" in left
    missing = refusal({key: t for key, t in wrapped.items() if key != f"_orig_mod.{last}"})
    assert last in missing and "copy" in missing
    assert "two tensors" in refusal({**wrapped, last: theirs[last].clone()})
