"""Lesson 9: the same model in glassformer.

Lesson 8 is a GPT in one file, and this package should contradict nothing in it. So copy the weights of lesson 8 into a
`Decoder` and compare the logits: they are the same to rounding. So are those of `models/gpt.py`, the package's own GPT
to be read in one sitting, whose parameters have the names of the `Decoder`. The `Decoder` adds a cache, which keeps the
keys and values of what was read, so that a new token costs one row of the attention matrix and not all of it; taps, to
look inside; and the choices that other families need.

Three details differ in form. Query, key and value lie in one matrix, because one large product is faster than three.
There are biases on all linear layers of a block or on none, so lesson 8's missing ones become zeros. And the head has
no bias: the head is linear, so whatever vector d has W d = bias can be added to what it reads, that is, to the shift of
the final norm. There is one, as long as the vocabulary is not larger than the width.

Since lesson 8: nothing, and that is the point.
"""

import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from glassformer.lessons import lesson_8_scaled as lesson_8
from glassformer.models import Decoder, ModelConfig
from glassformer.models.gpt import GPT

STEPS = 0  # of training before the weights are carried over: a GPU's or a patient reader's choice


def to_glassformer(model: lesson_8.LanguageModel) -> Decoder:
    """A Decoder with the same logits. V, the vocabulary, may not be larger than C, the width: see `before_the_head`."""
    V, C = model.lm_head.weight.shape
    if V > C:
        raise ValueError(f"{V} characters do not fit into a width of {C}; choose a text with fewer")
    T = model.position_embedding.num_embeddings
    config = ModelConfig.make(
        vocab_size=V,
        block_size=T,
        n_embd=C,
        n_layer=len(model.blocks),
        n_head=lesson_8.N_HEAD,
        activation="relu",
        tied_head=False,  # the head has weights of its own; GPT-2's are the embedding's
    )
    decoder = Decoder(config)
    decoder.load_state_dict(carried_over(model.state_dict(), config.n_layer))
    return decoder.to(model.lm_head.weight.device).eval()


def carried_over(theirs: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Lesson 8's weights under the names of the package."""
    ours = {
        "embedding.token.weight": theirs["token_embedding.weight"],  # (V, C)
        "positions.weight": theirs["position_embedding.weight"],  # (T, C)
        "final_norm.weight": theirs["final_norm.weight"],  # (C)
        "final_norm.bias": theirs["final_norm.bias"]
        + before_the_head(theirs["lm_head.weight"], theirs["lm_head.bias"]),
        "head.weight": theirs["lm_head.weight"],  # (V, C)
    }
    for n in range(n_layer):
        block, attention = f"blocks.{n}", f"blocks.{n}.attention"
        qkv = torch.cat([theirs[f"{attention}.{part}.weight"] for part in ("query", "key", "value")])  # (3 C, C)
        ours |= {f"{attention}.qkv.weight": qkv, f"{attention}.qkv.bias": torch.zeros_like(qkv[:, 0])}
        for part in ("weight", "bias"):
            ours[f"{attention}.out.{part}"] = theirs[f"{attention}.projection.{part}"]
            ours[f"{block}.feedforward.up.{part}"] = theirs[f"{block}.feedforward.0.{part}"]  # 1 is the ReLU
            ours[f"{block}.feedforward.down.{part}"] = theirs[f"{block}.feedforward.2.{part}"]
            for norm in ("attention_norm", "feedforward_norm"):
                ours[f"{block}.{norm}.{part}"] = theirs[f"{block}.{norm}.{part}"]
    return ours


def before_the_head(weight: Tensor, bias: Tensor) -> Tensor:
    """The shortest d (C) with W d = bias (V); rows of random numbers are independent while V <= C."""
    return torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution[:, 0].to(weight)


@torch.no_grad()
def generate(decoder: Decoder, ids: Tensor, max_new_tokens: int) -> Tensor:
    """Lesson 8's `generate` with a cache: each token is read once. At most T tokens, prompt included."""
    cache = decoder.new_cache(batch_size=len(ids))
    unread = ids
    for _ in range(max_new_tokens):
        probabilities = decoder(unread, cache=cache)[:, -1].softmax(dim=-1)  # (B, V)
        unread = torch.multinomial(probabilities, num_samples=1)  # (B, 1)
        ids = torch.cat([ids, unread], dim=1)
    return ids


def main(text, steps=STEPS, seed=1337, report=lambda step, loss: print(f"step {step}: {loss:.3f}")):
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(character) for character in text])
    torch.manual_seed(seed)
    theirs = lesson_8.LanguageModel(len(characters)).to(lesson_8.DEVICE)
    lesson_8.train(theirs, ids[: int(0.9 * len(ids))], steps, seed, report)
    theirs.eval()
    ours = to_glassformer(theirs)
    readable = GPT.of(ours)

    window = ids[: lesson_8.BLOCK_SIZE][None].to(lesson_8.DEVICE)  # (1, T)
    with torch.no_grad():
        logits = theirs(window)[0]  # (1, T, V)
        for name, model in {"Decoder": ours, "models/gpt.py": readable}.items():
            difference = (model(window) - logits).abs().max()
            print(f"logits of {window.shape[1]} tokens, {name}: the largest difference is {difference:.1e}")
    samples = []
    writers = {"lesson 8": partial(lesson_8.generate, theirs), "with a cache": partial(generate, ours)}
    for name, write in writers.items():
        torch.manual_seed(seed)
        start = time.perf_counter()
        samples.append(write(torch.zeros_like(window[:, :1]), max_new_tokens=window.shape[1] - 1)[0].tolist())
        print(f"{name}: {(window.shape[1] - 1) / (time.perf_counter() - start):.0f} characters a second")
    print("the two samples are", "the same" if samples[0] == samples[1] else "not the same: a draw fell on an edge")
    print("".join(characters[i] for i in samples[1]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"give a text file: python {sys.argv[0]} tinyshakespeare.txt")
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
