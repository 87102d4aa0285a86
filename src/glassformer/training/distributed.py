"""The processes that train one model together: one, or as many as `torchrun` started.

Every process runs the same program on its share of each batch; gradients meet in PyTorch's own collectives (NCCL
between GPUs, gloo between CPUs). One process is the world of size 1, in which every method does nothing, so that no
other code has to ask.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from glassformer.errors import DeviceError, LostProcessError

PATIENCE = datetime.timedelta(hours=2)  # how long others may wait while one prepares a text
_LOST = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|timed out|gloo|nccl|another thread has failed", re.I
)


@dataclass(frozen=True)
class World:
    """rank: which process this is, of `size`. local_rank: the same among the `local_size` processes of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def join(cls) -> World:
        """The world that `torchrun` describes in the environment; else one process. Joining twice is joining once.

        Raises:
            DeviceError: more processes than GPUs on this machine.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        world = cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
        if not dist.is_initialized():
            if torch.cuda.is_available():
                if world.local_size > torch.cuda.device_count():
                    raise DeviceError(
                        f"{world.local_size} processes on this machine and {torch.cuda.device_count()} GPUs; "
                        f"try torchrun --nproc-per-node {torch.cuda.device_count()}"
                    )
                torch.cuda.set_device(world.local_rank)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return world

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over all processes, in place; each gets the same result."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The first process of each machine runs the block alone (to prepare a text); then the others run it."""
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()

    @contextlib.contextmanager
    def lost_process_errors(self) -> Iterator[None]:
        """Report a broken connection to another process in one line.

        Raises:
            LostProcessError: another process of the run has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _LOST.search(str(error)):
                raise
            raise LostProcessError("another process of this run has ended") from error

    def leave(self) -> None:
        """End what `join` began."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
