"""Lesson 10: two towers, a translator.

The Transformer of 2017 also has an encoder: lesson 8's blocks without the mask, so that every word sees all words. A
decoder block has one more layer, cross-attention: queries from x, what is written so far, keys and values from the
side, what the encoder made of the source. Tokens are words. Targets stand between a start and an end token; shorter
sentences are filled up with padding, which is never a key and never a target.

Since lesson 8: keys and values from a side, a mask as an argument, an encoder without one, cross-attention, pairs.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE, BLOCK_SIZE, N_EMBD = 64, 8, 128  # B pairs a step, of at most 8 words, C numbers each
N_HEAD, N_LAYER, DROPOUT = 4, 2, 0.2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, LEARNING_RATE = 1200, 1e-3
PADDING, START, END = range(3)  # ids that are no words


class MultiHeadAttention(nn.Module):
    """Queries from x (B, T, C), keys and values from the side (B, S, C), which may be x itself: -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(N_EMBD, N_EMBD, bias=False) for _ in range(3))
        self.projection = nn.Linear(N_EMBD, N_EMBD)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x, side, hidden):
        B, T, C = x.shape
        inputs = (self.query, x), (self.key, side), (self.value, side)
        q, k, v = (layer(y).view(B, -1, N_HEAD, C // N_HEAD).transpose(1, 2) for layer, y in inputs)
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, H, T, D) @ (B, H, D, S) -> (B, H, T, S)
        scores = scores.masked_fill(hidden, float("-inf"))  # hidden (T, S) or (B, 1, 1, S): the future, or padding
        heard = self.dropout(F.softmax(scores, dim=-1)) @ v  # (B, H, T, S) @ (B, H, S, D) -> (B, H, T, D)
        return self.dropout(self.projection(heard.transpose(1, 2).reshape(B, T, C)))


class Block(nn.Module):
    """Communicate, read the side if there is one, compute: (B, T, C) -> (B, T, C)."""

    def __init__(self, cross):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(N_EMBD), MultiHeadAttention()
        if cross:
            self.cross_norm, self.cross_attention = nn.LayerNorm(N_EMBD), MultiHeadAttention()
        up, down = nn.Linear(N_EMBD, 4 * N_EMBD), nn.Linear(4 * N_EMBD, N_EMBD)
        self.feedforward = nn.Sequential(nn.LayerNorm(N_EMBD), up, nn.ReLU(), down, nn.Dropout(DROPOUT))

    def forward(self, x, hidden, side=None, padding=None):
        x = x + self.attention(normed := self.attention_norm(x), normed, hidden)
        x = x if side is None else x + self.cross_attention(self.cross_norm(x), side, padding)
        return x + self.feedforward(x)


class LanguageModel(nn.Module):
    """Source ids (B, S) and target ids (B, T) -> logits (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding, self.position_embedding = (nn.Embedding(n, N_EMBD) for n in (vocab_size, BLOCK_SIZE + 2))
        self.encoder = nn.ModuleList(Block(cross=False) for _ in range(N_LAYER))
        self.decoder = nn.ModuleList(Block(cross=True) for _ in range(N_LAYER))
        self.source_norm, self.final_norm = nn.LayerNorm(N_EMBD), nn.LayerNorm(N_EMBD)
        self.lm_head = nn.Linear(N_EMBD, vocab_size)

    def forward(self, source, target):
        padding = (source == PADDING)[:, None, None]  # (B, 1, 1, S)
        side, x = self.embed(source), self.embed(target)
        for block in self.encoder:
            side = block(side, padding)  # no mask but for padding: every word hears every word
        side = self.source_norm(side)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(diagonal=1)
        for block in self.decoder:
            x = block(x, future, side, padding)
        return self.lm_head(self.final_norm(x))

    def embed(self, ids):
        return self.token_embedding(ids) + self.position_embedding(torch.arange(ids.shape[1], device=ids.device))


def encode(text):
    """Lines of `French<TAB>English` -> training and validation ids (N, 2, BLOCK_SIZE + 2), and the words."""
    lines = [[re.findall(r"\w+|[^\w\s]", side.lower()) for side in line.split("\t")] for line in text.splitlines()]
    pairs = [pair for pair in lines if len(pair) == 2 and all(0 < len(side) <= BLOCK_SIZE for side in pair)]
    counts = Counter(word for pair in pairs for side in pair for word in side)
    words = ["", "<start>", "<end>", *sorted(word for word, n in counts.items() if n > 2)]
    number = dict(zip(words, range(len(words)), strict=True))
    known = [[[number.get(word) for word in side] for side in pair] for pair in pairs]
    rows = [row for source, target in known if None not in source + target for row in (source, [START, *target, END])]
    ids = torch.tensor([row + [PADDING] * (BLOCK_SIZE + 2 - len(row)) for row in rows]).view(-1, 2, BLOCK_SIZE + 2)
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]  # all manuals in both splits
    return ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :], words


def loss_of(model, pairs):
    """The mean loss of each next word, the end token included, of pairs (B, 2, BLOCK_SIZE + 2)."""
    source, target = pairs.to(DEVICE).unbind(dim=1)
    return F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten(), ignore_index=PADDING)


@torch.no_grad()
def evaluate(model, pairs):
    return sum(loss_of(model, part).item() * len(part) for part in pairs.split(64)) / len(pairs)


def train(model, pairs, steps=STEPS, seed=1337, report=lambda step, loss: None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batches = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        loss = loss_of(model, pairs[torch.randint(len(pairs), (BATCH_SIZE,), generator=batches)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report(step, loss.item())


@torch.no_grad()
def translate(model, source):
    """The likeliest word after those so far, from the start token to the end token: (B, S) -> (B, T)."""
    target = torch.full_like(source[:, :1], START)
    while target.shape[1] < BLOCK_SIZE + 2 and not (target == END).any(dim=1).all():
        target = torch.cat([target, model(source, target)[:, -1:].argmax(dim=-1)], dim=1)
    return target


def main(text, steps=STEPS, seed=1337, report=lambda step, loss: step % 100 or print(f"step {step}: {loss:.3f}")):
    training, validation, words = encode(text)
    torch.manual_seed(seed)
    model = LanguageModel(len(words)).to(DEVICE)
    print(f"{len(training):,} pairs, {len(words):,} words, {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, training, steps, seed, report)
    print(f"validation loss {evaluate(model.eval(), validation):.4f} after {steps} steps")
    shown = validation[:: -(-len(validation) // 8)].to(DEVICE)
    for rows in zip(*shown.unbind(dim=1), translate(model, shown[:, 0]), strict=True):
        said = [" ".join(words[i] for i in row.tolist() if i != START).split("<end>")[0].strip() for row in rows]
        print("{}\n    manual: {}\n    model:  {}".format(*said))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"give a file with lines of French<TAB>English: python {sys.argv[0]} pairs.tsv")
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
