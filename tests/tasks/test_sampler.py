"""Roll-outs of a faster copy of the model, and the importance weights that make up for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from policies import REWARDS_B, answers, clipped, log_probs, moved, opened, small_tokenizer
from skips import NEEDS_COMPILER

from glassformer import recipes
from glassformer.data.chats import chat_row
from glassformer.errors import DeviceError, UsageError
from glassformer.layers.lora import add_lora
from glassformer.models import Decoder, ModelConfig
from glassformer.native import library
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import GRPO, PPO, sampler
from glassformer.tasks.rollouts import RollOut, roll_out
from glassformer.tasks.sampler import sampler_of
from glassformer.training import RunFolder

CAP = 1.3
compiled = pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def sampled_elsewhere(rollouts, size=0.4):
    """The same answers, from a sampler whose log-probabilities differ."""
    random = np.random.default_rng(3)
    return [
        replace(r, log_probs=tuple(np.minimum(0, np.array(r.log_probs) + random.normal(0, size, len(r.ids)))))
        for r in rollouts
    ]


@pytest.mark.parametrize("kind", [GRPO, PPO])
def test_the_weighted_loss_equals_numpy(tokenizer, kind):
    more = {"samples": 4, "scale": "none"} if kind is GRPO else {"beta": 0.0, "whiten_advantages": False}
    task = opened(kind, tokenizer, importance_cap=CAP, **more)
    rollouts = sampled_elsewhere(answers(task, tokenizer, 4 if kind is GRPO else 1))
    batch = task.batch_of(rollouts, REWARDS_B)
    old = log_probs(task.model, rollouts)
    new = log_probs(moved(task.model, 0.02), rollouts)
    differences = [p - np.array(r.log_probs) for p, r in zip(old, rollouts, strict=True)]
    total, rewards = 0.0, REWARDS_B.double().numpy()
    for i, d in enumerate(differences):
        for t in range(len(d)):
            # the critic is zero at the start, so that an advantage of PPO is the score, weighted by (gamma lambda)^k
            advantage = (
                rewards[i] - rewards[i // 4 * 4 :][:4].mean() if kind is GRPO else rewards[i] * 0.95 ** (len(d) - 1 - t)
            )
            total += min(np.exp(d[t]), CAP) * clipped(np.exp(new[i][t] - old[i][t]), advantage, 0.2, 0.2)
    every = np.concatenate(differences)
    loss = task.loss(task.model, batch)
    critic = 0.1 * float(loss.metrics["value_loss"][0]) if kind is PPO else 0.0
    assert loss.sum.item() / len(every) == pytest.approx((total + critic) / len(every), abs=1e-5)
    shares = {name: float(loss.metrics[name][0]) / 8 for name in ("sampler_gap", "sampler_kl", "truncated_weights")}
    assert shares == pytest.approx({
        "sampler_gap": np.abs(every).max(), "sampler_kl": (np.exp(every) - 1 - every).mean(),
        "truncated_weights": (np.exp(every) > CAP).mean(),
    }, abs=1e-5)  # fmt: skip
    assert 0.05 < shares["truncated_weights"] < 0.6


@pytest.mark.parametrize("cap", [None, 1e9, 1.2])
def test_the_expected_gradient_is_that_of_the_trained_model(cap):
    """All pairs of answers of one token, each as often as the sampler gives it. Without weights the gradient is that of
    another reward; truncated, that of what is left."""
    tokenizer = build_tokenizer("characters", ["abcd"])
    torch.manual_seed(4)
    model = Decoder(ModelConfig(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=16)).double()
    moved(model, 0.3)
    task = GRPO(reward="exact", samples=2, scale="rloo", max_new_tokens=1, importance_cap=cap)
    task.begin(model)
    V, row = tokenizer.vocab_size, chat_row({"prompt": "ab"}, "")
    prompt = tokenizer.encode("ab")
    log_p_V = model(torch.tensor([prompt]))[0, -1].log_softmax(0)
    random = np.random.default_rng(1)
    q_V = torch.tensor(random.dirichlet(np.ones(V) * 4))
    rewards_V = torch.tensor(random.normal(size=V))
    total = torch.zeros((), dtype=torch.float64)
    for i in range(V):
        for j in range(V):
            pair = [RollOut(row, prompt, [v], "", True, (float(q_V[v].log()),)) for v in (i, j)]
            loss = task.loss(model, task.batch_of(pair, rewards_V[[i, j]]))
            total = total + q_V[i] * q_V[j] * loss.sum / loss.count
    weights_V = (log_p_V.detach().exp() / q_V).clamp(max=cap or np.inf) if cap else torch.ones(V)
    assert cap is None or bool((weights_V == cap).any()) == (cap < 2)
    left_V = q_V * weights_V * (rewards_V - (q_V * rewards_V).sum())
    parameters = [*model.parameters()]
    found, expected, wanted = (
        torch.cat([g.flatten() for g in torch.autograd.grad(x, parameters, retain_graph=True)])
        for x in (total, -(left_V * log_p_V).sum(), -(log_p_V.exp() * rewards_V).sum())
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    away = float((found - wanted).norm() / wanted.norm())
    assert away < 1e-5 if cap == 1e9 else away > 0.05


def native_model(tokenizer, **fields):
    torch.manual_seed(3)
    shape = {"block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 64, **fields}
    return moved(Decoder(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)).eval(), 0.1)


@compiled
@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_a_rounded_sampler_is_measured_and_the_exact_one_has_no_weights(tokenizer, dtype):
    gaps = {}
    for used in ("fp32", dtype):
        task = opened(GRPO, tokenizer, samples=4, scale="none", rollout_dtype=used, model=native_model(tokenizer))
        task.reward = lambda completions: [0.0] * len(completions)
        rollouts, _ = task.roll_out(0, 2, 4)
        batch = task.batch_of(rollouts, REWARDS_B)
        metrics = task.loss(task.model, batch).metrics
        gaps[used] = float(metrics["sampler_gap"][0]) / 8
        assert ("sampler_kl" in metrics) == ("truncated_weights" in metrics) == (used != "fp32")
    assert gaps["fp32"] < 1e-4 < gaps[dtype]
    logs = [p - np.array(r.log_probs) for p, r in zip(log_probs(task.model, rollouts), rollouts, strict=True)]
    advantages_B = REWARDS_B - REWARDS_B.view(2, 4).mean(1).repeat_interleave(4)
    for i, log_weights in enumerate(logs):
        start = len(rollouts[i].prompt) - 1
        found = batch[4][i, start : start + len(log_weights)]
        expected = advantages_B[i].item() * np.minimum(np.exp(log_weights), 2)
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


@compiled
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_the_copy_has_the_present_weights_and_changes_nothing(tokenizer, dtype):
    model = native_model(tokenizer)
    add_lora(model, {"blocks.0.attention.qkv": [64, 64, 64]}, rank=2, alpha=4.0)
    prompts = [(chat_row({"prompt": "one"}, ""), tokenizer.encode("one"))]
    before = {name: (p.requires_grad, p.dtype, p.detach().clone()) for name, p in model.named_parameters()}
    answered = []
    for size in (0.0, 2.0):
        moved(model.blocks[0].attention.qkv.lora_b, size)
        twin = sampler_of(model, dtype)
        merged = sampler_of(twin, "fp32")
        assert merged is twin and not any("lora" in name for name, _ in twin.named_parameters())
        answered.append(roll_out(twin, tokenizer, prompts, samples=4, max_new_tokens=8)[0].log_probs)
    assert answered[0] != answered[1]
    for name, p in model.named_parameters():
        assert (p.requires_grad, p.dtype) == before[name][:2]
        assert "lora_b" in name or torch.equal(p, before[name][2])


def test_what_has_no_fast_form_is_one_line(tokenizer, monkeypatch):
    with pytest.raises(UsageError, match=r"rollout_dtype=int8 .*n_embd=15"):
        opened(GRPO, tokenizer, rollout_dtype="int8")
    for wrong in ({"rollout_dtype": "int7"}, {"importance_cap": 0.5}):
        with pytest.raises(UsageError, match=next(iter(wrong))) as caught:
            GRPO(reward="exact", **wrong)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(sampler, "library", lambda: None)
    with pytest.raises(DeviceError, match=r"rollout_dtype=int4 .*compiler.*fp32"):
        sampler_of(native_model(tokenizer), "int4")


def test_a_sampler_that_is_too_far_is_named(tokenizer):
    steps = {"steps": 20, "reward": 0.4, "ended": 0.9, "sampler_gap": 2.0, "kl": 0.1, "groups_with_spread": 0.8}
    task = opened(GRPO, tokenizer, importance_cap=2.0)
    assert not task.causes([steps | {"sampler_kl": 1e-3, "truncated_weights": 0.01}])  # weights make up for this
    for far in ({"sampler_kl": 0.05, "truncated_weights": 0.0}, {"sampler_kl": 1e-3, "truncated_weights": 0.2}):
        assert "rollout_dtype=fp32" in task.causes([steps | far])["sampler"]
    task.settings = task.settings.model_copy(update={"rollout_dtype": "int4"})
    assert "int8 or fp32" in task.causes([steps | {"sampler_kl": 0.05, "truncated_weights": 0.0}])["sampler"]


@compiled
def test_a_run_of_int8_roll_outs_reports_the_gap_and_resumes_to_the_bit(tmp_path):
    rows = [{"prompt": f"{i:02}=", "completion": "ab", "split": ("train", "validation")[i % 5 == 0]} for i in range(20)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = ["model.n_layer=1", "model.n_head=1", "model.n_embd=32", "model.block_size=16", "tokenizer.kind=bytes"]
    common = ["training.batch_size=8", "training.precision=fp32", "training.learning_rate=0.003"]
    start = recipes.train(
        None, [*shape, *common, "task.kind=sft", "training.steps=3"], data=str(data), out=tmp_path / "start"
    )
    words = [
        *common, "task.kind=grpo", f"task.reward={__name__}:small", "task.samples=4", "task.updates=2",
        "task.max_new_tokens=5", "task.rollout_dtype=int8", "training.steps=4", "training.checkpoint_every=1",
        "training.keep_checkpoints=9", "training.eval_every=4", f"training.start_from={start.path}",
    ]  # fmt: skip
    whole, cut = (recipes.train(None, words, data=str(data), out=tmp_path / name) for name in ("whole", "cut"))
    for checkpoint in (cut.path / "checkpoints").iterdir():
        if checkpoint.name > "step-000001":  # the second update with the first answers is still to come
            checkpoint.rename(tmp_path / checkpoint.name)
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    files = [path / "checkpoints/step-000004/model/model.safetensors" for path in (whole.path, cut.path)]
    assert files[0].read_bytes() == files[1].read_bytes()
    line = RunFolder(whole.path).read_metrics()[-1]
    assert 1e-5 < line["sampler_gap"] < 0.3 and 0 < line["sampler_kl"] < 0.01 and line["truncated_weights"] == 0
    assert "sampler kl" in (whole.path / "report.html").read_text().lower()


def small(completion_ids):
    """The share of bytes below 128."""
    return [sum(i < 128 for i in ids) / len(ids) for ids in completion_ids]
