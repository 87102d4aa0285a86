"""A policy, prompts and answers of unequal length for the tests of GRPO and PPO."""

import numpy as np
import torch

from glassformer.data.chats import chat_row
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks.chats import ChatSource
from glassformer.tasks.rollouts import RollOut, roll_out
from glassformer.tasks.settings import RunSettings

REWARDS_B = torch.tensor([1.0, 0.0, 3.0, 1.0, 1.0, 1.0, -2.0, 0.5])
LENGTH = 7


def small_tokenizer():
    return build_tokenizer("bpe", ["one two three four"] * 9, vocab_size=280)


def decoder(tokenizer, seed=3):
    torch.manual_seed(seed)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=2, n_head=3, n_embd=15)
    return Decoder(config).eval()


def prompts(tokenizer, n):
    rows = [chat_row({"prompt": "one two three"[: 3 + i]}, f"toy:{i}") for i in range(n)]
    return [(row, tokenizer.encode(row.prompt)) for row in rows]


def opened(kind, tokenizer, model=None, **settings):
    """A task with a model, a reference that differs from it, and answers of unequal length."""
    task = kind(reward="exact", max_new_tokens=LENGTH, **settings)
    rows = [row for row, _ in prompts(tokenizer, 8)]
    task.source = ChatSource("toy", {"train": rows, "validation": rows, "test": []}, tokenizer)
    task.run = RunSettings(batch_size=8, seed=5)
    task.begin(model or decoder(tokenizer))
    task.reference = moved(decoder(tokenizer), 0.02, seed=9)
    return task


def answers(task, tokenizer, samples):
    found = roll_out(task.model, tokenizer, prompts(tokenizer, 8 // samples), samples=samples, max_new_tokens=LENGTH)
    cut = [RollOut(r.row, r.prompt, r.ids[: 2 + i % 6], r.text, i % 3 == 0, r.log_probs[: 2 + i % 6])
           for i, r in enumerate(found)]  # fmt: skip
    assert len({len(r.ids) for r in cut}) > 3
    return cut


@torch.no_grad()
def moved(model, size, seed=1):
    """The same model after an update of some size."""
    torch.manual_seed(seed)
    for p in model.parameters():
        p += size * torch.randn_like(p)
    return model


def log_probs(model, rollouts, temperature=1.0):
    """By all logits, in fp64: one array an answer."""
    found = []
    for r in rollouts:
        ids = torch.tensor([[*r.prompt, *r.ids]])
        with torch.no_grad():
            logits_TV = (model(ids[:, :-1])[0].double() / temperature).numpy()
        p_TV = np.exp(logits_TV - logits_TV.max(1, keepdims=True))
        p_TV /= p_TV.sum(1, keepdims=True)
        places = range(len(r.prompt) - 1, len(r.prompt) + len(r.ids) - 1)
        found.append(np.log([p_TV[t, ids[0, t + 1]] for t in places]))
    return found


def clipped(ratio, advantage, low, high):
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
