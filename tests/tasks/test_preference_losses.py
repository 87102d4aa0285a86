"""Losses of SFT, reward models, DPO, KTO and distillation beside their formulas, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from preference_sets import answer, chat_tokenizer, random_model, user

from glassformer.data.chats import chat_row
from glassformer.errors import UsageError
from glassformer.models import DecoderClassifier, DecoderClassifierConfig
from glassformer.tasks import DPO, KTO, SFT, Distill, Reward
from glassformer.tasks.chats import ChatSource
from glassformer.tasks.distill import kl_divergences
from glassformer.tasks.losses import IGNORED


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


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


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_of_sft_equals_numpy(tokenizer, packing):
    """Of the assistant's turns alone, each with the token that ends it, from messages to the sum."""
    said = [["good two"], ["bad", "good night two"], ["day"]]
    rows = [
        chat_row({"messages": [turn for text in texts for turn in user("one") + answer(text)]}, "") for texts in said
    ]
    task, model = SFT(packing=packing), random_model(tokenizer, 1, block_size=64)
    task.source = ChatSource("toy", {"train": rows}, tokenizer)
    batch = task.collate(task.packed(64) if packing else task.encoded("train", 64))
    assert len(batch[0]) == (2 if packing else 3)
    expected, n = 0.0, 0
    for row, texts in zip(rows, said, strict=True):
        ids = tokenizer.chat.encode(list(row.prompt) + list(row.answers[0]), add_generation_prompt=False)
        start = 0
        for text in texts:
            turn = [*tokenizer.encode(text), *tokenizer.chat.turn_ends]
            start = next(i for i in range(start, len(ids)) if ids[i : i + len(turn)] == turn)
            expected -= log_prob(model, ids[: start + len(turn)], len(turn))
            n += len(turn)
    found = task.loss(model, batch)
    assert int(found.count) == n and found.sum.item() / n == pytest.approx(expected / n, abs=1e-5)


def test_the_loss_of_a_reward_model_equals_numpy(tokenizer):
    """The score of a chat is read at its last real token, whatever fills up its row."""
    torch.manual_seed(2)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = DecoderClassifier(DecoderClassifierConfig.make(family="modern", n_classes=1, **fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task, scores = Reward(), []
    task.pad_token = 7
    for ids, _ in SIDES:
        with torch.no_grad():
            scores.append(float(model(torch.tensor([ids]))[0, -1].double() @ model.classifier.weight[0].double()))
    batch = task.collate([(SIDES[i][0], SIDES[i + 1][0]) for i in (0, 2)])
    found, count, metrics = task.loss(model, batch)
    margins = np.array([scores[0] - scores[1], scores[2] - scores[3]])
    assert count == 2 and found.item() == pytest.approx(-log_sigmoid(margins).sum(), abs=1e-5)
    assert metrics["margin"][0].item() == pytest.approx(margins.sum(), abs=1e-5)


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


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"gamma": 1.0}, "task.gamma is of task.loss=simpo"), ({"loss": "ipo", "label_smoothing": 0.1}, "not of ipo"),
     ({"loss": "simpo", "reference": "x"}, "leave out task.reference"), ({"loss": "hinge"}, "sigmoid")],
)  # fmt: skip
def test_settings_that_would_do_nothing_are_refused(settings, match):
    with pytest.raises(UsageError, match=match):
        DPO(**settings)
