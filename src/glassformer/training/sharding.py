"""Weights sharded over processes: each holds a part of every matrix and fetches the rest when it needs it.

Rajbhandari et al. 2019 (ZeRO, stage 3), https://arxiv.org/abs/1910.02054; PyTorch's `fully_shard` (FSDP2). Checkpoints
go through `torch.distributed.checkpoint` with safetensors files (its default writer would leave a pickle), each
process writing its part; they can be read by another number of processes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from glassformer.errors import DeviceError, RunError
from glassformer.layers import Block

SHARDINGS = ("none", "full")  # training.sharding


def shard(model: nn.Module, *, precision: str = "fp32") -> None:
    """Shard a model over all processes, in place, block by block, so that one block at a time is whole.

    Raises:
        DeviceError: this PyTorch is too old.
    """
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
    except ImportError:
        raise DeviceError(f"training.sharding=full needs PyTorch 2.6 or newer, this is {torch.__version__}") from None
    half = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    for block in [module for module in model.modules() if isinstance(module, Block)]:
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    for name in ("hidden", "token_logits", "sequence_logits"):  # what tasks call beside the model itself
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def save_sharded(folder: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write this process's parts; all processes must call it with the same folder."""
    from torch.distributed import checkpoint

    writer = _storage("HuggingFaceStorageWriter")(path=str(folder), save_distributed=True)
    checkpoint.save(dict(tensors), storage_writer=writer)


def load_sharded(folder: str | Path, tensors: dict[str, Tensor]) -> None:
    """Read this process's parts into `tensors`; any number of processes may have written them.

    Raises:
        RunError: something is missing or has another shape.
    """
    from torch.distributed import checkpoint

    try:
        checkpoint.load(dict(tensors), storage_reader=_storage("HuggingFaceStorageReader")(path=str(folder)))
    except (checkpoint.api.CheckpointException, KeyError, ValueError) as error:
        reason = " ".join(str(error).splitlines()[-1:])
        raise RunError(f"{folder}: does not fit the model of recipe.toml ({reason}); was recipe.toml edited?") from None


def _storage(name: str):
    import torch.distributed.checkpoint as checkpoint

    if not hasattr(checkpoint, name):
        raise DeviceError(
            f"checkpoints of training.sharding=full need PyTorch 2.8 or newer, this is {torch.__version__}"
        )
    return getattr(checkpoint, name)
