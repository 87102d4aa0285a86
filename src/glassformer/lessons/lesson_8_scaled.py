"""Lesson 8: scaled up, with dropout.

Nothing new is needed for a model that writes passable Shakespeare, only more of everything: 384 numbers a token instead
of 32, six heads, six blocks, a window of 256 characters and 64 of them a step. That is 10,788,929 parameters for a text
of a million characters, so it could learn the text by heart. Dropout (Srivastava et al. 2014) is against that: in
training a fifth of the numbers is set to zero at random, after the softmax, after the projection and after the
feed-forward layer, so that no path may be relied on; it is like training many thinned networks at once, and in use all
of them speak.

The lecture took 15 minutes on an A100 and advised against a CPU. 5,000 steps are the default where there is a GPU;
elsewhere 20, which take minutes and show no more than that it works.

Since lesson 7: larger sizes, a lower rate, dropout, a device; the norm is PyTorch's, of equal value.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD = 64, 256, 384  # B windows a step, of T characters, C numbers each
N_HEAD, N_LAYER, DROPOUT = 6, 6, 0.2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, LEARNING_RATE = 5000 if DEVICE == "cuda" else 20, 3e-4
EVERY = 250 if DEVICE == "cuda" else 1  # steps from one line on the screen to the next


class MultiHeadAttention(nn.Module):
    """H heads at once, as one more axis of the same products, and a projection: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.query = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.value = nn.Linear(N_EMBD, N_EMBD, bias=False)
        self.projection = nn.Linear(N_EMBD, N_EMBD)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x):
        B, T, C = x.shape
        layers = (self.query, self.key, self.value)
        q, k, v = (layer(x).view(B, T, N_HEAD, C // N_HEAD).transpose(1, 2) for layer in layers)  # (B, H, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, H, T, D) @ (B, H, D, T) -> (B, H, T, T)
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)
        scores = scores.masked_fill(future, float("-inf"))  # nobody hears the future
        heard = self.dropout(F.softmax(scores, dim=-1)) @ v  # (B, H, T, T) @ (B, H, T, D) -> (B, H, T, D)
        return self.dropout(self.projection(heard.transpose(1, 2).reshape(B, T, C)))  # heads side by side again


class FeedForward(nn.Sequential):
    """What each token works out by itself: (B, T, C) -> (B, T, 4 C) -> (B, T, C)."""

    def __init__(self):
        up, down = nn.Linear(N_EMBD, 4 * N_EMBD), nn.Linear(4 * N_EMBD, N_EMBD)
        super().__init__(up, nn.ReLU(), down, nn.Dropout(DROPOUT))


class Block(nn.Module):
    """Communicate, then compute; both read a normed copy of the stream: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(N_EMBD), MultiHeadAttention()
        self.feedforward_norm, self.feedforward = nn.LayerNorm(N_EMBD), FeedForward()

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
        self.final_norm = nn.LayerNorm(N_EMBD)
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, ids, targets=None):
        B, T = ids.shape
        positions = torch.arange(T, device=ids.device)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C) + (T, C)
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
        windows = ids[starts + torch.arange(BLOCK_SIZE + 1)].to(DEVICE)  # (B, T + 1)
        _, loss = model(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report(step, loss.item())


@torch.no_grad()
def evaluate(model, ids):
    """The loss over a whole split, every target once; `eval` switches dropout off."""
    model.eval()
    n = (len(ids) - 1) // BLOCK_SIZE * BLOCK_SIZE
    inputs, targets = ids[:n].view(-1, BLOCK_SIZE), ids[1 : n + 1].view(-1, BLOCK_SIZE)  # (n / T, T)
    pairs = zip(inputs.to(DEVICE).split(16), targets.to(DEVICE).split(16), strict=True)
    total = sum(model(x, y)[1].item() * len(x) for x, y in pairs)
    model.train()
    return total / len(inputs)


@torch.no_grad()
def generate(model, ids, max_new_tokens):
    """Draw one character from the distribution after the last, append it, again: (B, T) -> (B, T + new)."""
    model.eval()
    for _ in range(max_new_tokens):
        logits, _ = model(ids[:, -BLOCK_SIZE:])  # there are vectors for T positions and no more
        probabilities = F.softmax(logits[:, -1, :], dim=-1)  # (B, V)
        ids = torch.cat([ids, torch.multinomial(probabilities, num_samples=1)], dim=1)
    model.train()
    return ids


def main(text, steps=STEPS, seed=1337, report=lambda step, loss: step % EVERY or print(f"step {step}: {loss:.3f}")):
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(character) for character in text])
    training, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    torch.manual_seed(seed)
    model = LanguageModel(len(characters)).to(DEVICE)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {DEVICE}")
    train(model, training, steps, seed, report)
    print(f"validation loss {evaluate(model, validation):.4f} after {steps} steps")
    sample = generate(model, torch.zeros((1, 1), dtype=torch.long, device=DEVICE), max_new_tokens=300)
    print("".join(characters[i] for i in sample[0]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"give a text file: python {sys.argv[0]} tinyshakespeare.txt")
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
