"""Compiling: what is made is kept, and two processes come to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from glassformer.training.compiling import compiled


@pytest.fixture(autouse=True)
def settings_are_put_back(monkeypatch, tmp_path):
    """Determinism and the compiler's folder are the whole process's."""
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.parametrize("chosen", [None, "mine", default_cache_dir()])
def test_what_is_made_is_kept_in_our_cache_or_the_users(monkeypatch, tmp_path, chosen):
    """Importing the compiler sets the variable to its default, which is no choice of the user's."""
    if chosen:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / chosen))  # an absolute path stays as it is
    compiled(torch.nn.Linear(3, 5), "cpu")
    kept = tmp_path / ("mine" if chosen == "mine" else "cache/inductor")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(kept) and (chosen == "mine" or kept.is_dir())


def test_without_a_place_to_keep_it_compiling_still_works(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    compiled(torch.nn.Linear(3, 5), "cpu")
    assert str(tmp_path) not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_determinism_is_turned_on_where_threads_would_differ(device):
    compiled(torch.nn.Linear(3, 5), device)
    assert torch.are_deterministic_algorithms_enabled() == (device == "cpu")


TRAINING = """
import hashlib, torch
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import NextToken
from glassformer.training import build_optimizer
from glassformer.training.compiling import compiled
torch.set_num_threads(2)
torch.manual_seed(0)
model = Decoder(ModelConfig.make(vocab_size=11, block_size=64, n_layer=1, n_head=2, n_embd=64), dropout=0.2)
rates = {"learning_rate": 1e-2, "matrix_learning_rate": 0.0}
optimizer = build_optimizer("adamw", model, **rates, betas=(0.9, 0.95), weight_decay=0.1)
fast = compiled(model, "cpu")
ids = torch.randint(11, (32, 65))
for _ in range(5):
    logits = fast(ids[:, :-1].contiguous())
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    optimizer.step()
    model.zero_grad()
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
"""


@pytest.mark.slow
def test_compiled_training_comes_to_the_same_bits_in_every_process(tmp_path):
    """Two threads, dropout; the first compiles, the second finds it in the cache, the third compiles again."""
    bits = []
    for cache in ("a", "a", "b"):
        done = subprocess.run(
            [sys.executable, "-c", TRAINING],
            env={**os.environ, "GLASSFORMER_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
        assert done.returncode == 0, done.stderr
        bits.append(done.stdout.strip())
    assert len(bits[0]) == 64 and set(bits) == {bits[0]}
