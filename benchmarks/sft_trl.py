"""Supervised fine-tuning on a CPU, beside TRL and peft: seconds a step, peak memory, and the losses.

    glassformer pull smollm2-135m-instruct
    python -m venv trl && trl/bin/pip install torch==2.13.0 trl==1.16.0 peft==0.21.2
    python benchmarks/sft_trl.py --trl-python trl/bin/python [--steps 6] [--rounds 3] [--batch 4] [--length 250]

Prints JSON. Both sides train the same chats of Alpaca in the same order, with the same weights, AdamW without decay, a
constant rate, fp32, no dropout and no clipping, so the loss of every step is equal to rounding. A chat is padded or cut
to `--length` tokens at most, and only the assistant's turn is trained. Both collators pad; TRL's form without padding
needs FlashAttention, which a CPU has not, and ours leaves padding out of the computation. `lora` adapts
all linear layers of the blocks with rank 16, and both sides begin with the same A (B is zero). Each round runs each
side in a process of its own; sides take turns; the first step of a process is left out; medians are printed. Seconds
hold forward, backward and update. Peak memory is that of the process, start and model included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

NAME = "smollm2-135m-instruct"
RATE, RANK, ALPHA = 1e-4, 16, 32.0


def peak_gib() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """What both sides read: the model folder, ids with their labels, and the adapter to begin with."""
    import glassformer as gf
    from glassformer.data.chat_sets import load_chats
    from glassformer.hub import load_model, model_folder_of
    from glassformer.hub.adapters import new_adapter, save_adapter
    from glassformer.tasks.chats import chat_sequences

    _, tokenizer = gf.load(NAME)
    rows = []
    for row in load_chats("alpaca", quiet=True)["train"]:
        (sequence,) = chat_sequences(tokenizer, row, row.answers[0])
        ids, trained = sequence.ids[: arguments.length + 1], sequence.trained[: arguments.length + 1]
        if len(ids) > arguments.length // 2 and trained.any():
            rows.append({"input_ids": ids.tolist(), "completion_mask": trained.astype(int).tolist()})
        if len(rows) == arguments.steps * arguments.batch:
            break
    model = load_model(model_folder_of(NAME))
    torch.manual_seed(0)
    new_adapter(model, "all", rank=RANK, alpha=ALPHA)
    save_adapter(folder / "adapter", model, base=NAME)
    described = {"model": str(model_folder_of(NAME)), "rows": rows, "steps": arguments.steps, "batch": arguments.batch}
    (folder / "work.json").write_text(json.dumps({**described, "threads": arguments.threads}))


def ours(work: dict[str, Any], folder: Path, lora: bool) -> dict[str, Any]:
    """Steps of `training.step.TrainStep`, as `glassformer tune sft` takes them."""
    import numpy as np

    from glassformer.hub import load_model
    from glassformer.hub.adapters import load_adapter
    from glassformer.tasks import SFT
    from glassformer.tasks.chats import TokenSequence, inputs_and_targets
    from glassformer.training import LossModule, TrainStep, build_optimizer

    torch.set_num_threads(work["threads"])
    model, task = load_model(work["model"]).train(), SFT()
    if lora:
        load_adapter(folder / "adapter", model)
    optimizer = build_optimizer(
        "adamw", model, learning_rate=RATE, matrix_learning_rate=RATE, betas=(0.9, 0.999), weight_decay=0.0
    )
    step = TrainStep(LossModule(model, task.loss), optimizer, grad_clip=0.0)
    pairs = [
        inputs_and_targets(TokenSequence(np.array(r["input_ids"]), np.array(r["completion_mask"], dtype=bool)), 10**6)
        for r in work["rows"]
    ]
    losses, seconds = [], []
    for n in range(work["steps"]):
        started = time.perf_counter()
        batch = task.collate(pairs[n * work["batch"] : (n + 1) * work["batch"]])
        measured = step.forward_backward(batch).read()
        step.optimizer_step(measured, 1.0)
        step.clear()
        seconds.append(time.perf_counter() - started)
        losses.append(measured.loss)
    return {"losses": losses, "seconds": seconds, "peak_gib": peak_gib()}


def theirs(work: dict[str, Any], folder: Path, lora: bool) -> dict[str, Any]:
    """TRL's SFTTrainer on the same ids, in the same order."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(work["threads"])
    model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32)
    if lora:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.started)

    class InOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(dataset or self.train_dataset)

    config = SFTConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=work["batch"], max_steps=work["steps"],
        learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=0.0, logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, packing=False,
        completion_only_loss=True, max_length=None, optim="adamw_torch", seed=0, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": [i if t else -100 for i, t in zip(row["input_ids"], row["completion_mask"], strict=True)],
        }
        for row in work["rows"]
    ]
    clock = Clock()
    trainer = InOrder(
        model=model, args=config, train_dataset=Dataset.from_list(rows), callbacks=[clock],
        processing_class=AutoTokenizer.from_pretrained(work["model"]),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "seconds": clock.seconds, "peak_gib": peak_gib()}


def run_side(python: str, side: str, how: str, folder: Path) -> dict[str, Any]:
    """One side in a process of its own."""
    words = [python, __file__, "--side", side, "--how", how, "--folder", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} {how} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", help="of the environment with trl and peft")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        folder = Path(arguments.folder)
        run = ours if arguments.side == "glassformer" else theirs
        print(json.dumps(run(json.loads((folder / "work.json").read_text()), folder, arguments.how == "lora")))
        return
    if arguments.trl_python is None:
        parser.error("--trl-python PYTHON is needed; the lines above make it")
    if arguments.steps < 2:
        parser.error("--steps must be 2 or more, since the first one is left out")
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, arguments)
        for _ in range(arguments.rounds):
            for how in ("full", "lora"):
                for side, python in (("glassformer", sys.executable), ("trl", arguments.trl_python)):
                    runs.setdefault(f"{side} {how}", []).append(run_side(python, side, how, folder))
    result: dict[str, Any] = {"batch": arguments.batch, "length": arguments.length, "threads": arguments.threads}
    for name, each in runs.items():
        result[name] = {
            "seconds_a_step": round(statistics.median(s for run in each for s in run["seconds"][1:]), 3),
            "peak_gib": round(statistics.median(run["peak_gib"] for run in each), 2),
            "losses": [round(loss, 4) for loss in each[0]["losses"]],
        }
    for how in ("full", "lora"):
        a, b = result[f"glassformer {how}"], result[f"trl {how}"]
        pairs = zip(a["losses"], b["losses"], strict=True)
        result[f"{how}: times as fast"] = round(b["seconds_a_step"] / a["seconds_a_step"], 2)
        result[f"{how}: largest difference of a loss"] = round(max(abs(x - y) for x, y in pairs), 4)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
