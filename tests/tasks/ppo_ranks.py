"""What `test_policy_losses.py` runs in one process, and as each of two: an iteration of PPO on a toy model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist

from glassformer.data.chats import chat_row
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import PPO
from glassformer.tasks.chats import ChatSource
from glassformer.tasks.settings import RunSettings


def score(completion_ids):
    return [float(sum(ids) % 7) for ids in completion_ids]


def iteration(rank: int, size: int) -> dict[str, float]:
    """Sum and count of the losses, the next beta, and the explained variance."""
    tokenizer = build_tokenizer("bytes")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=1, n_head=3, n_embd=15)
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(Decoder(config).eval())
    task = PPO(
        reward=f"{__name__}:score", max_new_tokens=6, epochs=1, minibatches=1, kl_target=0.3, kl_horizon=40,
        whiten_rewards=True,
    )  # fmt: skip
    rows = [chat_row({"prompt": "abcdefgh"[: 1 + i]}, f"toy:{i}") for i in range(8)]
    task.source = ChatSource("toy", {"train": rows, "validation": rows, "test": []}, tokenizer)
    task.run = RunSettings(batch_size=8, sequence_length=32)
    task.begin(models[0])
    task.reference = models[1]
    torch.manual_seed(3)
    torch.nn.init.normal_(task.companion.head.weight)
    (batch,) = task.batches("train", rank, size).task.iteration(2)
    loss = task.loss(models[0], batch)
    explained = float(loss.metrics["explained_variance"][0]) / len(batch[0])
    return {"sum": loss.sum.item(), "count": loss.count, "beta": task.state["beta"], "explained": explained}


def run(rank: int, size: int, folder: str) -> None:
    """The same as one of several processes; the result is in FOLDER/RANK.json."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(iteration(rank, size)))
    dist.destroy_process_group()
