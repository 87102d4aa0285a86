"""Lesson 2: averaging the past, three ways.

To know more than the last character, each token has to hear from those before it, and never from those after it: they
are what it shall predict. The simplest way to hear somebody is to take the average, so token t becomes the mean of
tokens 0 ... t. Written as a loop that is plain and slow. It is also a product with a lower-triangular matrix whose rows
sum to one, which does all rows at once. And it is the softmax of a matrix of zeros in which the future is minus
infinity: the three give the same numbers.

The third way is the one to keep. Its zeros are *scores*, how much token t wants to hear from token s, before the mask
says who may be heard and the softmax makes them shares. Here all scores are equal; the next lesson lets the tokens
set them. A plain average knows which characters were there and neither their order nor which came last, so as a
language model it is much worse than the table of pairs: weights that are all the same are the wrong ones.

Since lesson 1: a character becomes a vector of C = 32 numbers (the embedding), the mean of the past vectors is taken,
and a linear layer (the head) asks it for the logits.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD = 32, 8, 32  # B windows a step, of T characters, C numbers each
STEPS, LEARNING_RATE = 5000, 1e-3


def average_by_loop(x):
    """(B, T, C) -> (B, T, C): row t is the mean of rows 0 ... t, one after the other."""
    B, T, C = x.shape
    out = torch.zeros(B, T, C)
    for b in range(B):
        for t in range(T):
            out[b, t] = x[b, : t + 1].mean(dim=0)  # (t + 1, C) -> (C)
    return out


def average_by_matrix(x):
    """The same as one product: row t of the matrix holds 1 / (t + 1) up to the diagonal, and zeros after it."""
    B, T, C = x.shape
    weights = torch.tril(torch.ones(T, T))
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights @ x  # (T, T) @ (B, T, C) -> (B, T, C)


def average_by_softmax(x):
    """The same with scores: zero for the past, minus infinity for the future; e^0 = 1 and e^-inf = 0."""
    B, T, C = x.shape
    scores = torch.zeros(T, T).masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))
    return F.softmax(scores, dim=-1) @ x  # (T, T) @ (B, T, C) -> (B, T, C)


class LanguageModel(nn.Module):
    """ids (B, T) -> logits (B, T, V) and, where targets are given, the loss."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, N_EMBD)
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, ids, targets=None):
        x = self.token_embedding(ids)  # (B, T, C)
        x = average_by_softmax(x)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B * T, V) against (B * T)


def train(model, ids, steps=STEPS, seed=1337, report=lambda step, loss: None):
    """Look at a batch, ask each weight which way is down, take a small step, again."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batches = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        starts = torch.randint(len(ids) - BLOCK_SIZE, (BATCH_SIZE, 1), generator=batches)
        windows = ids[starts + torch.arange(BLOCK_SIZE + 1)]  # (B, T + 1)
        _, loss = model(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report(step, loss.item())


@torch.no_grad()
def evaluate(model, ids):
    """The loss over a whole split, every target once."""
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
        logits, _ = model(ids[:, -BLOCK_SIZE:])  # as many as it was trained on
        probabilities = F.softmax(logits[:, -1, :], dim=-1)  # (B, V)
        ids = torch.cat([ids, torch.multinomial(probabilities, num_samples=1)], dim=1)
    return ids


def main(text, steps=STEPS, seed=1337, report=lambda step, loss: step % 500 or print(f"step {step}: {loss:.3f}")):
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(character) for character in text])
    training, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    torch.manual_seed(seed)
    model = LanguageModel(len(characters))
    train(model, training, steps, seed, report)
    print(f"validation loss {evaluate(model, validation):.4f} after {steps} steps")
    sample = generate(model, torch.zeros((1, 1), dtype=torch.long), max_new_tokens=300)  # id 0: a new line
    print("".join(characters[i] for i in sample[0]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"give a text file: python {sys.argv[0]} tinyshakespeare.txt")
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
