"""Checkpoints: everything that the loop needs to continue as if it had never stopped. No pickle.

checkpoints/step-000500/
  model/                  the weights, as a model folder like any other
  adapter/                of a run with training.lora_rank, in place of model/: the adapter as `peft` has it; what it
                          adapts are the weights of training.start_from, whose digest is in state.json
  optimizer.safetensors   state by parameter name
  companion.safetensors   of a task with one (PPO's critic)
  state.json              step, data position, random generators, best so far, sizes of the logs, SHA-256 of the rest

With `training.sharding=full` there are `sharded/*.safetensors` in place of the first two, written by all processes at
once and readable by any other number of them, and `tokenizer/`.

The loop waits only while the tensors are copied; a thread writes the copy. A checkpoint is written beside its place,
flushed to the disk and renamed, so it is whole or absent, and the one before stays until then.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import ModelFolderError, RunError
from glassformer.evaluation import WindowLosses
from glassformer.files import atomic_folder, sha256_file, write_json
from glassformer.hub import load_model, load_weights, save, save_weights
from glassformer.hub.adapters import base_digest, load_adapter, save_adapter
from glassformer.layers.lora import lora_state, merged_state, trained_state
from glassformer.tasks import Task
from glassformer.training.distributed import World
from glassformer.training.migrations import FORMAT, migrate_state
from glassformer.training.optimizers import Optimizer
from glassformer.training.random_state import random_state, set_random_state
from glassformer.training.run_folder import RunFolder
from glassformer.training.sharding import load_sharded, save_sharded
from glassformer.training.step import is_sharded

_NEEDED = {"format", "step", "tokens", "seconds", "best", "batches", "random", "logs", "files"}
OLD_ADAPTER = "lora.safetensors"
"""Older checkpoints have an adapter in this file, by our names, beside the weights that it adapts in model/."""


class Background:
    """One task at a time in a thread; its error is raised by the next `wait` or `start`."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, task: Callable[[], None]) -> None:
        """Begin when the task before is done."""
        self.wait()

        def run() -> None:
            try:
                task()
            except BaseException as error:
                self._error = error

        # a daemon: a second Ctrl-C ends the process at once, and what is half written is not renamed
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is running."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


class CheckpointWriter:
    """Writes `model/` (the best so far) and `checkpoints/` of a run in the background."""

    def __init__(
        self,
        run: RunFolder,
        model: nn.Module,
        task: Task,
        optimizer: Optimizer,
        world: World,
        *,
        keep: int,
    ):
        beside = {"source_tokenizer": task.source_tokenizer, "labels": task.labels}
        self.kept_with_it: dict[str, Any] = {name: thing for name, thing in beside.items() if thing}  # for `hub.save`
        self.run, self.model, self.processor, self.optimizer = run, model, task.processor, optimizer
        self.companion: nn.Module | None = task.companion
        self.world, self.keep = world, keep
        self.sharded = any(is_sharded(p) for p in model.parameters())
        self.base = task.run.start_from or ""
        self._background = Background()
        self._copies: dict[str, Tensor] = {}  # memory of snapshots, used again

    def write(
        self, step: int, *, best: bool, state: dict[str, Any] | None, windows: WindowLosses | None = None
    ) -> None:
        """Take a snapshot and begin to write it: as the best model if `best` (with its `windows`, if given), as a
        checkpoint if there is a `state`.

        Every process must call this; only the main one writes (all of them their shards).

        Raises:
            GlassformerError: the write before failed (disk full, folder not writable); older files are untouched.
        """
        self._background.wait()
        if state is not None:
            random = self.world.gather(random_state())
            state = {"format": FORMAT, "step": step, **state, "random": random, "logs": self.run.sizes()}
        if self.sharded and state is not None:
            self._write_sharded(step, state)
            state = None
        lora = self._snapshot("lora", lora_state(self.model))
        whole = best or (state is not None and not lora)
        weights = self._snapshot("model", merged_state(self.model)) if whole else {}
        optimizer = self._snapshot("optimizer", self.optimizer.state_dict()) if state is not None else {}
        companion = {}
        if state is not None and self.companion is not None:
            companion = self._snapshot("companion", trained_state(self.companion))
        if not self.world.is_main:
            return

        def task() -> None:
            if best:
                save(self.run.model, self.model, self.processor, weights=weights, **self.kept_with_it)
                if lora:
                    save_adapter(self.run.adapter, self.model, base=self.base, tensors=lora)
            if windows is not None:
                windows.save(self.run.windows)
            if state is not None:
                with atomic_folder(self._folder(step), replace=True) as temporary:
                    if lora:
                        save_adapter(temporary / "adapter", self.model, base=self.base, tensors=lora)
                        state["base"] = [self.base, self._base_digest]
                    else:
                        save(temporary / "model", self.model, self.processor, weights=weights, **self.kept_with_it)
                    save_weights(temporary / "optimizer.safetensors", optimizer)
                    if companion:
                        save_weights(temporary / "companion.safetensors", companion)
                    self._write_state(temporary, state)
                self._drop_old()

        self._background.start(task)

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            GlassformerError: as `write`.
        """
        self._background.wait()

    def join(self) -> None:
        """Wait until nothing is being written, and ignore errors."""
        with contextlib.suppress(BaseException):
            self._background.wait()

    @cached_property
    def _base_digest(self) -> str:
        return base_digest(self.model)

    def _snapshot(self, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies in main memory; of sharded tensors the whole, in the main process."""
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
            if not self.world.is_main:
                continue
            key = f"{prefix}.{name}"
            if key not in self._copies:
                self._copies[key] = torch.empty_like(whole, device="cpu")
            copies[name] = self._copies[key].copy_(whole.detach())
        return copies

    def _write_sharded(self, step: int, state: dict[str, Any]) -> None:
        """All processes write into one folder; the main one makes it and renames it when all are done."""
        tensors = _parts(self.model, self.optimizer)
        if not self.world.is_main:
            save_sharded(self.world.broadcast(None), tensors)
            self.world.barrier()
            return
        with atomic_folder(self._folder(step), replace=True) as temporary:
            save_sharded(self.world.broadcast(str(temporary / "sharded")), tensors)
            self.processor.save(temporary / "tokenizer")
            if (source := self.kept_with_it.get("source_tokenizer")) is not None:
                source.save(temporary / "tokenizer" / "source")
            self._write_state(temporary, state)
        self._drop_old()
        self.world.barrier()

    def _write_state(self, temporary: Path, state: dict[str, Any]) -> None:
        self.run.flush()  # the logs must be at least as long as the state states
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        hashes = {str(path.relative_to(temporary)): sha256_file(path) for path in files}
        write_json(temporary / "state.json", {**state, "files": hashes})

    def _drop_old(self) -> None:
        for old in checkpoint_folders(self.run)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _folder(self, step: int) -> Path:
        return self.run.checkpoints / f"step-{step:06d}"


def latest_checkpoint(run: RunFolder) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint (None before the first), and one line for each newer one that is damaged.

    Raises:
        RunError: all are damaged.
    """
    complaints: list[str] = []
    for folder in reversed(checkpoint_folders(run)):
        if (complaint := _damage(folder)) is None:
            return folder, complaints
        complaints.append(complaint)
    if complaints:
        raise RunError(f"{run.path}: all checkpoints are damaged; {complaints[0]}; start again with: glassformer train")
    return None, []


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    world: World | None = None,
    companion: nn.Module | None = None,
) -> dict[str, Any]:
    """Restore weights, optimizer state and random generators; return the rest of the state.

    Raises:
        RunError: it does not fit the model or the optimizer, or a newer glassformer wrote it.
    """
    world = world or World()
    state = migrate_state(json.loads((folder / "state.json").read_text(encoding="utf-8")), str(folder))
    sharded = any(is_sharded(p) for p in model.parameters())
    if sharded != (folder / "sharded").is_dir():
        raise RunError(f"{folder} and recipe.toml differ in training.sharding; was recipe.toml edited?")
    if sharded:
        load_sharded(folder / "sharded", _parts(model, optimizer))
    else:
        _load_whole(folder, model, optimizer, state.get("base"))
        if companion is not None:  # its other tensors are frozen, and the model's
            saved = load_weights(folder / "companion.safetensors")
            for name, tensor in trained_state(companion).items():
                tensor.copy_(saved[name])
    own = state["random"][world.rank] if len(state["random"]) == world.size else None
    if own is not None:
        set_random_state(own)
    return state


def checkpoint_folders(run: RunFolder) -> list[Path]:
    """All checkpoints, damaged ones too, the oldest first."""
    named = [path for path in run.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of updates before a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def tokenizer_folder(checkpoint: Path) -> Path | None:
    """The folder of the tokenizer in a checkpoint; None: it is that of the model which the run starts from."""
    return next((checkpoint / name for name in ("model", "tokenizer") if (checkpoint / name).is_dir()), None)


def _load_whole(folder: Path, model: nn.Module, optimizer: Optimizer, base: tuple[str, str] | None) -> None:
    """base: name and digest of the weights that the model's adapter was trained with; the model has them already."""
    device, lora = next(model.parameters()).device, folder / OLD_ADAPTER
    if bool(lora_state(model)) != (base is not None or lora.is_file()):
        raise RunError(f"{folder} and recipe.toml differ in training.lora_rank; was recipe.toml edited?")
    try:
        if base is not None:
            if base_digest(model) != base[1]:
                raise RunError(
                    f"training.start_from={base[0]}: its weights have changed since this run began to adapt them "
                    "(replaced, trained on or damaged); put them back, or train a new run"
                )
            load_adapter(folder / "adapter", model)
        else:
            saved = load_model(folder / "model")
            if saved.config != model.config:
                raise RunError(
                    f"{folder}: its model has another shape than the one in recipe.toml; was recipe.toml edited?"
                )
            model.load_state_dict({**saved.state_dict(), **(load_weights(lora) if lora.is_file() else {})})
            model.generation_settings = saved.generation_settings
        optimizer.load_state_dict({n: t.to(device) for n, t in load_weights(folder / "optimizer.safetensors").items()})
    except ModelFolderError as error:
        raise RunError(str(error)) from None


def _parts(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """This process's tensors of a sharded run; a tied head once."""
    parameters = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    return parameters | {f"optimizer.{name}": tensor for name, tensor in optimizer.state_dict().items()}


def _damage(folder: Path) -> str | None:
    """Why a checkpoint is damaged, or None."""
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
