"""Peak memory of a training run, counted part by part before anything is built.

    weights ─┬─────────────────────────────────────────────────┐
    state   ─┤ always there; sharding = full divides them      │
             │ by the ranks                                    │
             ├─ backward:   + what autograd kept + logits      │  the peak is that of the
             ├─ update:     + gradients + optimizer's scratch  │  largest of these moments
             ├─ evaluation: + logits of one piece              │
             └─ the last:   + the best weights, read again     ┘

B sequences at once on one rank, T block_size, C, H, K, D, F, V, L as in `models`. All sizes are bytes. The
configurations are those of training: block_size is the length of a training sequence.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from glassformer.errors import DeviceError
from glassformer.layers.attention import EAGER_MAX_KEYS
from glassformer.models import Decoder, ModelConfig, parameter_count, parameters_by_part
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.tasks.held_out import EVAL_WINDOW, windows_at_once
from glassformer.tasks.losses import PIECE_BYTES, rows_at_once
from glassformer.training import autocast, available_memory
from glassformer.training.devices import resident_bytes

FP32, BF16, INT64 = 4, 2, 8
AVERAGES = {"adamw": 2, "sgd": 1}  # running averages a parameter that an optimizer keeps; others 1
NOT_MATRICES = ("embedding", "positions", "unembedding", "norms", "biases")  # parts that Muon leaves to AdamW
# glibc serves what is smaller than 32 MiB from a heap that shrinks only at its end. Measured: with every tensor in
# pages of its own the peak of a 6 x 192 model is what is counted here, 803 MB, and with the heap 970 MB.
HEAP_SLACK, HEAP_LARGEST = 0.3, 1 << 28
CUDA_CONTEXT = 600_000_000  # bytes that CUDA and its libraries take on a device before the first tensor; about


class Memory(NamedTuple):
    """Bytes on one device (on a CPU: in one process).

    parts: by component. peak: at the fullest `moment`; less than the sum, for not everything is there at once.
    """

    parts: dict[str, int]
    peak: int
    moment: str


def memory_plan(
    config: ModelConfig,
    t: ResolvedTraining,
    device: str = "cpu",
    precision: str = "fp32",
    *,
    world_size: int = 1,
    libraries: int | None = None,
) -> Memory:
    """Count the peak of a run. `t.batch_size` is of all ranks together, `t.micro_batch_size` of one.

    libraries: what the process takes by itself; None: measured here.
    """
    kind, T, V, C = device.split(":")[0], config.block_size, config.vocab_size, config.n_embd
    counts = parameters_by_part(config)
    n = sum(counts.values())
    matrices = n - sum(counts.get(part, 0) for part in NOT_MATRICES)
    full = t.sharding == "full"
    held = -(-n // world_size) if full else n
    share = -(-t.batch_size // world_size)
    B = min(t.micro_batch_size, share)

    weights = FP32 * held
    optimizer = weights * _averages(t)
    if t.optimizer == "muon":  # AdamW keeps two averages of what is no matrix of a block
        optimizer += FP32 * (n - matrices) * held // n
    activations = activation_bytes(config, B, precision=precision, dropout=t.dropout, device=kind)
    logits = _logit_bytes(V, C, B * T, precision, kind)
    evaluation = _evaluation_bytes(config, kind)
    # from which a checkpoint is written behind the loop; a GPU's go to main memory
    copies = weights + optimizer if kind == "cpu" and t.checkpoint_every else 0
    # more than one rank: two blocks, the one at work and the one fetched ahead, and the table are gathered, or
    # gradients are exchanged in buckets. In bf16 autocast keeps copies of the matrices.
    table = V * C
    block = (n - table) // config.n_layer
    exchanged = 0 if world_size == 1 else FP32 * (2 * block + table) * 2 if full else FP32 * n
    halves = BF16 * (block if full and world_size > 1 else matrices) if precision == "bf16" else 0
    # Muon looks ahead (a copy of the matrices) and turns all of one shape at once (four more of the largest group)
    group = 2 * C * config.n_hidden * config.n_layer
    scratch = FP32 * (matrices + 4 * min(group, matrices)) if t.optimizer == "muon" else 0
    slack = 0  # what a CPU's allocator holds beyond the bytes that are in use
    if kind == "cpu":
        slack = round(HEAP_SLACK * activations)
        if evaluation < HEAP_LARGEST:  # what was training's is in pieces that evaluation cannot use, and stays
            slack += round(0.7 * min(evaluation, activations))
    if libraries is None:
        libraries = libraries_bytes() if kind == "cpu" else CUDA_CONTEXT
    parts = {
        "weights": weights,
        "gradients": weights,
        "optimizer": optimizer,
        "activations": activations,
        "logits": logits,
        "batch": 2 * INT64 * share * T,
        "working": max(exchanged + halves, scratch),
        "evaluation": evaluation,
        "cache": 2 * FP32 * config.n_layer * config.n_kv_head * config.head_width * T if t.sample_every else 0,
        "copies": copies,
        "slack": slack,
        "libraries": libraries,
    }
    always = sum(parts[name] for name in ("weights", "optimizer", "batch", "slack", "libraries"))
    # copies are made at the first evaluation or checkpoint, and their place is kept
    writes = [every for every in (t.eval_every, t.checkpoint_every) if every]
    early = copies if writes and min(writes) < t.steps else 0
    accumulated = weights if share > B else 0
    read_again = 2 * FP32 * n if t.eval_batches and held == n else 0
    moments = {
        "the backward pass": accumulated + activations + logits + exchanged + halves + early,
        "the update": weights + scratch + early,
        "an evaluation": evaluation + early,
        "the last evaluation": evaluation + copies + read_again,
    }
    moment = max(moments, key=lambda name: moments[name])
    return Memory(parts, always + moments[moment], moment)


def check_memory(config: ModelConfig, t: ResolvedTraining, device: str, world_size: int = 1) -> None:
    """Refuse, before anything is built, what certainly cannot fit; `memory_plan` estimates what is needed.

    Raises:
        DeviceError: with the bytes needed, the bytes free, and what to make smaller.
    """
    n, T, V = parameter_count(config), config.block_size, config.vocab_size
    state = FP32 * (2 + _averages(t)) * n  # weight, gradient, running averages
    state //= world_size if t.sharding == "full" else 1
    tokens = t.batch_size // world_size * T * 2 * INT64  # inputs and targets
    piece = rows_at_once(V, device.split(":")[0])
    at_once = min(t.micro_batch_size, t.batch_size // world_size or 1) * T
    logits = min(at_once, piece) * V * FP32
    if at_once > piece:  # then the vectors in the blocks are more: what both norms read, what the last matrix reads
        logits += config.n_layer * at_once * (2 * FP32 * config.n_embd + 2 * config.n_hidden)
    shares = {
        "model.n_layer or model.n_embd": state,
        "training.batch_size": tokens,
        "training.micro_batch_size": logits,
    }
    needed, free = sum(shares.values()), available_memory(device)
    if free is not None and needed > free:
        raise DeviceError(
            f"training needs at least {gigabytes(needed)} of memory ({n:,} parameters, {t.batch_size:,} sequences of "
            f"{T:,} tokens a step) and {gigabytes(free)} are free; try a smaller {max(shares, key=shares.__getitem__)}"
        )


def gigabytes(n_bytes: int) -> str:
    """
    >>> gigabytes(12_345_000_000)
    '12.3 GB'
    """
    return f"{n_bytes / 1e9:,.1f} GB"


def activation_bytes(
    config: ModelConfig, B: int, *, precision: str = "fp32", dropout: float = 0.0, device: str = "cpu"
) -> int:
    """What autograd keeps of B sequences up to the head, and the working space of one layer's backward pass.

    Not derived by hand, as in Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198, eq. 1): autograd is asked, on
    a small piece of the model.
    """
    half = FP32 if precision == "fp32" else BF16
    passing = 2 * config.n_hidden * half + config.n_embd * FP32  # gradients that come and go within a layer
    if device == "cpu" and config.block_size <= EAGER_MAX_KEYS:  # attention keeps the whole pattern
        passing = max(passing, 2 * config.n_head * config.block_size * half)
    return round(B * (_kept_of_a_sequence(config, precision, dropout, device) + config.block_size * passing))


@lru_cache(maxsize=64)
def _kept_of_a_sequence(config: ModelConfig, precision: str, dropout: float, device: str) -> float:
    """Bytes that autograd keeps of one sequence, from what it keeps of a few tiny models.

    What is kept is linear in the number of layers of each pattern and of sequences, and in the width when heads,
    channels and hidden neurons shrink together. So one layer, and this and one more of each pattern, with two and three
    sequences and few key-value heads give it for any size; what does not grow with the sequences (weights in bf16,
    tables of angles) falls out of the differences. (Two at least of sequences and heads: a matrix with one row lies in
    memory as its transpose does, and is not copied.)
    """
    K = config.n_kv_head
    shrink = max(d for d in range(1, K + 1) if K % d == 0 and (d == 1 or K // d > 1)) if config.n_embd >= 256 else 1
    T = config.block_size if device == "cpu" else 128  # a GPU's kernels keep nothing that grows with the square
    small = {
        "n_head": config.n_head // shrink,
        "n_kv_head": config.n_kv_head // shrink,
        "n_embd": round(config.n_embd / shrink),
        "n_hidden": round(config.n_hidden / shrink),
        "block_size": T,
        "vocab_size": 17,
    }

    def kept(*patterns: str) -> int:
        """Of one sequence more, in a model of these layers."""
        layers = {"n_layer": len(patterns), "patterns": patterns}
        model = Decoder(config.model_copy(update={**small, **layers}), dropout=dropout).train()
        with autocast(precision, "cpu"):
            return kept_by_autograd(model, 3) - kept_by_autograd(model, 2)

    first, *others = map(str, config.layer_masks())
    with torch.random.fork_rng(devices=[]):
        one = kept(first)
        more = {pattern: kept(first, pattern) - one for pattern in {*others}}
    return (one + sum(more[pattern] for pattern in others)) * shrink * config.block_size / T


def kept_by_autograd(model: Decoder, B: int) -> int:
    """Bytes of all different storages, weights left out, that a forward pass of B sequences leaves for the backward
    pass; `torch.autograd.graph.saved_tensors_hooks` shows them."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}  # holding on to them, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(torch.zeros(B, model.config.block_size, dtype=torch.int64))
    pack(hidden)  # the head reads it
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)


@lru_cache(maxsize=1)
def libraries_bytes() -> int:
    """Resident bytes of this process once PyTorch has done a step of a model of nothing: Python, PyTorch, its kernels.

    Measured once in a process, before there are large tensors: what they leave in the heap would count too.
    """
    with torch.random.fork_rng(devices=[]):
        toy = Decoder(ModelConfig.make(vocab_size=65, block_size=80, n_layer=1, n_head=1, n_embd=64))
        toy(torch.zeros(8, 80, dtype=torch.int64)).sum().backward()
    return resident_bytes()


def _averages(t: ResolvedTraining) -> int:
    return 0 if t.optimizer == "sgd" and not t.momentum else AVERAGES.get(t.optimizer, 1)


def _logit_bytes(V: int, C: int, tokens: int, precision: str, device: str) -> int:
    """Logits, log-softmax and gradient, in bf16 the logits too; in pieces where they would fill more than one
    (`tasks`): then three times a piece, and the gradients of head and vectors, which are made at once."""
    if tokens <= rows_at_once(V, device):
        return tokens * V * (3 * FP32 + (0 if precision == "fp32" else BF16))
    return 2 * PIECE_BYTES.get(device, PIECE_BYTES["cuda"]) + 2 * FP32 * V * C + 2 * FP32 * tokens * C


def _evaluation_bytes(config: ModelConfig, device: str) -> int:
    """One piece of held-out text: logits and their log-softmax in fp32, and what one layer holds."""
    T = min(config.block_size, EVAL_WINDOW)
    tokens = windows_at_once(config, device, T) * T
    layer = 3 * config.n_embd + 3 * config.n_head * config.head_width + 3 * config.n_hidden
    return FP32 * tokens * (2 * config.vocab_size + layer)
