"""One batch, four micro-batches, two processes, four processes, sharded or not: the same weights, but for rounding."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import torch
from forked import processes
from patience import PATIENCE
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from rank_worker import CASES, run_rank, train

from glassformer.training import World


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two tensors, as a part of the size of the first."""
    return float((a - b).double().norm() / a.double().norm())


def bound(case: str) -> float:
    """float64 leaves 1e-9 for AdamW and Muon, which amplify rounding; plain descent in fp32 stays within 1e-6."""
    return 1e-6 if case.startswith("sgd") else 1e-9


@pytest.fixture(scope="module")
def alone():
    """All cases in one process, all 32 sequences at once."""
    return {case: train(case, World()) for case in CASES}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_ranks(n: int, out: Path) -> None:
    """In n processes, forked from one that has imported torch once; `test_torchrun.py` starts them as a user does."""
    port = free_port()
    running = [processes().Process(target=run_rank, args=(rank, n, port, out), daemon=True) for rank in range(n)]
    for process in running:
        process.start()
    try:
        for process in running:
            process.join(PATIENCE)
        assert [process.exitcode for process in running] == [0] * n
    finally:
        for process in running:
            process.kill()


@pytest.mark.parametrize("case", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("micro", [8, 5])
def test_micro_batches(alone, case, micro):
    parameters, losses = train(case, World(), micro_batch_size=micro)
    expected, expected_losses = alone[case]
    assert losses == pytest.approx(expected_losses, rel=1e-6 if case == "sgd" else 1e-9)
    for name, tensor in expected.items():
        assert distance(tensor, parameters[name]) <= bound(case), name


@pytest.mark.parametrize("n", [2, 4])
def test_processes(alone, n, tmp_path):
    run_ranks(n, tmp_path)
    for case, (expected, expected_losses) in alone.items():
        parameters = load_file(tmp_path / f"{case}.safetensors")
        losses = parameters.pop("losses").tolist()
        assert losses == pytest.approx(expected_losses, rel=1e-6 if case.startswith("sgd") else 1e-9), case
        assert parameters.keys() == expected.keys()
        for name, tensor in expected.items():
            assert distance(tensor, parameters[name]) <= bound(case), (case, name)
