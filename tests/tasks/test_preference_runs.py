"""Runs of KTO, DPO and distillation, and what they refuse."""

from __future__ import annotations

import math

import pytest
from preference_sets import (
    COMMON,
    WORDS,
    answer,
    random_model,
    split,
    user,
    written,
)

from glassformer import recipes
from glassformer.errors import DataError, UsageError
from glassformer.hub import save
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import TASKS, reference
from glassformer.tasks.chats import CHAT_TOKENS
from glassformer.tasks.reference import frozen_model
from glassformer.training import Callback, RunFolder


def thumbs_file(path):
    rows = [
        {"prompt": user(f"{WORDS[i % 5]} {i}"), "completion": answer(("good ", "bad ")[i % 2] + WORDS[i % 3])}
        | {"label": i % 2 == 0, "split": split(i)}
        for i in range(40)
    ]
    return written(path, rows)


def test_kto_learns_and_resumes_to_the_bit(start, tmp_path):
    words = [*COMMON, "task.kind=kto", f"training.start_from={start}", "training.learning_rate=0.003"]
    words += ["training.steps=8", "training.checkpoint_every=4", "training.eval_every=4"]
    data = thumbs_file(tmp_path / "t.jsonl")
    whole, cut = (recipes.train(None, words, data=data, out=tmp_path / name) for name in ("whole", "cut"))
    first, *_, last = RunFolder(whole.path).read_metrics()
    assert first["loss"] == pytest.approx(0.5, abs=1e-4) and last["val_loss"] < 0.49
    assert last["reward_desirable"] > last["reward_undesirable"]
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes(), file


def test_kto_needs_both_labels_and_other_prompts(start, tmp_path):
    words = [*COMMON, "task.kind=kto", f"training.start_from={start}", "training.steps=1"]
    rows = [{"prompt": f"{i}", "completion": "b", "split": "test" if i == 9 else split(i)} for i in range(10)]
    for changes, match in (
        ([{}], r"r\.jsonl:\d+: .*no label"),
        ([{"label": True}], "label is false"),
        ([{"label": True, "prompt": "x"}, {"label": False, "prompt": "x"}], "no row has another prompt"),
    ):
        data = written(tmp_path / "r.jsonl", [{**row, **changes[i % len(changes)]} for i, row in enumerate(rows)])
        with pytest.raises(DataError, match=match):
            recipes.train(None, words, data=data, out=tmp_path / "run")


def test_distillation_brings_a_model_to_its_teacher(start, preferences, tokenizer, tmp_path):
    save(tmp_path / "teacher", random_model(tokenizer, 5), tokenizer)
    rows = [{"messages": user(WORDS[i % 5]) + answer(f"good {i}"), "split": split(i)} for i in range(30)]
    data = written(tmp_path / "d.jsonl", rows)
    words = [*COMMON, "task.kind=distill", f"training.start_from={start}", "training.steps=10"]
    words += ["training.learning_rate=0.01", "training.eval_every=5"]
    run = recipes.train(None, [*words, f"task.teacher={tmp_path / 'teacher'}"], data=data, out=tmp_path / "run")
    first, *_, last = RunFolder(run.path).read_metrics()
    assert last["loss"] < first["loss"] and {"cross_entropy", "agreement"} <= last.keys()
    judge = [*COMMON, "task.kind=reward", f"training.start_from={start}", "training.steps=1"]
    reward = recipes.train(None, judge, data=preferences, out=tmp_path / "reward")
    with pytest.raises(UsageError, match="DecoderClassifier"):
        recipes.train(None, [*words, f"task.teacher={reward.path}"], data=data, out=tmp_path / "no")


def test_a_reference_or_a_teacher_of_another_vocabulary_is_one_line(start, preferences, tmp_path):
    other = build_tokenizer("bpe", ["something else " * 9], vocab_size=270, specials=CHAT_TOKENS)
    save(tmp_path / "other", random_model(other, 1), other)
    words = [*COMMON, f"training.start_from={start}", "training.steps=1"]
    for kind, key in (("dpo", "reference"), ("kto", "reference"), ("distill", "teacher")):
        asked = [*words, f"task.kind={kind}", f"task.{key}={tmp_path / 'other'}"]
        data = preferences
        if kind == "distill":
            data = written(tmp_path / "d.jsonl", [{"messages": user(str(i)) + answer("a")} for i in range(9)])
        with pytest.raises(UsageError, match=f"task.{key}=.*another vocabulary .*same tokenizer"):
            recipes.train(None, asked, data=data, out=tmp_path / "run")


def test_the_reference_reads_what_a_run_needs_before_its_first_step_and_goes(start, preferences, tmp_path, monkeypatch):
    asked, lines, tasks = [], [], []

    class Seen(Callback):
        def on_start(self, trainer):
            tasks.append(trainer.task)

    def frozen(*words):
        asked.append(words)
        return frozen_model(*words)

    monkeypatch.setattr(reference, "LINE_SECONDS", -1.0)
    monkeypatch.setattr(reference, "frozen_model", frozen)
    words = [*COMMON, "task.kind=dpo", f"training.start_from={start}", "training.steps=1"]
    recipes.train(None, words, data=preferences, out=tmp_path / "run", log=lines.append, callbacks=[Seen()])
    found = [line for line in lines if "the reference has read" in line]
    assert found[:2] == [f"the reference has read {n} of 16 answers (validation)" for n in (8, 16)]
    (task,) = tasks
    known = sum(row.reference is not None for row in task.encoded("train", task.run.sequence_length))
    of_a_step_and_of_evaluations = {*task.batches("train").read_within(1), *task.train_eval_examples(range(30), 48)}
    assert known == len(of_a_step_and_of_evaluations) < 30
    assert found[-1] == f"the reference has read {2 * known} of {2 * known} answers (train)"
    ((key, name, _, device),) = asked  # loaded once
    assert (key, name, device) == ("training.start_from", str(start), "cpu") and task.reference is None
    there = task.with_run(task.run.model_copy(update={"device": "cuda:7"}))
    monkeypatch.setattr(reference, "frozen_model", lambda *words: pytest.fail(words[-1]))
    with pytest.raises(pytest.fail.Exception, match="cuda:7"):
        there.reference_log_probs([], "train")


def test_dpo_with_a_reference_of_its_own_and_lora(start, preferences, tokenizer, tmp_path):
    save(tmp_path / "reference", random_model(tokenizer, 4), tokenizer)
    words = [*COMMON, "task.kind=dpo", f"training.start_from={start}", "training.steps=2", "training.lora_rank=2"]
    logs = []
    run = recipes.train(
        None,
        [*words, f"task.reference={tmp_path / 'reference'}"],
        data=preferences,
        out=tmp_path / "run",
        log=logs.append,
    )
    line = RunFolder(run.path).read_metrics()[0]
    assert line["loss"] != pytest.approx(math.log(2), abs=1e-3)  # another reference than the start
    assert (run.path / "adapter" / "adapter_model.safetensors").is_file()
    assert any("log-probabilities of" in text and " s, once" in text for text in logs)
    sequence = ["training.sequence_length=7"]
    with pytest.raises(DataError, match=r"larger training\.sequence_length"):
        recipes.train(None, [*words, *sequence], data=preferences, out=tmp_path / "short")


def test_methods_that_must_stay_near_their_start_say_so_and_get_a_smaller_rate():
    assert {kind for kind, task in TASKS.items() if task.stays_near_start} == {"dpo", "kto", "ppo", "grpo"}
