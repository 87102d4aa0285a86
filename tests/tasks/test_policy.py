"""GRPO and PPO: losses against NumPy, written out; the first update; accumulation; ranks; rewards; causes in words."""

import inspect
import json
import math
import multiprocessing
import re
import sys

import numpy as np
import ppo_ranks
import pytest
import torch
from patience import PATIENCE

from glassformer import plugins, recipes
from glassformer.data.batches import IGNORED
from glassformer.data.chat_sets import load_chats
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, UsageError
from glassformer.models import Decoder, ModelConfig
from glassformer.models.generation_settings import GenerationSettings
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import GRPO, PPO
from glassformer.tasks.chats import ChatSource
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.reward_functions import REWARDS, reward_function, rewards_of_rollouts
from glassformer.tasks.rollout_task import _prompt_row
from glassformer.tasks.rollouts import RollOut, roll_out
from glassformer.tasks.settings import RunSettings
from glassformer.training import RunFolder

REWARDS_B = torch.tensor([1.0, 0.0, 3.0, 1.0, 1.0, 1.0, -2.0, 0.5])
LENGTH = 7


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("bpe", ["one two three four"] * 9, vocab_size=280)


def decoder(tokenizer, seed=3):
    torch.manual_seed(seed)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=2, n_head=3, n_embd=15)
    return Decoder(config).eval()


def prompts(tokenizer, n):
    rows = [chat_row({"prompt": "one two three"[: 3 + i]}, f"toy:{i}") for i in range(n)]
    return [(row, tokenizer.encode(row.prompt)) for row in rows]


def opened(kind, tokenizer, **settings):
    """A task with a model, a reference that differs from it, and answers of unequal length."""
    task = kind(reward="exact", max_new_tokens=LENGTH, **settings)
    rows = [row for row, _ in prompts(tokenizer, 8)]
    task.source = ChatSource("toy", {"train": rows, "validation": rows, "test": []}, tokenizer)
    task.run = RunSettings(batch_size=8, seed=5)
    task.begin(decoder(tokenizer))
    task.reference = moved(decoder(tokenizer), 0.02, seed=9)
    return task


def answers(task, tokenizer, samples):
    found = roll_out(task.model, tokenizer, prompts(tokenizer, 8 // samples), samples=samples, max_new_tokens=LENGTH)
    cut = [RollOut(r.row, r.prompt, r.ids[: 2 + i % 6], r.text, i % 3 == 0, r.log_probs[: 2 + i % 6])
           for i, r in enumerate(found)]  # fmt: skip
    assert len({len(r.ids) for r in cut}) > 3
    return cut


@torch.no_grad()
def moved(model, size, seed=1):
    """The same model after an update of some size."""
    torch.manual_seed(seed)
    for p in model.parameters():
        p += size * torch.randn_like(p)
    return model


def log_probs(model, rollouts, temperature=1.0):
    """By all logits, in fp64: one array an answer."""
    found = []
    for r in rollouts:
        ids = torch.tensor([[*r.prompt, *r.ids]])
        with torch.no_grad():
            logits_TV = (model(ids[:, :-1])[0].double() / temperature).numpy()
        p_TV = np.exp(logits_TV - logits_TV.max(1, keepdims=True))
        p_TV /= p_TV.sum(1, keepdims=True)
        places = range(len(r.prompt) - 1, len(r.prompt) + len(r.ids) - 1)
        found.append(np.log([p_TV[t, ids[0, t + 1]] for t in places]))
    return found


def clipped(ratio, advantage, low, high):
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


GRPO_VARIANTS = {
    "paper": {"mean": "answers", "beta": 0.04},
    "dr": {"scale": "none", "mean": "constant"},
    "dapo": {"clip_high": 0.28},
    "tight": {"clip_low": 0.01, "clip_high": 0.02, "beta": 0.5},
    "rloo": {"scale": "rloo", "mean": "answers"},
    "warm": {"temperature": 0.7, "beta": 0.1, "missing_end": 0.8},
}


@pytest.mark.parametrize("settings", GRPO_VARIANTS.values(), ids=GRPO_VARIANTS)
def test_the_loss_of_grpo_equals_numpy(tokenizer, settings):
    task = opened(GRPO, tokenizer, samples=4, **settings)
    s, rollouts = task.settings, answers(task, tokenizer, 4)
    batch = task.batch_of(rollouts, REWARDS_B)
    old, reference = (log_probs(m, rollouts, s.temperature) for m in (task.model, task.reference))
    new = log_probs(moved(task.model, 0.02), rollouts, s.temperature)
    rewards = REWARDS_B.double().numpy() - [s.missing_end * (not r.ended) for r in rollouts]
    total, n, cut = 0.0, sum(map(len, new)), 0
    for i, (p, o, f) in enumerate(zip(new, old, reference, strict=True)):
        group = rewards[i // 4 * 4 : i // 4 * 4 + 4]
        advantage = rewards[i] - group.mean()
        if s.scale == "group":
            advantage /= group.std(ddof=1) + 1e-4
        elif s.scale == "rloo":
            advantage = rewards[i] - (group.sum() - rewards[i]) / 3
        tokens = []
        for a, b, c in zip(p, o, f, strict=True):
            kl = math.exp(c - a) - (c - a) - 1
            ratio = math.exp(a - b)
            tokens.append(clipped(ratio, advantage, s.clip_low, s.clip_high) + s.beta * kl)
            cut += (advantage > 0 and ratio > 1 + s.clip_high) or (advantage < 0 and ratio < 1 - s.clip_low)
        total += sum(tokens) / {"tokens": n, "answers": 8 * len(tokens), "constant": 8 * LENGTH}[s.mean]
    loss = task.loss(task.model, batch)
    assert loss.sum.item() / loss.count == pytest.approx(total, abs=1e-5)
    assert float(loss.metrics["clip_fraction"][0]) == cut
    if s.beta:
        kl = np.mean([(o - f).sum() for o, f in zip(old, reference, strict=True)])
        assert loss.metrics["kl"][0] / 8 == pytest.approx(kl, abs=1e-4)


PPO_VARIANTS = {
    "defaults": {},
    "no value clip": {"value_clip": None, "value_weight": 0.7},
    "tight": {"clip": 0.01, "value_clip": 0.01},
    "discounted": {"gamma": 0.9, "gae_lambda": 0.6, "whiten_advantages": False},
    "missing end": {"missing_end": 1.5, "whiten_rewards": True},
    "adaptive": {"kl_target": 0.5, "kl_horizon": 50, "beta": 0.3},
}


@pytest.mark.parametrize("settings", PPO_VARIANTS.values(), ids=PPO_VARIANTS)
def test_the_loss_of_ppo_equals_numpy(tokenizer, settings):
    task = opened(PPO, tokenizer, **settings)
    s, rollouts, beta = task.settings, answers(task, tokenizer, 1), task.state["beta"]
    torch.manual_seed(2)
    torch.nn.init.normal_(task.companion.head.weight)
    values = [task.companion(torch.tensor([[*r.prompt, *r.ids[:-1]]]))[0, len(r.prompt) - 1 :] for r in rollouts]
    values = [v.detach().double().numpy() for v in values]
    batch = task.batch_of(rollouts, REWARDS_B)
    old, reference = (log_probs(m, rollouts) for m in (task.model, task.reference))
    scores = REWARDS_B.double().numpy() - [s.missing_end * (not r.ended) for r in rollouts]
    if s.whiten_rewards:
        scores = scores / scores.std(ddof=1)
    advantages, returns = [], []
    for score, o, f, v in zip(scores, old, reference, values, strict=True):
        reward = -beta * (o - f)
        reward[-1] += score
        error = reward + s.gamma * np.append(v[1:], 0) - v
        weights = s.gamma * s.gae_lambda
        advantages.append([sum(weights**k * e for k, e in enumerate(error[t:])) for t in range(len(v))])
        returns.append(advantages[-1] + v)
    every = np.concatenate(advantages)
    if s.whiten_advantages:
        advantages = [(np.array(a) - every.mean()) / every.std(ddof=1) for a in advantages]
    moved(task.model, 0.02)
    moved(task.companion, 0.02)
    new = log_probs(task.model, rollouts)
    fresh = [task.companion(torch.tensor([[*r.prompt, *r.ids[:-1]]]))[0, len(r.prompt) - 1 :] for r in rollouts]
    policy = value = 0.0
    for i, v_new in enumerate(fresh):
        for t, v in enumerate(v_new.detach().double().tolist()):
            policy += clipped(math.exp(new[i][t] - old[i][t]), advantages[i][t], s.clip, s.clip)
            squares = [(v - returns[i][t]) ** 2]
            if s.value_clip:
                near = values[i][t] + min(max(v - values[i][t], -s.value_clip), s.value_clip)
                squares.append((near - returns[i][t]) ** 2)
            value += max(squares) / 2
    loss = task.loss(task.model, batch)
    n = len(every)
    assert loss.count == n
    assert loss.sum.item() / n == pytest.approx((policy + s.value_weight * value) / n, abs=1e-5)
    left, taken = np.var(every, ddof=1), np.var(np.concatenate(returns), ddof=1)
    assert loss.metrics["explained_variance"][0] / 8 == pytest.approx(1 - left / taken, abs=1e-4)
    if s.kl_target:  # Ziegler et al. 2019, section 2.2
        kl = np.mean([(o - f).sum() for o, f in zip(old, reference, strict=True)])
        assert task.state["beta"] == pytest.approx(beta * (1 + np.clip(kl / 0.5 - 1, -0.2, 0.2) * 8 / 50))


@pytest.mark.parametrize("kind", [GRPO, PPO])
def test_the_first_ratio_is_one_and_micro_batches_add_up(tokenizer, kind):
    samples = 4 if kind is GRPO else 1
    task = opened(kind, tokenizer, beta=0.1, **({"samples": 4} if kind is GRPO else {}))
    batch = task.batch_of(answers(task, tokenizer, samples), REWARDS_B)
    whole = task.loss(task.model, batch)
    assert whole.metrics["clip_fraction"][0] == 0
    with torch.no_grad():
        now_BT = token_log_probs(task.model, *batch[:2])
    torch.testing.assert_close((now_BT - batch[2]).exp(), torch.ones_like(now_BT), atol=1e-6, rtol=0)
    gradients = [p for p in task.model.parameters() if p.requires_grad]
    pieces = [task.loss(task.model, part) for part in zip(*(x.split(3) for x in batch), strict=True)]
    assert sum(int(piece.count) for piece in pieces) == whole.count
    torch.testing.assert_close(sum(piece.sum for piece in pieces), whole.sum, atol=1e-5, rtol=0)
    for name, (total, count) in whole.metrics.items():
        assert sum(float(piece.metrics[name][0]) for piece in pieces) == pytest.approx(float(total), abs=1e-4)
        assert sum(int(piece.metrics[name][1]) for piece in pieces) == count
    for a, b in zip(
        torch.autograd.grad(whole.sum, gradients),
        torch.autograd.grad(sum(piece.sum for piece in pieces), gradients),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_two_processes_give_the_answers_and_the_loss_of_one(tokenizer, monkeypatch):
    monkeypatch.setitem(REWARDS, "exact", lambda completion_ids: [float(sum(ids) % 7) for ids in completion_ids])
    found = {}
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        task = opened(GRPO, tokenizer, samples=2, beta=0.1)
        task.run = RunSettings(batch_size=8, sequence_length=32)
        (batch,) = task.batches("train", rank, size).task.iteration(3)
        found[rank, size] = task.loss(task.model, batch), sorted(map(tuple, batch[0][:, :9].tolist()))
    (one, ids), *halves = found.values()
    assert sorted(halves[0][1] + halves[1][1]) == ids
    assert sum(loss.count for loss, _ in halves) == one.count
    torch.testing.assert_close(sum(loss.sum for loss, _ in halves), one.sum, atol=1e-5, rtol=0)


def test_ppo_in_two_processes_whitens_and_follows_the_kl_of_both(tmp_path):
    processes = multiprocessing.get_context("spawn")
    running = [processes.Process(target=ppo_ranks.run, args=(rank, 2, str(tmp_path)), daemon=True) for rank in (0, 1)]
    for process in running:
        process.start()
    one = ppo_ranks.iteration(0, 1)
    for process in running:
        process.join(PATIENCE)
    two = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert sum(found["count"] for found in two) == one["count"]
    assert sum(found["sum"] for found in two) == pytest.approx(one["sum"], abs=1e-4)
    for name in ("beta", "explained"):
        assert [found[name] for found in two] == pytest.approx([one[name]] * 2, rel=1e-5)
    assert one["beta"] != pytest.approx(0.05)


def test_the_end_is_trained_and_an_answer_that_is_cut_has_not_ended(tokenizer):
    model, end = decoder(tokenizer), tokenizer.end_of_text
    found = roll_out(model, tokenizer, prompts(tokenizer, 6), samples=60, max_new_tokens=9)
    ended = [r for r in found if r.ended]
    assert ended and len(ended) < len(found)
    assert all((r.ids[-1] == end) == r.ended and end not in r.ids[:-1] for r in found)
    assert all(len(r.ids) == 9 for r in found if not r.ended)
    task = opened(PPO, tokenizer, missing_end=2.0, beta=0.0)
    chosen = [ended[0], next(r for r in found if not r.ended)]
    inputs_BT, targets_BT, *_, returns_BT, _, facts_BF = task.batch_of(chosen, torch.tensor([1.0, 1.0]))
    lasts = [row[kept != IGNORED][-1].item() for row, kept in zip(returns_BT, targets_BT, strict=True)]
    assert lasts == pytest.approx([1.0, -1.0], abs=1e-5)
    assert end in targets_BT[0] and facts_BF[:, 0].tolist() == [1.0, 1.0]  # the reward is reported as it is


def test_missing_end_without_an_end_is_refused(tokenizer):
    task = opened(PPO, build_tokenizer("characters", ["one two three four"]), missing_end=1.0)
    with pytest.raises(UsageError, match="missing_end"):
        task.check(None)


def test_dropout_is_refused(tokenizer):
    model = decoder(tokenizer)
    model.set_dropout(0.1)
    with pytest.raises(UsageError, match="dropout"):
        GRPO(reward="exact").begin(model)


# ---- rewards ----


def rollouts_of(*texts, chat=False, **columns):
    prompt = [{"role": "user", "content": "x"}] if chat else "x"
    return [
        RollOut(
            chat_row({"prompt": prompt, **{k: v[i] for k, v in columns.items()}}, f"file:{i}"), [1], [2], text, True
        )
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "answer", "reward"),
    [
        ("exact", " 12\n", 12, 1), ("exact", "12.", 12, 0), ("contains", "it is 12.", "12", 1),
        ("last_number", "3 + 9 = 1,012", 1012, 1), ("last_number", "9 or 12 of 13", 12, 0), ("last_number", "no", 1, 0),
    ],
)  # fmt: skip
def test_rewards_by_name(chat, name, text, answer, reward):
    found = rewards_of_rollouts(reward_function(name), rollouts_of(text, chat=chat, answer=[answer]), name)
    assert found.tolist() == [reward]


def test_a_function_gets_what_it_takes_as_in_trl():
    rollouts = rollouts_of("a", "bb", level=[1, 2], other=["u", "v"])
    assert rewards_of_rollouts(lambda completions, **columns: [*columns["level"]], rollouts).tolist() == [1, 2]
    assert rewards_of_rollouts(lambda prompts, level: [2.0 * x for x in level], rollouts).tolist() == [2, 4]
    assert rewards_of_rollouts(lambda completion_ids, kept=5: [kept, 0], rollouts).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda level: [1.0], "file:0 to file:2"),
        (lambda level: [1.0, math.nan, 0.0], "file:1"),
        (lambda level: [1.0, 0.0, "a"], "file:2"),
        (lambda level: [1.0, None, 0.0], "file:1"),
        (lambda level: [1 / (x - 7) for x in level], "file:2"),
        (lambda answer: [0.0] * 3, "file:0"),
        (REWARDS["exact"], "file:0"),
    ],
)
def test_what_a_reward_function_does_wrong_names_the_row(function, place):
    with pytest.raises(DataError) as caught:
        rewards_of_rollouts(function, rollouts_of("a", "b", "c", level=[5, 6, 7]), "it")
    assert str(caught.value).startswith(f"{place}: it ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["exakt", "no_such_module:f", "subprocess:getoutput", "own:no_such", "own:three", "bad:f"]
)
def test_a_reward_that_does_not_exist_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_asked", [])
    (tmp_path / "own.py").write_text("three = 3\ndef score(completions):\n    return [1.0] * len(completions)\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    assert reward_function("own:score")(completions="ab") == [1.0, 1.0]  # out of the current folder
    with pytest.raises(UsageError, match=r"task\.reward") as caught:
        reward_function(name)
    assert "\n" not in str(caught.value)


# ---- causes ----

HEALTHY = {"steps": 20, "reward": 0.4, "length": 5, "ended": 0.9, "sampler_gap": 1e-5, "kl": 0.1, "clip_fraction": 0.05,
           "entropy": 1.0, "groups_with_spread": 0.8, "explained_variance": 0.3, "val_reward": 0.4}  # fmt: skip


@pytest.mark.parametrize("kind", [GRPO, PPO])
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ([{}] * 5, None),
        ([{"entropy": 1.0}, *({"entropy": 0.1, "val_reward": 0.5 + 0.1 * i} for i in range(4))], None),  # it rises
        ([{"ended": 0.01}], "ended"),
        ([{"sampler_gap": 0.9}], "sampler"),
        ([{"kl": -0.5}], "kl"),
        ([{"kl": -0.01}], None),  # by chance
        ([{"clip_fraction": 0.9}], "clip"),
        ([{"entropy": 1.0}, *[{"entropy": 0.1}] * 3], "entropy"),
        ([{"length": 5 + i, "val_reward": 0.4 - 0.1 * i} for i in range(4)], "length"),
    ],
)
def test_causes(tokenizer, kind, changes, cause):
    found = opened(kind, tokenizer).causes([HEALTHY | change for change in changes])
    assert set(found) == ({cause} if cause else set())
    assert all("task." in text or "training." in text or cause in ("kl", "length") for text in found.values())


def test_causes_of_one_method(tokenizer):
    assert "87 % of groups" in opened(GRPO, tokenizer).causes([HEALTHY | {"groups_with_spread": 0.13}])[
        "spread"
    ].replace("87%", "87 %")
    assert "critic" in opened(PPO, tokenizer).causes([HEALTHY | {"explained_variance": -0.5}] * 4)


def test_a_model_folder_that_forbids_tokens_is_noticed(tokenizer):
    task = opened(GRPO, tokenizer, samples=4)
    gap = task.FACTS.index("sampler_gap")
    fair = task.batch_of(answers(task, tokenizer, 4), REWARDS_B)[-1][0, gap]
    assert fair < 1e-4
    task.model.generation_settings = GenerationSettings(suppress_tokens=tuple(range(200)))
    forced = task.batch_of(answers(task, tokenizer, 4), REWARDS_B)[-1][0, gap]
    assert "sampler" in task.causes([HEALTHY | {"sampler_gap": float(forced)}])


# ---- runs ----


def test_digits_to_sort_are_made_the_same_at_each_call():
    rows = load_chats("sort-digits")
    assert {split: len(found) for split, found in rows.items()} == {"train": 12_800, "validation": 512, "test": 512}
    every = [row for found in rows.values() for row in found]
    assert len({row.prompt for row in every}) == len(every)
    assert all(row.answers == ("".join(sorted(row.prompt[:-1])),) and len(row.prompt) == 9 for row in every)
    assert every == [row for found in load_chats("sort-digits").values() for row in found]


def test_rows_with_an_answer_are_prompts_whose_answer_the_reward_sees():
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    rows = [{"prompt": "a", "completion": "b"}, {"messages": said}, {"prompt": "a", "completion": "b", "answer": 3}]
    found = [_prompt_row(chat_row(row, "")) for row in rows]
    assert [(row.prompt, row.columns, row.answers) for row in found] == [
        ("a", {"answer": "b"}, ()), (said[:1], {"answer": "yes"}, ()), ("a", {"answer": 3}, ()),
    ]  # fmt: skip
    with pytest.raises(DataError, match="p:1"):
        _prompt_row(chat_row({"prompt": "a", "chosen": "b", "rejected": "c"}, "p:1"))


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
