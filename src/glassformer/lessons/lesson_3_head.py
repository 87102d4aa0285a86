"""Lesson 3: one head of self-attention.

Tokens should hear what matters to them, so each emits three vectors. The query says what it is looking for, the key
what it holds, the value what it will tell if it is listened to. The score of token s for token t is the dot product of
t's query and s's key: large where the two fit. Mask, softmax, and the scores are the weights of an average over the
values. The weights now depend on the data: that is all attention is. It is a way for nodes of a graph to talk, where
here the graph has an edge from each token to itself and to every later one: an arrow goes the way the news goes.

Two things to note. The sum does not know where a token stood, so a learned vector for each position is added to
the embedding. And a dot product of D pairs of unit numbers has variance D: unscaled, the softmax would put all on one
token before anything is learned, so the scores are divided by sqrt(D).

Since lesson 2: scores from queries and keys in place of zeros, values in place of the vectors, and positions.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD = 32, 8, 32  # B windows a step, of T characters, C numbers each
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


class LanguageModel(nn.Module):
    """ids (B, T) -> logits (B, T, V) and, where targets are given, the loss."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, N_EMBD)
        self.position_embedding = nn.Embedding(BLOCK_SIZE, N_EMBD)
        self.head = Head(N_EMBD)
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, ids, targets=None):
        B, T = ids.shape
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(T))  # (B, T, C) + (T, C)
        x = self.head(x)  # (B, T, C), as one head takes the whole width: D = C
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
