"""The task transcribe: what a batch holds, a run from nothing and from a Whisper, its folder, scores and mistakes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from toy_whisper import END, NO_TIMES, START, folder_of

import glassformer as gf
from glassformer import recipes
from glassformer.errors import DataError, UsageError
from glassformer.generation import TranscriptionSettings, transcribe
from glassformer.recipes.opening import open_run, open_task
from glassformer.recipes.schema import Recipe
from glassformer.tasks.losses import IGNORED
from glassformer.tasks.transcribe import hide_parts

soundfile = pytest.importorskip("soundfile", reason="needs the package soundfile")
pytest.importorskip("jiwer", reason="needs the package jiwer")

WORDS = {"lo": 300.0, "hi": 1200.0}
TINY = ["model.kind=encoder_decoder", "model.n_layer=1", "model.n_embd=24", "model.n_head=2", "model.block_size=20",
        "task.kind=transcribe", "task.n_mels=10", "training.steps=4", "training.batch_size=4",
        "training.eval_every=2", "training.checkpoint_every=2"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Words of two tones: a sound of 0.3 s for each word."""
    folder, random = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    lines = []
    for n in range(40):
        words = [list(WORDS)[i] for i in random.integers(0, 2, size=2)]
        time = np.arange(4800) / 16_000
        sound = np.concatenate([np.sin(2 * np.pi * WORDS[word] * time) for word in words])
        soundfile.write(folder / f"{n}.wav", 0.3 * sound + 0.01 * random.normal(size=len(sound)), 16_000)
        split = "train" if n < 32 else "validation" if n < 36 else "test"
        lines.append({"file": f"{n}.wav", "text": " ".join(words).capitalize() + ".", "split": split})
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def opened(data: str, **settings):
    task, choices = open_task(Recipe().with_values({"data.source": data, "task.kind": "transcribe", **settings}))
    return task, {choice.key: choice.value for choice in choices}


def test_a_batch_from_nothing(data):
    """Frames as the processor makes them, the start token, the text and its end."""
    task, choices = opened(data, **{"task.plain": True})
    assert choices["task.seconds"] == 1 and choices["tokenizer.kind"] == "characters"
    assert task.model_fields()["source_block_size"] == 50 and task.model_fields()["n_mels"] == 80
    rows = task.encoded("train", 20)
    frames_BMF, target_in_BT, target_out_BT = task.collate(rows[:3])
    assert frames_BMF.shape == (3, 80, 100) and frames_BMF.dtype == torch.float32
    text = task.source.examples["train"][0].text
    assert text == text.lower() and "." not in text
    n = len(text)
    assert task.tokenizer.decode(target_out_BT[0, :n].tolist()) == text
    assert target_in_BT[0, 0] == task.start_token and target_out_BT[0, n] == task.end_token
    assert target_in_BT[0, 1 : n + 1].tolist() == target_out_BT[0, :n].tolist()


def test_a_batch_for_a_whisper_begins_with_its_prompt(data, tmp_path):
    folder_of(tmp_path)
    task, _ = opened(data, **{"training.start_from": str(tmp_path)})
    frames, target_in_BT, target_out_BT = task.collate(task.encoded("train", 42)[:2])
    assert frames.shape == (2, 7, 100)
    assert target_in_BT[0, :2].tolist() == [START, NO_TIMES] and target_out_BT[0, 0] == IGNORED
    text = " " + task.source.examples["train"][0].text  # a Whisper's texts begin with a space
    assert target_out_BT[0, 1 : 2 + len(text)].tolist() == [*task.tokenizer.encode(text), END]


def test_long_sounds_and_texts_are_left_out(data):
    task, _ = opened(data, **{"task.seconds": 1})
    assert len(task.encoded("train", 20)) == 32 and not task.warnings()
    with pytest.raises(DataError, match=r"longer than 2 tokens or 1 seconds"):
        task.encoded("train", 3)


def test_parts_of_a_training_sound_are_hidden(data):
    task, _ = opened(data, **{"task.spec_augment": True})
    rows = task.encoded("train", 20)[:1]
    plain, _, target = task.collate(rows)
    hidden, _, again = task.collate_augmented(rows, np.random.default_rng(3))
    assert torch.equal(target, again) and 0 < (plain != hidden).float().mean() < 0.7
    same = task.collate_augmented(rows, np.random.default_rng(3))[0]
    assert torch.equal(hidden, same)
    frames = torch.zeros(9, 40)
    hide_parts(frames, 0, np.random.default_rng(0))  # a sound of no frames
    batches = task.batches("validation")
    assert not batches.by_chance


def test_a_run_from_nothing_learns_and_comes_back(data, tmp_path):
    """A pair of tones is written down after 60 steps; the folder transcribes, and a resumed run is the same run."""
    run = tmp_path / "run"
    recipes.train(None, [*TINY, "training.steps=60", "training.eval_every=30", "task.plain=true",
                         "training.checkpoint_every=30", "training.learning_rate=5e-3",
                         "training.optimizer=adamw"], data=data, out=str(run))  # fmt: skip
    model, task = open_run(str(run))
    assert task.evaluate(model, "test")["loss"].value < 0.6  # log 12 = 2.5 at first
    scored = task.score_answers(model, split="test", beam=1)
    assert scored.scores.n == 4 and scored.scores.n_words == 8 and "wrong words" in scored.lines()[0]
    assert scored.scores.words.rate <= 0.5
    assert {row["answer"] for row in scored.rows()} <= {f"{a} {b}" for a in WORDS for b in WORDS}
    bundle = gf.load(run)
    sound = task.source.examples["test"][0].sound
    (found,) = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [sound])
    assert found.text == scored.answers[0].text
    note = task.sample(model, 1)[0].text
    assert note.count("model:") == 3 and note.count("target:") == 3


def test_a_whisper_is_tuned_and_its_encoder_may_stay(data, tmp_path):
    folder_of(tmp_path / "whisper")
    out = tmp_path / "run"
    overrides = ["task.kind=transcribe", f"training.start_from={tmp_path / 'whisper'}", "task.freeze_encoder=true",
                 "training.steps=2", "training.batch_size=4", "training.eval_every=1",
                 "training.learning_rate=1e-2"]  # fmt: skip
    recipes.train(None, overrides, data=data, out=str(out))
    before, after = gf.load(tmp_path / "whisper"), gf.load(out)
    ours, theirs = after.model.state_dict(), before.model.state_dict()
    same = {name.partition(".")[0] for name in ours if torch.equal(ours[name], theirs[name])}
    changed = {name.partition(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"decoder"} and "encoder" in same
    assert after.source_processor == before.source_processor
    parts = after.model, after.tokenizer, after.source_processor
    assert transcribe(*parts, [np.zeros(8000, np.float32)], TranscriptionSettings(temperatures=(0.0,)))


def test_resuming_is_never_having_stopped(data, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    overrides = [*TINY, "task.spec_augment=true"]
    recipes.train(None, overrides, data=data, out=str(whole))
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step-000004")
    recipes.resume(str(half))
    a, b = (gf.load(run / "checkpoints" / "step-000004").model.state_dict() for run in (whole, half))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("overrides", "reason"), [
    (["tokenizer.source_kind=characters"], "source_kind"), (["task.seconds=0"], "seconds"),
    (["task.mels=3"], "n_mels"), (["model.source_block_size=3"], "source_block_size"),
    (["model.kind=decoder"], "cannot do task.kind=transcribe"),
])  # fmt: skip
def test_mistakes_are_one_line(data, tmp_path, overrides, reason):
    tiny = [line for line in TINY if line.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    with pytest.raises(UsageError, match=reason):
        recipes.train(None, [*tiny, *overrides], data=data, out=str(tmp_path / "no"))
