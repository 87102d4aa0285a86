"""Lesson 7: layer norm, which is batch norm turned on its side.

Deep networks train well while their numbers keep about unit size, and a stream to which every block adds does not keep
it. So normalise: subtract the mean, divide by the standard deviation. Of what? In a matrix of B examples with C
features, batch norm takes each *column*: one feature over all examples, which ties them together and needs running
averages for later. Layer norm takes each *row*: one token's own C numbers. One index differs, and nothing is tied.

A learned scale and shift follow. The paper put the norm after the addition; today it stands before each layer
(pre-norm), which leaves the stream untouched. One more norm stands before the head.

Since lesson 6: a layer norm in front of attention, of feed-forward and of the head.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD = 32, 8, 32  # B windows a step, of T characters, C numbers each
N_HEAD, N_LAYER = 4, 3  # H heads in each of the blocks
STEPS, LEARNING_RATE = 5000, 1e-3


class MultiHeadAttention(nn.Module):
    """H heads at once, as one more axis of the same products, and a projection: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.query = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.value = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.projection = nn.Linear(N_EMBD, N_EMBD)

    def forward(self, x):
        B, T, C = x.shape
        layers = (self.query, self.key, self.value)
        q, k, v = (layer(x).view(B, T, N_HEAD, C // N_HEAD).transpose(1, 2) for layer in layers)  # (B, H, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, H, T, D) @ (B, H, D, T) -> (B, H, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
        scores = scores.masked_fill(future, float("-inf"))  # nobody hears the future
        heard = F.softmax(scores, dim=-1) @ v  # (B, H, T, T) @ (B, H, T, D) -> (B, H, T, D)
        return self.projection(heard.transpose(1, 2).reshape(B, T, C))  # heads side by side again


class FeedForward(nn.Sequential):
    """What each token works out by itself: (B, T, C) -> (B, T, 4 C) -> (B, T, C)."""

    def __init__(self):
        super().__init__(nn.Linear(N_EMBD, 4 * N_EMBD), nn.ReLU(), nn.Linear(4 * N_EMBD, N_EMBD))


class LayerNorm(nn.Module):
    """Each row to mean 0 and variance 1, then a learned scale and shift: (..., C) -> (..., C)."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(N_EMBD)), nn.Parameter(torch.zeros(N_EMBD))

    def forward(self, x):
        x = x - x.mean(dim=-1, keepdim=True)  # over the channels of each token; batch norm has dim=0 here
        return x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5) * self.scale + self.shift


class Block(nn.Module):
    """Communicate, then compute; both read a normed copy of the stream: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.attention_norm, self.attention = LayerNorm(), MultiHeadAttention()
        self.feedforward_norm, self.feedforward = LayerNorm(), FeedForward()

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feedforward(self.feedforward_norm(x))


class LanguageModel(nn.Module):
    """ids (B, T) -> logits (B, T, V) and, where targets are given, the loss."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, N_EMBD)
        self.position_embedding = nn.Embedding(BLOCK_SIZE, N_EMBD)
        self.blocks = nn.Sequential(*(Block() for _ in range(N_LAYER)))
        self.final_norm = LayerNorm()
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, ids, targets=None):
        B, T = ids.shape
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(T))  # (B, T, C) + (T, C)
        x = self.final_norm(self.blocks(x))  # (B, T, C)
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
