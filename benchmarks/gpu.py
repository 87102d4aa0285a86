"""The two figures that need a GPU: seconds to loss 1.4697, and the utilisation of GPT-2 124 M. Not run by us yet.

    python benchmarks/gpu.py [--write docs/benchmarks.md] [--only loss|124m]

Prints JSON, and with --write adds a line for each to a table with date, device and software. Without a CUDA device it
says so and ends with exit code 1. About three minutes, most of them compiling.

    loss    seconds until a validation loss of 1.4697 (nanoGPT's character recipe: 3 minutes on an A100), of the loop
            and of the whole process. The command line in a process of its own: shakespeare-char's model with Muon,
            bf16 and compiled; the loss is that of the whole validation split, every 50 steps. Goal: <= 20 s
            on an H100.
    124m    GPT-2's shape, T 1024, bf16, compiled, AdamW, the loop's own step: tokens a second, times the operations a
            token (PaLM's convention, `models.flops_per_token`), over the peak of a bf16 matrix product measured here.
            Goal: >= 50 %.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

from glassformer.models import SIZES, Decoder, ModelConfig, flops_per_token
from glassformer.tasks import NextToken
from glassformer.training import build_optimizer
from glassformer.training.compiling import compiled
from glassformer.training.devices import peak_flops
from glassformer.training.step import LossModule, TrainStep

TARGET = 1.4697
SETTINGS = {
    "steps": 1000,
    "batch_size": 64,
    "optimizer": "muon",
    "learning_rate": "5e-3",
    "matrix_learning_rate": "0.01",
    "schedule": "linear",
    "final_lr_fraction": 0.0,
    "dropout": 0.2,
    "eval_every": 50,
    "checkpoint_every": 0,
    "precision": "bf16",
    "compile": "on",
}
HEAD = "| date | device | software | claim | figure | settings |\n|---|---|---|---|---|---|\n"


def time_to_loss() -> dict[str, Any]:
    """One run in a process of its own; where its metrics first say that the loss is reached."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"training.{key}={value}" for key, value in SETTINGS.items()]
        command = [sys.executable, "-m", "glassformer", "train", "shakespeare-char", *words, "--device", "cuda"]
        started = time.perf_counter()
        subprocess.run([*command, "--quiet", "--json", "--out", f"{folder}/run"], check=True, capture_output=True)
        whole = time.perf_counter() - started
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "val_loss" in line]
    there = next((line for line in evaluated if line["val_loss"] <= TARGET), None)
    return {
        "claim": f"seconds to validation loss {TARGET}",
        "loop_seconds": there["seconds"] if there else None,
        "whole_process_seconds": round(whole, 1),
        "best_loss": round(min(line["val_loss"] for line in evaluated), 4),
        "settings": " ".join(f"{key}={value}" for key, value in SETTINGS.items()),
    }


def utilisation(rows: int = 16, T: int = 1024, rounds: int = 20) -> dict[str, Any]:
    """Steps of the 124 M model; medians."""
    peak = peak_flops("cuda", "bf16")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = Decoder(ModelConfig.make(**SIZES["gpt2"], bias=False, activation="gelu")).to("cuda")
    rates = {"learning_rate": 6e-4, "matrix_learning_rate": 0.0}
    optimizer = build_optimizer("adamw", model, **rates, betas=(0.9, 0.95), weight_decay=0.1)
    train_step = TrainStep(compiled(LossModule(model, NextToken().loss), "cuda"), optimizer, precision="bf16")
    ids = torch.randint(model.config.vocab_size, (rows, T + 1), device="cuda")
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    seconds = []
    for _ in range(rounds + 3):  # the first three compile and warm up
        torch.cuda.synchronize()
        started = time.perf_counter()
        train_step.optimizer_step(train_step.forward_backward(batch).read(), 1.0)
        train_step.clear()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    speed = rows * T / statistics.median(seconds[3:])
    return {
        "claim": "utilisation of 124 M, T 1024",
        "tokens_per_second": round(speed),
        "percent_of_measured_peak": round(100 * speed * flops_per_token(model.config, T).training / peak, 1),
        "measured_peak_tflops": round(peak / 1e12, 1),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        "settings": f"{rows} windows a step, bf16, compiled, AdamW",
    }


def write(path: Path, results: list[dict[str, Any]]) -> None:
    """Add a line for each result to the table at the end of a Markdown file, which is begun if it is not there."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks on GPUs\n"
    if HEAD not in text:
        text = f"{text.rstrip()}\n\n{HEAD}"
    software = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    for result in results:
        figure = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in result.items() if k not in ("claim", "settings"))
        cells = [str(datetime.date.today()), torch.cuda.get_device_name(), software, result["claim"], figure]
        text += f"| {' | '.join([*cells, result['settings']])} |\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PATH")
    parser.add_argument("--only", choices=["loss", "124m"])
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: this benchmark needs one GPU and a CUDA build of PyTorch")
    results = []
    if args.only != "124m":
        results.append(time_to_loss())
    if args.only != "loss":
        results.append(utilisation())
    if args.write:
        write(args.write, results)
    print(json.dumps({"device": torch.cuda.get_device_name(), "results": results}, indent=2))


if __name__ == "__main__":
    main()
