"""kill -9 in every method, in a step and in a roll-out; the resumed run equals the uninterrupted one to the bit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from killed_runs import ending, killed, last_step, log, run_until_killed

from glassformer import recipes
from glassformer.errors import RunError
from glassformer.files import sha256_file
from glassformer.hub import load_model, save, save_weights
from glassformer.hub.adapters import load_adapter
from glassformer.layers.lora import lora_state
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer

STEPS = 10
COMMON = [
    f"training.steps={STEPS}", "training.batch_size=4", "training.checkpoint_every=3", "training.keep_checkpoints=2",
    "training.eval_every=5", "training.sample_every=5", "training.sample_tokens=4", "training.precision=fp32",
    "training.optimizer=adamw", "training.learning_rate=0.01", "training.start_from={start}",
]  # fmt: skip
ROLL_OUT = ["task.reward=killed_runs:score", "task.max_new_tokens=5"]
PPO = ["task.kind=ppo", *ROLL_OUT, "task.minibatches=2", "task.epochs=2", "task.kl_target=0.1", "task.kl_horizon=99"]
LORA = ["training.lora_rank=2"]
METHODS = {
    "sft": ["task.kind=sft", "training.dropout=0.2"],
    "sft with LoRA": ["task.kind=sft", "training.lora_dropout=0.2", *LORA],
    "reward": ["task.kind=reward", "training.dropout=0.2"],
    "dpo": ["task.kind=dpo", "training.dropout=0.2"],
    "kto": ["task.kind=kto", "training.micro_batch_size=3"],
    "distill": ["task.kind=distill", "task.teacher={teacher}", "training.dropout=0.2"],
    "ppo": PPO,
    "ppo with LoRA": [*PPO, *LORA, "task.rollout_dtype=bf16"],
    "grpo": ["task.kind=grpo", *ROLL_OUT, "task.samples=2", "task.updates=2", "task.beta=0.1"],
}
ON_ANSWERS = ("sft", "distill", "ppo", "grpo")

# moments and steps, one process after the other; then the last checkpoint and the lines of the log
KILLS = [
    ("sft", [("backward", 7)], 6, 7),
    ("sft", [("logged", 9)], 6, 9),
    ("sft with LoRA", [("update", 8)], 6, 8),
    ("reward", [("backward", 2)], 0, 2),
    ("dpo", [("at_once", 0), ("update", 4), ("at_once", 0)], 3, 4),
    ("kto", [("evaluation", 5)], 3, 4),
    ("distill", [("backward", 7), ("backward", 8)], 6, 8),
    ("ppo", [("rewards", 2)], 6, 8),
    ("ppo", [("sampling", 1), ("backward", 7)], 6, 7),
    ("ppo with LoRA", [("sampling", 2)], 6, 8),
    ("grpo", [("rewards", 0), ("sampling", 4)], 6, 8),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two models that know nothing yet, and rows to learn from."""
    folder = tmp_path_factory.mktemp("kills")
    tokenizer = build_tokenizer("bpe", ["0123 3210="] * 9, vocab_size=270)
    for seed, name in enumerate(("start", "teacher")):
        torch.manual_seed(seed)
        fields = {"vocab_size": tokenizer.vocab_size, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}
        save(folder / name, Decoder(ModelConfig.make(family="modern", **fields)), tokenizer)
    rows = [{"prompt": f"{i:02}=", "split": "train" if i % 5 else "validation"} for i in range(30)]
    files = {
        "answers": [{**row, "completion": f"{i:02}"} for i, row in enumerate(rows)],
        "pairs": [{**row, "chosen": f"{i:02}", "rejected": "33"} for i, row in enumerate(rows)],
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(place):
    """`uninterrupted(method)`: its words, its data, and how it ends; each is trained once."""
    known = {}

    def of(method):
        words = [word.format(start=place / "start", teacher=place / "teacher") for word in COMMON + METHODS[method]]
        data = str(place / ("answers.jsonl" if method.split()[0] in ON_ANSWERS else "pairs.jsonl"))
        if method not in known:
            known[method] = ending(recipes.train(None, words, data=data, out=place / method).path)
        return words, data, known[method]

    return of


@pytest.mark.parametrize(
    ("method", "kills", "checkpoint", "lines"), KILLS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_killed_run_ends_as_if_it_had_never_stopped(uninterrupted, tmp_path, method, kills, checkpoint, lines):
    words, data, expected = uninterrupted(method)
    run = tmp_path / "run"
    for moment, step in kills:
        killed(run_until_killed, run, words, data, moment, step)
    assert (last_step(run), len(log(run))) == (checkpoint, lines)
    recipes.resume(run)
    found = ending(run)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_lora_checkpoint_of_an_older_version_is_resumed(place, uninterrupted, tmp_path):
    """It held the weights that are adapted, and the adapter by our names beside them."""
    words, data, expected = uninterrupted("sft with LoRA")
    run = tmp_path / "run"
    killed(run_until_killed, run, words, data, "update", 8)
    for checkpoint in (run / "checkpoints").iterdir():
        model = load_model(place / "start")
        load_adapter(checkpoint / "adapter", model)
        save_weights(checkpoint / "lora.safetensors", lora_state(model))
        shutil.copytree(place / "start", checkpoint / "model")
        shutil.rmtree(checkpoint / "adapter")
        state = json.loads((checkpoint / "state.json").read_text())
        del state["base"], state["files"]
        files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != "state.json"]
        state["files"] = {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in files}
        (checkpoint / "state.json").write_text(json.dumps(state))
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("lora_rank = 2\n", "").replace("lora_dropout = 0.2\n", ""))
    with pytest.raises(RunError, match=r"lora_rank.*recipe\.toml edited"):
        recipes.resume(run)
    (run / "recipe.toml").write_text(recipe)
    recipes.resume(run)
    found = ending(run)
    assert [name for name in expected if found[name] != expected[name]] == []
