"""Seconds of a training step, nanoGPT-style fp32 eager against ours: the same model, the same batch, the same tokens.

    python benchmarks/step_time.py [--rounds 7] [--only 10.7M] [--batch 4] [--no-compile]

Prints JSON. 10.7 M is the lecture's 6 x 384 (T 256, V 65), 124 M is GPT-2 (T 128 by default, V 50,257: what fits
beside a second one). The reference is written below in plain torch, the way nanoGPT does it: LayerNorm, one c_attn,
`scaled_dot_product_attention`, GELU, a tied head, all logits at once, `clip_grad_norm_`, `torch.optim.AdamW`. Both
start from equal weights, and their first losses must agree. All ways step in turn in one process; medians. Ours:

    eager, compiled      in fp32, as the training loop runs it (AdamW)
    bf16, compiled_bf16  where the processor multiplies bf16 natively, and only there
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import NextToken
from glassformer.threads import set_threads
from glassformer.training import build_optimizer, choose_precision
from glassformer.training.compiling import compiled
from glassformer.training.step import LossModule, TrainStep

MODELS = {
    "10.7M": {"vocab_size": 65, "block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384},
    "124M": {"vocab_size": 50_257, "block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768},
}
BATCHES = {"10.7M": (4, 256), "124M": (1, 128)}  # B, T on two cores; a step of either takes seconds


class PlainBlock(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd, bias=False), nn.LayerNorm(n_embd, bias=False)
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)
        self.up = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.down = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class PlainGPT(nn.Module):
    """The reference. (inputs, targets), both (B, T) -> mean loss."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(PlainBlock(config.n_embd, config.n_head) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=False)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.flatten())

    def copy_from(self, model: Decoder) -> PlainGPT:
        """Take the weights of one of ours."""
        table, order = dict(model.named_parameters()), ["embedding.token", "positions"]
        for i in range(len(model.blocks)):
            parts = ("attention_norm", "feedforward_norm", "attention.qkv", "attention.out")
            order += [f"blocks.{i}.{part}" for part in (*parts, "feedforward.up", "feedforward.down")]
        with torch.no_grad():
            for mine, name in zip(self.parameters(), [*order, "final_norm"], strict=True):
                mine.copy_(table[f"{name}.weight"])
        return self


def plain_step(model: PlainGPT, batch: tuple[Tensor, Tensor]) -> Callable[[], float]:
    """nanoGPT's step."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def step() -> float:
        loss = model(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def our_step(loss: nn.Module, optimizer: object, precision: str, batch: tuple[Tensor, Tensor]) -> Callable[[], float]:
    """The training loop's step."""
    train_step = TrainStep(loss, optimizer, precision=precision)  # type: ignore[arg-type]

    def step() -> float:
        measured = train_step.forward_backward(batch).read()
        train_step.optimizer_step(measured, 1.0)
        train_step.clear()
        return measured.loss

    return step


def measure(name: str, batch_size: int | None, rounds: int, *, compile_too: bool) -> dict[str, object]:
    B, T = BATCHES[name]
    B = batch_size or B
    torch.manual_seed(0)
    model = Decoder(ModelConfig.make(**MODELS[name], bias=False, activation="gelu"))
    ids = torch.randint(model.config.vocab_size, (B, T + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    reference = PlainGPT(model.config).copy_from(model)
    with torch.no_grad():
        first = [float(reference(*batch)), float(NextToken().loss(model, batch)[0]) / (B * T)]
    assert abs(first[0] - first[1]) < 1e-4, f"not the same model: first losses {first}"
    rates = {"learning_rate": 1e-3, "matrix_learning_rate": 0.0}
    optimizer = build_optimizer("adamw", model, **rates, betas=(0.9, 0.99), weight_decay=0.1)
    whole = LossModule(model, NextToken().loss)
    halves = choose_precision("auto", "cpu") == "bf16"
    steps = {"reference": plain_step(reference, batch), "eager": our_step(whole, optimizer, "fp32", batch)}
    if halves:
        steps["bf16"] = our_step(whole, optimizer, "bf16", batch)
    if compile_too:
        fast = compiled(whole, "cpu")
        steps["compiled"] = our_step(fast, optimizer, "fp32", batch)
        if halves:
            steps["compiled_bf16"] = our_step(fast, optimizer, "bf16", batch)
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(rounds + 2):  # the first two warm up, and compile
        for way, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(values[2:]) for way, values in seconds.items()}
    return {
        "model": name,
        "parameters": model.parameter_count(),
        "B": B,
        "T": T,
        "first_losses": [round(x, 5) for x in first],
        "seconds": {way: round(value, 3) for way, value in medians.items()},
        "ratios": {w: round(medians["reference"] / x, 2) for w, x in medians.items() if w != "reference"},
        "tokens_per_second": {way: round(B * T / value) for way, value in medians.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--no-compile", action="store_true", help="without the compiled sides, which need a compiler")
    args = parser.parse_args()
    threads = set_threads()
    names = [args.only] if args.only else list(MODELS)
    rows = [measure(name, args.batch, args.rounds, compile_too=not args.no_compile) for name in names]
    precision = choose_precision("auto", "cpu")
    print(json.dumps({"what": "seconds a step", "threads": threads, "fastest": precision, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
