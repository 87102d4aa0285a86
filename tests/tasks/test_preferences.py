"""Reward models of chats: they prefer, transformers and peft read them, and they are reward functions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from preference_sets import (
    COMMON,
    WORDS,
    answer,
    split,
    user,
    written,
)

import glassformer as gf
from glassformer import recipes
from glassformer.data.examples import load_examples
from glassformer.errors import DataError, UsageError
from glassformer.hub import load_model
from glassformer.models import DecoderClassifier
from glassformer.tasks import rewards
from glassformer.tasks.calibration import Calibration
from glassformer.tasks.reward import holds_chats, margins_from
from glassformer.tasks.reward_functions import reward_function
from glassformer.training import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, start, preferences):
    """A reward model, and the same run cut after half of its steps and resumed."""
    words = [*COMMON, "task.kind=reward", f"training.start_from={start}", "training.learning_rate=0.01"]
    words += ["training.steps=20", "training.checkpoint_every=10", "training.eval_every=10", "training.sample_every=10"]
    out = tmp_path_factory.mktemp("runs")
    whole, cut = (recipes.train(None, words, data=preferences, out=out / name) for name in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000020").rename(out / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    return whole, cut


def test_a_chat_model_becomes_a_reward_model_that_prefers(trained):
    run, _ = trained
    assert run.loss.accuracy == 1.0 and run.loss.loss < math.log(2) / 2
    line = RunFolder(run.path).read_metrics()[-1]
    assert {"margin", "accuracy", "val_margin", "val_calibration_error"} <= line.keys() and line["val_margin"] > 0.5
    sample = json.loads((run.path / "samples.jsonl").read_text().splitlines()[-1])
    assert "Stated and true share" in sample["text"] and len(sample["figures"]) == 3
    model, tokenizer = gf.load(run.path)
    chats = [user("one") + answer("good two"), user("one") + answer("bad two")]
    good, bad = rewards(model, tokenizer, chats)
    assert isinstance(model, DecoderClassifier) and good > bad + 0.5
    with pytest.raises(UsageError, match="chat 2 ends with a turn of user"):
        rewards(model, tokenizer, [chats[0], user("one")])


def test_a_resumed_reward_model_is_the_same_to_the_bit(trained):
    whole, cut = trained
    for file in ("model/model.safetensors", "model/config.json", "checkpoints/step-000020/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes(), file


def test_transformers_gives_the_same_scores_to_a_padded_batch(trained):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = trained[0].path / "model"
    theirs, their_tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    assert type(theirs).__name__ == "Qwen3ForSequenceClassification" and theirs.config.num_labels == 1
    chats = [user("one two three four") + answer("good five"), user("one") + answer("bad two")]
    texts = [their_tokenizer.apply_chat_template(chat, tokenize=False).removesuffix("\n") for chat in chats]
    batch = their_tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        expected = theirs.eval()(**batch).logits[:, 0].tolist()
    model, tokenizer = gf.load(folder)
    assert rewards(model, tokenizer, chats) == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 0.1


def test_a_reward_model_is_a_reward_function(trained, start, tmp_path, monkeypatch):
    folder = trained[0].path
    reward = reward_function(str(folder))
    prompts, completions = [user("one"), user("one")], [answer("good two"), answer("bad two")]
    model, tokenizer = gf.load(folder)
    expected = rewards(model, tokenizer, [p + c for p, c in zip(prompts, completions, strict=True)])
    assert reward(prompts, completions, other=[1, 2]) == pytest.approx(expected)
    rows = [{"prompt": user(f"{WORDS[i % 5]} {i}"), "split": split(i)} for i in range(10)]
    words = [*COMMON, "task.kind=grpo", f"task.reward={folder.name}", "task.samples=4", "task.max_new_tokens=4"]
    words += [f"training.start_from={start}", "training.steps=1"]
    monkeypatch.chdir(folder.parent)
    run = recipes.train(None, words, data=written(tmp_path / "p.jsonl", rows), out=tmp_path / "grpo")
    assert str(folder) in (run.path / "recipe.toml").read_text()  # `resume` may be typed in another folder
    assert math.isfinite(RunFolder(run.path).read_metrics()[-1]["val_reward"])
    with pytest.raises(UsageError, match="gives no reward; train one"):
        reward_function(str(start))
    with pytest.raises(UsageError, match="nowhere"):
        reward_function("nowhere")


def test_lora_trains_the_head_too_and_peft_reads_it(start, preferences, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    words = [*COMMON, "task.kind=reward", f"training.start_from={start}", "training.learning_rate=0.02"]
    words += ["training.steps=12", "training.checkpoint_every=6", "training.lora_rank=2"]
    whole, cut = (recipes.train(None, words, data=preferences, out=tmp_path / name) for name in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000012").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes(), file
    model, tokenizer = gf.load(whole.path)
    base = load_model(start)
    assert torch.equal(base.embedding.token.weight, model.embedding.token.weight)
    theirs = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    torch.nn.init.zeros_(theirs.score.weight)  # so that the adapter's own counts
    adapted = PeftModel.from_pretrained(theirs, whole.path / "adapter").eval()
    ids = torch.tensor([tokenizer.chat.encode(user("one") + answer("good"), add_generation_prompt=False)])
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, model.sequence_logits(model(ids)), atol=1e-5, rtol=1e-4)


def test_one_sided_pairs_and_long_ones_are_refused(start, preferences, tmp_path):
    half = written(tmp_path / "half.jsonl", [{"prompt": user(str(i)), "chosen": answer("a")} for i in range(9)])
    words = [*COMMON, f"training.start_from={start}", "training.steps=1"]
    for kind in ("reward", "dpo"):
        with pytest.raises(DataError, match=r"half\.jsonl:\d+.*chosen.*rejected"):
            recipes.train(None, [*words, f"task.kind={kind}"], data=half, out=tmp_path / kind)
    with pytest.raises(DataError, match=r"every pair.*larger training\.sequence_length"):
        recipes.train(
            None, [*words, "task.kind=reward", "training.sequence_length=4"], data=preferences, out=tmp_path / "long"
        )


def test_a_decoder_learns_classes_too(start, tmp_path):
    rows = [{"text": f"{('good', 'bad')[i % 2]} {WORDS[i % 5]} {i}", "label": "+-"[i % 2]} for i in range(60)]
    words = [*COMMON, "task.kind=classify", f"training.start_from={start}", "training.learning_rate=0.01"]
    run = recipes.train(
        None, [*words, "training.steps=15"], data=written(tmp_path / "c.jsonl", rows), out=tmp_path / "run"
    )
    model, tokenizer = gf.load(run.path)
    shares = gf.generation.classify(model, tokenizer, ["good one", "bad one"])
    assert shares[0, 0] > shares[0, 1] and shares[1, 1] > shares[1, 0]


def test_calibration_by_hand():
    margins = np.array([0.1, -0.2, 3.0, 4.0, -5.0, 2.0])
    found = Calibration.of(margins)
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    expected = 0.0
    for low in np.arange(0.5, 1.0, 0.1):
        inside = (confidence >= low) & (confidence < low + 0.1 + 1e-12)
        if inside.any():
            expected += inside.sum() / 6 * abs((margins[inside] > 0).mean() - confidence[inside].mean())
    assert found.error == pytest.approx(expected) and sum(b.n for b in found.bins) == 6
    losses = torch.nn.functional.softplus(-torch.tensor(margins))
    torch.testing.assert_close(margins_from(losses), torch.tensor(margins))
    assert margins_from(torch.zeros(1).double()).item() == pytest.approx(87, abs=1)


def test_pairs_of_several_files_are_read_together_and_files_of_texts_are_not(preferences, tmp_path):
    assert holds_chats(f"{preferences},{preferences}")
    texts = written(tmp_path / "texts.jsonl", [{"chosen": "good", "rejected": "bad"}] * 9)
    assert not holds_chats(f"{texts},{texts}")
    with pytest.raises(DataError, match="holds JSON; put all rows into one file"):
        load_examples(f"{texts},{texts}")
