"""GRPO and PPO: losses against NumPy, written out; the first update; accumulation; ranks."""

import json
import math
import multiprocessing

import numpy as np
import ppo_ranks
import pytest
import torch
from patience import PATIENCE
from policies import LENGTH, REWARDS_B, answers, clipped, decoder, log_probs, moved, opened, prompts, small_tokenizer

from glassformer.data.batches import IGNORED
from glassformer.errors import UsageError
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import GRPO, PPO
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.reward_functions import REWARDS
from glassformer.tasks.rollouts import roll_out
from glassformer.tasks.settings import RunSettings


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


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
