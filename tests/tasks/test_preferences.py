"""Preferences: reward models of chats, and the losses of DPO, KTO and distillation beside their formulas."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import glassformer as gf
from glassformer import recipes
from glassformer.errors import DataError, UsageError
from glassformer.hub import load_model, save
from glassformer.models import Decoder, DecoderClassifier, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import DPO, KTO, Distill, rewards
from glassformer.tasks.calibration import Calibration
from glassformer.tasks.chats import CHAT_TOKENS, use_template
from glassformer.tasks.distill import kl_divergences
from glassformer.tasks.losses import IGNORED
from glassformer.tasks.reward import margins_from
from glassformer.tasks.reward_functions import reward_function
from glassformer.training import RunFolder

COMMON = ["training.batch_size=8", "training.precision=fp32", "training.optimizer=adamw"]
WORDS = ["one", "two", "three", "four", "five"]


def user(text):
    return [{"role": "user", "content": text}]


def answer(text):
    return [{"role": "assistant", "content": text}]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def split(i):
    return "validation" if i % 5 == 0 else "train"


@pytest.fixture(scope="module")
def tokenizer():
    made = build_tokenizer("bpe", ["good day bad night " + " ".join(WORDS)] * 9, vocab_size=290, specials=CHAT_TOKENS)
    use_template(made, None, [])
    return made


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer):
    """A chat model that knows nothing yet, as a folder."""
    torch.manual_seed(3)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": 48, "n_layer": 2, "n_head": 2, "n_embd": 16}
    folder = tmp_path_factory.mktemp("start") / "model"
    save(folder, Decoder(ModelConfig.make(family="modern", **fields)), tokenizer)
    return folder


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    rows = [
        {
            "prompt": user(f"{WORDS[i % 5]} {WORDS[i // 5 % 5]}"),
            "chosen": answer(f"good {WORDS[i % 3]}"),
            "rejected": answer(f"bad {WORDS[i % 4]}"),
            "split": split(i),
        }
        for i in range(40)
    ]
    return written(tmp_path_factory.mktemp("data") / "preferences.jsonl", rows)


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
    theirs = AutoModelForSequenceClassification.from_pretrained(
        whole.path / "checkpoints" / "step-000012" / "model", num_labels=1
    )
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


# ---- losses beside formulas that are written out in NumPy ----


def random_model(tokenizer, seed):
    torch.manual_seed(seed)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = Decoder(ModelConfig.make(family="modern", **fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def log_prob(model, ids, n):
    """Of the last n tokens, in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0].double().numpy()
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return sum(logits[t - 1, ids[t]] for t in range(len(ids) - n, len(ids)))


def side(ids, n):
    targets = np.array(ids[1:])
    targets[: len(ids) - 1 - n] = IGNORED
    return np.array(ids[:-1]), targets


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


SIDES = [([5, 9, 70, 81, 12], 3), ([5, 9, 33], 1), ([40, 3, 8, 8], 2), ([40, 3, 77, 21, 6, 90], 4)]


def dpo_expected(loss, margin, *, beta, smoothing=0.0, gamma=None):
    if loss == "ipo":
        return (margin - 1 / (2 * beta)) ** 2
    m = beta * margin - (0 if loss == "sigmoid" else gamma)
    return -(1 - smoothing) * log_sigmoid(m) - smoothing * log_sigmoid(-m)


@pytest.mark.parametrize(
    ("loss", "more"),
    [("sigmoid", {}), ("sigmoid", {"label_smoothing": 0.2}), ("ipo", {}),
     ("simpo", {}), ("simpo", {"gamma": 1.5, "label_smoothing": 0.1})],
)  # fmt: skip
def test_losses_of_pairs_equal_numpy(tokenizer, loss, more):
    model, reference, beta = random_model(tokenizer, 1), random_model(tokenizer, 2), 0.7
    task = DPO(loss=loss, beta=beta, **more)
    known = [0.0 if loss == "simpo" else log_prob(reference, *s) for s in SIDES]
    pairs = [(side(*SIDES[i]), side(*SIDES[i + 1]), (known[i], known[i + 1])) for i in (0, 2)]
    from glassformer.tasks.dpo import Pair

    batch = task.collate([Pair(*pair) for pair in pairs])
    found, count, metrics = task.loss(model, batch)
    ratios = [log_prob(model, *s) - k for s, k in zip(SIDES, known, strict=True)]
    if loss == "simpo":
        ratios = [r / n for r, (_, n) in zip(ratios, SIDES, strict=True)]
    margins = [ratios[0] - ratios[1], ratios[2] - ratios[3]]
    smoothing, gamma = more.get("label_smoothing", 0.0), more.get("gamma", 0.5 * beta)
    expected = [dpo_expected(loss, m, beta=beta, smoothing=smoothing, gamma=gamma) for m in margins]
    assert count == 2 and found.item() == pytest.approx(sum(expected), abs=1e-5)
    assert task.rows(model, batch).sums_B.tolist() == pytest.approx(expected, abs=1e-5)
    assert metrics["margin"][0].item() == pytest.approx(beta * sum(margins), abs=1e-5)
    if loss != "simpo":
        ratio, n = metrics["log_ratio_chosen"]
        assert (ratio.item(), int(n)) == (pytest.approx(ratios[0] + ratios[2], abs=1e-5), 5)


def test_the_loss_of_thumbs_equals_numpy(tokenizer):
    from glassformer.tasks.kto import Thumb

    model, reference = random_model(tokenizer, 1), random_model(tokenizer, 2)
    beta, weights = 0.4, {True: 1.5, False: 0.75}
    for answers, others in (((0, 1, 2), (3, 2, 0)), ((3, 2, 0), (0, 1, 2))):
        ratio = {i: log_prob(model, *SIDES[i]) - log_prob(reference, *SIDES[i]) for i in range(4)}
        z, liked = max(0.0, float(np.mean([ratio[i] for i in others]))), (True, False, True)
        known = [log_prob(reference, *s) for s in SIDES]
        thumbs = [
            Thumb(side(*SIDES[a]), side(*SIDES[o]), good, (known[a], known[o]))
            for a, o, good in zip(answers, others, liked, strict=True)
        ]
        task = KTO(beta=beta, desirable_weight=1.5, undesirable_weight=0.75)
        batch = task.collate(thumbs)
        found = task.loss(model, batch)
        signs = [beta * (ratio[a] - z) * (1 if good else -1) for a, good in zip(answers, liked, strict=True)]
        expected = [weights[g] * (1 - 1 / (1 + np.exp(-x))) for x, g in zip(signs, liked, strict=True)]
        assert found.sum.item() == pytest.approx(sum(expected), abs=1e-5)
        assert task.rows(model, batch).sums_B.tolist() == pytest.approx(expected, abs=1e-5)
        assert found.metrics["kl"][0].item() / 3 == pytest.approx(z, abs=1e-5)
        z_only = torch.autograd.grad(task.loss(model, batch).sum, model.head.weight)[0]
        ratios_B, _ = task.log_ratios(model, batch)  # z is a number to the gradient
        fixed = task.losses(ratios_B, torch.tensor(z), batch[-1]).sum()
        torch.testing.assert_close(torch.autograd.grad(fixed, model.head.weight)[0], z_only, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_the_loss_of_distillation_equals_numpy(tokenizer, kl):
    model, teacher = random_model(tokenizer, 1), random_model(tokenizer, 2)
    task = Distill(teacher="set below", kl=kl, temperature=2.0)
    task.teacher = teacher
    batch = task.collate([side(*s) for s in SIDES])
    expected, agree, n = 0.0, 0, 0
    for ids, length in SIDES:
        with torch.no_grad():
            p, q = ((m(torch.tensor([ids]))[0].double() / 2.0).softmax(1).numpy() for m in (teacher, model))
        first, second = (p, q) if kl == "forward" else (q, p)
        for t in range(len(ids) - 1 - length, len(ids) - 1):
            expected += 4.0 * float((first[t] * np.log(first[t] / second[t])).sum())
            agree, n = agree + (p[t].argmax() == q[t].argmax()), n + 1
    found = task.loss(model, batch)
    assert found.count == n and found.sum.item() == pytest.approx(expected, abs=1e-4, rel=1e-5)
    assert int(found.metrics["agreement"][0]) == agree
    rows = task.rows(model, batch)
    assert rows.sums_B.sum().item() == pytest.approx(expected, rel=1e-5) and rows.counts_B.sum() == n
    found.sum.backward()
    assert model.head.weight.grad.abs().sum() > 0 and all(p.grad is None for p in teacher.parameters())
    assert not kl_divergences(torch.randn(2, 5), torch.zeros(2, 5), kl).lt(0).any()


# ---- runs ----


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


def test_distillation_brings_a_model_to_its_teacher(trained, start, tokenizer, tmp_path):
    save(tmp_path / "teacher", random_model(tokenizer, 5), tokenizer)
    rows = [{"messages": user(WORDS[i % 5]) + answer(f"good {i}"), "split": split(i)} for i in range(30)]
    data = written(tmp_path / "d.jsonl", rows)
    words = [*COMMON, "task.kind=distill", f"training.start_from={start}", "training.steps=10"]
    words += ["training.learning_rate=0.01", "training.eval_every=5"]
    run = recipes.train(None, [*words, f"task.teacher={tmp_path / 'teacher'}"], data=data, out=tmp_path / "run")
    first, *_, last = RunFolder(run.path).read_metrics()
    assert last["loss"] < first["loss"] and {"cross_entropy", "agreement"} <= last.keys()
    with pytest.raises(UsageError, match="DecoderClassifier"):
        recipes.train(None, [*words, f"task.teacher={trained[0].path}"], data=data, out=tmp_path / "no")


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


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"gamma": 1.0}, "task.gamma is of task.loss=simpo"), ({"loss": "ipo", "label_smoothing": 0.1}, "not of ipo"),
     ({"loss": "simpo", "reference": "x"}, "leave out task.reference"), ({"loss": "hinge"}, "sigmoid")],
)  # fmt: skip
def test_settings_that_would_do_nothing_are_refused(settings, match):
    with pytest.raises(UsageError, match=match):
        DPO(**settings)


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
