"""Lesson 5: time to think on what was heard.

With attention alone the tokens look at each other and at once have to say what comes next. Between the two they need
a moment for themselves: a small network, a linear layer and a non-linearity, the same one for every token, and each
token passes through it alone. So there are two kinds of work in a Transformer, and they alternate: communication, in
which tokens exchange what they know, and computation, in which each makes something of it. Everything that follows is
this pair, repeated.

The non-linearity is the point: two linear layers in a row are one linear layer. ReLU keeps what is positive.

Since lesson 4: a feed-forward layer between attention and head.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD, N_HEAD = 32, 8, 32, 4  # B windows a step, of T characters, C numbers each, H heads
STEPS, LEARNING_RATE = 5000, 1e-3


class Head(nn.Module):
    """One head of self-attention: (B, T, C) -> (B, T, D)."""

    def __init__(self, head_size):
        super().__init__()
        self.key = nn.Linear(N_EMBD, head_size, bias=False)
        self.query = nn.Linear(N_EMBD, head_size, bias=False)
        self.value = nn.Linear(N_EMBD, head_size, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, T, D) @ (B, D, T) -> (B, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
        scores = scores.masked_fill(future, float("-inf"))  # nobody hears the future
        self.weights = F.softmax(scores, dim=-1)  # (B, T, T), kept so that one can look at them
        return self.weights @ v  # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """H heads that do not know each other: (B, T, C) -> (B, T, H * D), where H * D = C."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(Head(N_EMBD // N_HEAD) for _ in range(N_HEAD))

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)  # H times (B, T, D) -> (B, T, C)


class FeedForward(nn.Sequential):
    """What each token works out by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__(nn.Linear(N_EMBD, N_EMBD), nn.ReLU())


class LanguageModel(nn.Module):
    """ids (B, T) -> logits (B, T, V) and, where targets are given, the loss."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, N_EMBD)
        self.position_embedding = nn.Embedding(BLOCK_SIZE, N_EMBD)
        self.attention = MultiHeadAttention()
        self.feedforward = FeedForward()
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, ids, targets=None):
        B, T = ids.shape
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(T))  # (B, T, C) + (T, C)
        x = self.attention(x)  # (B, T, C): communicate
        x = self.feedforward(x)  # (B, T, C): compute
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
        logits, _ = model(ids[:, -BLOCK_SIZE:])  # there are vectors for T positions and no more
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
