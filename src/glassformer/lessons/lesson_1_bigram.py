"""Lesson 1: which character follows which? A table of pairs, counted and learned.

A language model says, for what stands there, how likely each symbol is to come next. The simplest one looks at the last
character only. With 65 characters that is a table of 65 x 65 numbers, and there are two ways to fill it: count every
pair in the text, or start from random numbers and let gradients find them. Both end at the same table, because the
counts are what minimises the loss. The second way looks like a detour, and is the one that scales: a table of the last
three characters has 18 million cells, of the last eight ten million times a billion, while the same few lines of
training fit any function that we can write down between the ids and the logits.

The loss is the average of -log(probability of what really came), in nats. A uniform guess has ln 65 = 4.17. A table of
random numbers is worse than not knowing: 4.66 on average, because it is confidently wrong.

Since the start: there is data, a loss, a training loop and a sampler. They stay the same until lesson 8.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE = 32, 8  # B windows a step, of T characters
STEPS, LEARNING_RATE = 3000, 1e-2


def encode(text):
    """The sorted set of characters is the vocabulary; ids (N,) int64 of the whole text, and the characters."""
    characters = sorted(set(text))
    id_of = {character: i for i, character in enumerate(characters)}
    return torch.tensor([id_of[character] for character in text]), characters


def split(ids):
    """The first 90 % are for training, the rest tells how well we do on text that was never seen."""
    n = int(0.9 * len(ids))
    return ids[:n], ids[n:]


def get_batch(ids, batch_size, generator=None):
    """B windows from anywhere: inputs (B, T), and targets (B, T) that are the same one further on."""
    starts = torch.randint(len(ids) - BLOCK_SIZE, (batch_size,), generator=generator)
    inputs = torch.stack([ids[i : i + BLOCK_SIZE] for i in starts])
    targets = torch.stack([ids[i + 1 : i + 1 + BLOCK_SIZE] for i in starts])
    return inputs, targets


def count_table(ids, vocab_size):
    """(V, V) log-probabilities by counting; every pair starts at one, so that none is impossible."""
    counts = torch.ones(vocab_size, vocab_size)
    counts.view(-1).index_add_(0, ids[:-1] * vocab_size + ids[1:], torch.ones(len(ids) - 1))
    return (counts / counts.sum(dim=1, keepdim=True)).log()


class LanguageModel(nn.Module):
    """ids (B, T) -> logits (B, T, V) and, where targets are given, the loss."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, vocab_size)  # row i: the logits of what follows character i

    def forward(self, ids, targets=None):
        logits = self.token_embedding(ids)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B * T, V) against (B * T)


def train(model, ids, steps=STEPS, seed=1337, report=lambda step, loss: None):
    """Look at a batch, ask each weight which way is down, take a small step, again."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batches = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        _, loss = model(*get_batch(ids, BATCH_SIZE, batches))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report(step, loss.item())


@torch.no_grad()
def evaluate(model, ids):
    """The loss over a whole split, every target once. One batch alone is off by a tenth of a nat either way."""
    model.eval()
    n = (len(ids) - 1) // BLOCK_SIZE * BLOCK_SIZE
    inputs, targets = ids[:n].view(-1, BLOCK_SIZE), ids[1 : n + 1].view(-1, BLOCK_SIZE)  # (n / T, T)
    total = sum(model(x, y)[1].item() * len(x) for x, y in zip(inputs.split(512), targets.split(512), strict=True))
    model.train()
    return total / len(inputs)


@torch.no_grad()
def generate(model, ids, max_new_tokens):
    """Draw one character from the distribution after the last, append it, again: (B, T) -> (B, T + new)."""
    for _ in range(max_new_tokens):
        logits, _ = model(ids[:, -BLOCK_SIZE:])  # the table needs only the last; later models need the window
        probabilities = F.softmax(logits[:, -1, :], dim=-1)  # (B, V)
        ids = torch.cat([ids, torch.multinomial(probabilities, num_samples=1)], dim=1)
    return ids


def main(text, steps=STEPS, seed=1337, report=lambda step, loss: step % 500 or print(f"step {step}: {loss:.3f}")):
    ids, characters = encode(text)
    training, validation = split(ids)
    print(f"{len(text):,} characters, {len(characters)} different; the text opens with {ids[:9].tolist()}")
    table = count_table(training, len(characters))
    print(f"counted: validation loss {F.nll_loss(table[validation[:-1]], validation[1:]):.4f}")

    torch.manual_seed(seed)
    model = LanguageModel(len(characters))
    print(f"learned: validation loss {evaluate(model, validation):.4f} before the first step")
    train(model, training, steps, seed, report)
    print(f"learned: validation loss {evaluate(model, validation):.4f} after {steps} steps")
    sample = generate(model, torch.zeros((1, 1), dtype=torch.long), max_new_tokens=300)  # id 0: a new line
    print("".join(characters[i] for i in sample[0]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"give a text file: python {sys.argv[0]} tinyshakespeare.txt")
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
