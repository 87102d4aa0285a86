"""`tune` is `train` with a task: what it refuses, and what it chooses."""

import json
import types

import pytest

from glassformer import recipes
from glassformer.errors import UsageError
from glassformer.recipes import defaults
from glassformer.recipes.draft import Draft
from glassformer.recipes.recipe_file import recipe_of
from glassformer.recipes.schema import Recipe

SHAPE = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=64"]
WORDS = ("red", "blue", "green", "black")


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    def turn(role, text):
        return {"role": role, "content": text}

    pairs = [(a, b) for a in WORDS for b in WORDS for _ in range(3)]
    rows = [{"messages": [turn("user", f"say {a} {b}"), turn("assistant", f"{a} {b}!")]} for a, b in pairs]
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def start(chats, tmp_path_factory):
    words = ["task.kind=sft", *SHAPE, "training.steps=2", "training.precision=fp32"]
    return recipes.train(None, words, data=chats, out=tmp_path_factory.mktemp("start") / "run").path


def tuned(chats, start, out, *words, method="sft"):
    lines = []
    run = recipes.tune(
        method, None, ["training.steps=2", *words], data=chats, model=str(start), out=out, log=lines.append
    )
    return recipe_of(run.path), lines, run


def test_what_is_left_open_is_chosen_with_reasons(chats, start, tmp_path):
    recipe, lines, run = tuned(chats, start, tmp_path / "whole")
    assert (recipe.task.kind, recipe.training.start_from, run.command) == ("sft", str(start), "chat")
    assert (recipe.training.optimizer, recipe.training.learning_rate) == ("adamw", 3e-4)
    assert recipe.training.sequence_length == 32 and recipe.training.batch_size >= 4
    for key in ("batch_size", "sequence_length", "learning_rate", "schedule", "warmup_steps"):
        assert any(line.startswith(f"training.{key} = ") and "(" in line for line in lines), key


def test_lora_takes_ten_times_the_rate(chats, start, tmp_path):
    recipe, lines, run = tuned(chats, start, tmp_path / "lora", "training.lora_rank=2")
    assert recipe.training.learning_rate == 1e-3
    assert any("for LoRA" in line for line in lines) and (run.path / "adapter").is_dir()


def test_a_roll_out_takes_whole_groups(chats, start, tmp_path):
    prompts = tmp_path / "p.jsonl"
    lines = [json.dumps({"prompt": [{"role": "user", "content": f"say {a} {b}"}]}) for a in WORDS for b in WORDS]
    prompts.write_text("\n".join(lines))
    words = [f"task.reward={__name__}:lengths", "task.samples=5", "task.max_new_tokens=4"]
    recipe, lines, run = tuned(str(prompts), start, tmp_path / "grpo", *words, method="grpo")
    assert recipe.training.batch_size == 60 and run.command == "chat"
    assert any("must stay near" in line for line in lines)
    assert not any("a step reads" in line for line in lines)  # 60 answers, not 60 prompts


def lengths(prompts, completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


@pytest.mark.parametrize(
    ("method", "words", "options", "message"),
    [
        ("sfd", [], {}, "did you mean sft"),
        ("translate", [], {}, "no such method"),
        ("sft", [], {}, "needs data"),
        ("sft", [], {"data": "a.jsonl"}, "--model MODEL"),
        ("sft", ["task.kind=dpo"], {"data": "a.jsonl", "model": "m"}, "named twice"),
        ("sft", ["training.start_from=n"], {"data": "a.jsonl", "model": "m"}, "given twice"),
    ],
)
def test_what_it_refuses(method, words, options, message):
    with pytest.raises(UsageError, match=message):
        recipes.tune(method, None, words, **options)


def test_a_recipe_for_another_task_is_refused():
    with pytest.raises(UsageError, match="is for task"):
        recipes.tune("sft", "sentiment")


def test_a_budget_of_minutes_buys_half_as_many_steps_again_with_lora(chats, start, tmp_path, monkeypatch):
    """Frozen weights get no gradient: 4 operations a token and weight instead of 6. A step costs what its rows hold on
    the average, and not what the longest hold."""
    monkeypatch.setattr(defaults, "FINE_TUNING_PASSES", 10**4)
    task, n_params = types.SimpleNamespace(longest=30, usual=11.5, on_policy=False, tuned=True, extra_passes=0), 1000
    task.source = types.SimpleNamespace(n_train=400, examples={"validation": range(40)})
    task.training_rows = lambda length: 400
    monkeypatch.setattr(defaults, "parameter_count", lambda config: n_params)
    steps = {}
    for rank in (None, 16):
        lora = {} if rank is None else {"lora_rank": rank}
        draft, gflops = Draft(Recipe.model_validate({"training": {"start_from": "x", **lora}})), 1e-2
        defaults.fine_tuning_on_examples(draft, task, types.SimpleNamespace(block_size=64), gflops)
        t = draft.recipe.training
        steps[rank] = t.steps
        seconds = t.steps * t.batch_size * 11.5 * n_params * (6 if rank is None else 4) / (gflops * 1e9) / 0.7
        assert 0.97 * 480 < seconds <= 480
        assert t.eval_every == t.steps // 5
    assert steps[16] == pytest.approx(1.5 * steps[None], abs=1.5)
    task.extra_passes, task.source.examples["validation"] = 2, range(16_000)  # DPO, and much to measure on
    draft = Draft(Recipe.model_validate({"training": {"start_from": "x", "lora_rank": 16}}))
    defaults.fine_tuning_on_examples(draft, task, types.SimpleNamespace(block_size=64), gflops)
    assert draft.recipe.training.steps == pytest.approx(steps[16] / 2, abs=1.5)
    assert draft.recipe.training.eval_every == draft.recipe.training.steps // 2
    task.usual = 1.7 * 4096 / 20  # two long answers a row: 20 rows fit into no step's memory at once
    draft = Draft(Recipe.model_validate({"training": {"start_from": "x"}}))
    defaults.fine_tuning_on_examples(draft, task, types.SimpleNamespace(block_size=64), gflops)
    assert (draft.recipe.training.batch_size, draft.recipe.training.micro_batch_size) == (20, 10)
