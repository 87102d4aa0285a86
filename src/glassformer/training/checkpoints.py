"""Checkpoints: everything the loop needs to go on as if it had never stopped. No pickle.

checkpoints/step-000500/
  model/                  the weights, as a model folder like any other
  optimizer.safetensors   state by parameter name
  state.json              step, data position, random generators, best so far, sizes of the logs, SHA-256 of the rest
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import ModelFolderError, RunError
from glassformer.files import atomic_folder, sha256_file, write_json
from glassformer.interchange import load_model, load_weights, save, save_weights
from glassformer.models import Decoder
from glassformer.tokenizers import Tokenizer
from glassformer.training.optimizers import Optimizer
from glassformer.training.run_folder import RunFolder

FORMAT = 1
_NEEDED = {"format", "step", "tokens", "seconds", "best", "batches", "random", "logs", "files"}


def save_checkpoint(
    run: RunFolder,
    step: int,
    model: Decoder,
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    state: dict[str, Any],
    *,
    keep: int = 3,
) -> Path:
    """Write one checkpoint, whole or not at all, then drop all but the newest `keep`.

    Raises:
        GlassformerError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    folder = run.checkpoints / f"step-{step:06d}"
    with atomic_folder(folder, replace=True) as temporary:
        save(temporary / "model", model, tokenizer)
        save_weights(temporary / "optimizer.safetensors", optimizer.state_dict())
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        hashes = {str(path.relative_to(temporary)): sha256_file(path) for path in files}
        state = {
            "format": FORMAT,
            "step": step,
            **state,
            "random": random_state(),
            "logs": run.sizes(),
            "files": hashes,
        }
        write_json(temporary / "state.json", state)
    for old in _folders(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def latest_checkpoint(run: RunFolder) -> tuple[Path, list[str]]:
    """The newest whole checkpoint, and one line for each newer one that is damaged.

    Raises:
        RunError: there is none.
    """
    complaints: list[str] = []
    for folder in reversed(_folders(run)):
        if (complaint := _damage(folder)) is None:
            return folder, complaints
        complaints.append(complaint)
    if complaints:
        raise RunError(f"{run.path}: no checkpoint is whole; {complaints[0]}; start again with: glassformer train")
    raise RunError(f"{run.path}: no checkpoint yet, nothing to go on from; start again with glassformer train")


def load_checkpoint(folder: Path, model: Decoder, optimizer: Optimizer) -> dict[str, Any]:
    """Put weights, optimizer state and random generators back; return the rest of the state.

    Raises:
        RunError: it does not fit the model or the optimizer.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state["format"] > FORMAT:
        raise RunError(
            f"{folder} was written by a newer glassformer (format {state['format']}, this one reads {FORMAT})"
        )
    device = next(model.parameters()).device
    try:
        saved = load_model(folder / "model")
        if saved.config != model.config:
            raise RunError(
                f"{folder}: the model there has another shape than recipe.toml says; was recipe.toml edited?"
            )
        model.load_state_dict(saved.state_dict())
        optimizer.load_state_dict({n: t.to(device) for n, t in load_weights(folder / "optimizer.safetensors").items()})
    except ModelFolderError as error:
        raise RunError(str(error)) from None
    set_random_state(state["random"])
    return state


def random_state() -> dict[str, str]:
    """PyTorch's generators (dropout draws from them) as hexadecimal text. Data and samples have their own."""
    state = {"torch": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, str]) -> None:
    """Put back what `random_state` told."""
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _folders(run: RunFolder) -> list[Path]:
    named = [path for path in run.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if missing := _NEEDED - state.keys():
            return f"{folder.name}: state.json is damaged (no {min(missing)})"
        for name, digest in state["files"].items():
            if sha256_file(folder / name) != digest:
                return f"{folder.name}: {name} is damaged (its SHA-256 differs)"
    except FileNotFoundError as error:
        return f"{folder.name}: {Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{folder.name}: state.json is damaged"
    return None
