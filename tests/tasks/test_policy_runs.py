"""Runs of GRPO and PPO: the reward rises, a failure costs an iteration alone, resumed is uninterrupted."""

import inspect
import json
import re

import numpy as np
import pytest

from glassformer import recipes
from glassformer.data.chat_sets import load_chats
from glassformer.errors import DataError, UsageError
from glassformer.training import RunFolder


def test_digits_to_sort_are_made_the_same_at_each_call():
    rows = load_chats("sort-digits")
    assert {split: len(found) for split, found in rows.items()} == {"train": 12_800, "validation": 512, "test": 512}
    every = [row for found in rows.values() for row in found]
    assert len({row.prompt for row in every}) == len(every)
    assert all(row.answers == ("".join(sorted(row.prompt[:-1])),) and len(row.prompt) == 9 for row in every)
    assert every == [row for found in load_chats("sort-digits").values() for row in found]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model that has seen a few sorted digits, and prompts to go on with."""
    folder = tmp_path_factory.mktemp("policy")
    texts = ["".join(np.random.default_rng(i).permutation(list("0123"))) for i in range(60)]
    rows = [{"prompt": f"{t}=", "completion": "0123", "split": "train" if i % 5 else "validation"}
            for i, t in enumerate(texts)]  # fmt: skip
    (folder / "digits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "tokenizer.kind=bytes"]
    words = [*shape, "task.kind=sft", "training.steps=4", "training.batch_size=8", "training.precision=fp32"]
    run = recipes.train(None, words, data=str(folder / "digits.jsonl"), out=folder / "start")
    return folder, run.path


COMMON = ["training.batch_size=8", "training.precision=fp32", "training.learning_rate=0.003", "task.max_new_tokens=5"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["training.start_from={}", "training.batch_size=10"], r"batch_size=10 .*samples=4"),
        (["training.start_from={}", "task.reward=exakt"], "exakt.*exact"),
        (["training.start_from={}", "training.dropout=0.1"], "dropout"),
        ([], "start_from"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(start, tmp_path, words, line):
    folder, model = start
    words = [word.format(model) for word in words]
    words = ["task.kind=grpo", "task.reward=exact", "task.samples=4", *COMMON, *words]
    with pytest.raises(UsageError, match=line):
        recipes.train(None, words, data=str(folder / "digits.jsonl"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ppo_resumes_to_the_bit_in_the_middle_of_an_iteration(start, tmp_path):
    folder, model = start
    words = [
        "task.kind=ppo", f"task.reward={__name__}:digits", "task.minibatches=2", "task.epochs=2", "task.kl_target=0.1",
        "task.kl_horizon=100", "training.steps=7", "training.checkpoint_every=1", "training.keep_checkpoints=9",
        "training.eval_every=3", f"training.start_from={model}", *COMMON,
    ]  # fmt: skip
    data = str(folder / "digits.jsonl")
    whole, cut = (recipes.train(None, words, data=data, out=tmp_path / name) for name in ("whole", "cut"))
    for checkpoint in (cut.path / "checkpoints").iterdir():
        if checkpoint.name > "step-000002":  # two of the four updates of the first iteration are still to come
            checkpoint.rename(tmp_path / checkpoint.name)
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for name in ("model/model.safetensors", "companion.safetensors"):
        files = [path / "checkpoints/step-000007" / name for path in (whole.path, cut.path)]
        assert files[0].read_bytes() == files[1].read_bytes()
    betas = [row["beta"] for row in RunFolder(whole.path).read_metrics()]
    assert betas[0] == pytest.approx(0.05) and betas[-1] != betas[0]


def digits(completions, answer):
    return [sum(a == b for a, b in zip(c, w, strict=False)) / 4 for c, w in zip(completions, answer, strict=True)]


@pytest.mark.parametrize(
    "method",
    [
        ["task.kind=grpo", "task.samples=8", "task.updates=2"],
        ["task.kind=grpo", "task.samples=8", "task.scale=rloo", "task.mean=answers", "task.beta=0.01"],
        ["task.kind=ppo", "task.minibatches=1", "task.epochs=2", "task.value_weight=1.0"],
    ],
    ids=["grpo", "rloo", "ppo"],
)
def test_the_reward_rises(start, tmp_path, method):
    folder, model = start
    words = [
        *method, f"task.reward={__name__}:small", "task.max_new_tokens=4", "training.batch_size=32",
        "training.steps=40", "training.learning_rate=0.02", "training.schedule=constant",
        "training.warmup_steps=1", "training.eval_every=0", "training.precision=fp32", f"training.start_from={model}",
    ]  # fmt: skip
    run = recipes.train(None, words, data=str(folder / "digits.jsonl"), out=tmp_path / "run")
    rewards = [row["reward"] for row in RunFolder(run.path).read_metrics()]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2


def small(completion_ids):
    """The share of bytes below 128."""
    return [sum(i < 128 for i in ids) / len(ids) for ids in completion_ids]


CALLS = []


def fails_once(completions, answer):
    """As `digits`; the roll-out (8 answers) at which the number in `CALLS` has counted down to 0 fails."""
    if CALLS and len(completions) == 8:
        CALLS[0] -= 1
        if CALLS[0] == 0:
            raise ConnectionError("the judge is away")
    return digits(completions, answer)


def test_a_failure_inside_a_roll_out_costs_the_iteration_alone(start, tmp_path):
    folder, model = start
    words = [
        "task.kind=grpo", f"task.reward={__name__}:fails_once", "task.samples=4", "training.steps=4",
        "training.checkpoint_every=1", "training.eval_every=4", f"training.start_from={model}", *COMMON,
    ]  # fmt: skip
    data, runs = str(folder / "digits.jsonl"), [tmp_path / "whole", tmp_path / "cut"]
    recipes.train(None, words, data=data, out=runs[0])
    CALLS[:] = [3]
    with pytest.raises(DataError, match="the judge is away"):
        recipes.train(None, words, data=data, out=runs[1])
    assert max(path.name for path in (runs[1] / "checkpoints").iterdir()) == "step-000002"
    CALLS.clear()
    recipes.resume(runs[1])
    files = [run / "checkpoints/step-000004/model/model.safetensors" for run in runs]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_that_cannot_work_names_the_cause(start, tmp_path):
    """No sample is right, so no group has spread."""
    folder, model = start
    words = [
        "task.kind=grpo", "task.reward=exact", "task.samples=4", "training.steps=4", "training.eval_every=2",
        f"training.start_from={model}", *COMMON,
    ]  # fmt: skip
    run = recipes.train(None, words, data=str(folder / "digits.jsonl"), out=tmp_path / "run")
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    (text,) = [event["text"] for event in events if "gradient" in event["text"]]
    assert "100% of groups" in text and "task.kind=sft" in text
    first = RunFolder(run.path).read_metrics()[0]
    assert {"reward", "kl", "entropy", "sampler_gap", "clip_fraction"} <= first.keys()
    assert first["sampler_gap"] < 1e-4 and first["clip_fraction"] == 0


def test_roll_outs_of_spread_weights_are_refused_before_anything_is_read():
    words = ["task.kind=ppo", "task.reward=exact", "training.sharding=full", "data.source=nowhere.jsonl"]
    with pytest.raises(UsageError, match=r"training\.sharding=full.*task\.kind=ppo"):
        recipes.read_recipe(None, words)


def test_the_help_of_tune_names_every_method():
    from glassformer.cli.train import tune
    from glassformer.tasks import TASKS

    shown = inspect.signature(tune).parameters["method"].default.help
    assert set(re.findall(r"[a-z]+", shown)) - {"or"} == {name for name, task in TASKS.items() if task.tuned}
