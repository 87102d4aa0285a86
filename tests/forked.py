"""Processes forked from one that has imported everything once: for ranks, and for what is killed."""

from __future__ import annotations

import multiprocessing

SLOW_IMPORTS = ["torch.distributed.fsdp", "glassformer.recipes"]


def processes():
    """A context of `multiprocessing`. All tests share its server, so there is one list of what it imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    return context
