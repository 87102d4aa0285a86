"""What holds for all tasks: sums and counts add up, however the examples were cut, padded or put in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import CLASSES, TOKENS, V, encoder, recurrent, translator
from toys import toy_model

from glassformer.errors import DataError, UsageError
from glassformer.plugins import load_installed
from glassformer.tasks import TASKS, TaskSettings

load_installed()  # the tasks of glassformer.history too

FACTS: dict[str, dict[str, Any]] = {
    "next_token": {},
    "translate": {**TOKENS, "label_smoothing": 0.0},
    "masked_tokens": {"mask_token": 3, "vocab_size": V, "special_tokens": (0, 1, 2), "share": 0.3},
    "spans": {"sentinels": [9, 8, 6, 5, 4], **TOKENS, "noise_density": 0.4},
    "classify": {"n_classes": CLASSES},
    "reward": {},
    "skip_gram": {"counts": range(V), "window": 3, "noise": 7, "negatives": 2.5},
    "tag": {"n_classes": V},
}
KINDS = sorted(FACTS)
CASES = {
    "next token": ("next_token", lambda: toy_model().double()),
    "skip-gram": ("skip_gram", lambda: recurrent("skip-gram", n_embd=5)),
    "masked, post-norm": (
        "masked_tokens",
        lambda: encoder("original", token_head="vocabulary", token_transform=True),
    ),
    "masked, rotary": ("masked_tokens", lambda: encoder("modern", token_head="vocabulary")),
    "class of the mean": ("classify", lambda: encoder("classic", n_classes=CLASSES, pooling="mean")),
    "class of the first": ("classify", lambda: encoder("modern", n_classes=CLASSES, pooler=True)),
    "reward": ("reward", lambda: encoder("modern", n_classes=1, pooling="mean")),
    "classes of tokens": ("tag", lambda: encoder("classic", n_classes=V, token_head="classes")),
    "translation of 2017": ("translate", lambda: translator("original")),
    "translation, modern": ("translate", lambda: translator("modern", n_decoder_layer=1)),
    "translation by an LSTM": ("translate", lambda: recurrent("seq2seq-attention", n_embd=13, n_hidden=17, **TOKENS)),
    "spans": ("spans", lambda: translator("classic")),
}
every_case = pytest.mark.parametrize(("kind", "make"), CASES.values(), ids=CASES)


def task(kind: str, **changes: Any):
    return TASKS[kind](**{**FACTS[kind], **changes})


def examples(kind: str, n: int = 6) -> list[Any]:
    """n examples of all different lengths, 2 to 12 tokens."""
    random = np.random.default_rng(1)
    texts = [random.integers(10, V, size=2 + (5 * i) % 11) for i in range(n)]
    if kind == "reward":
        return [(text, 10 + text[: 2 + i] * 7 % 50) for i, text in enumerate(texts)]
    if kind == "translate":
        return [(text, text[::-1][: 1 + i]) for i, text in enumerate(texts)]
    if kind == "classify":
        return [(text, i % CLASSES) for i, text in enumerate(texts)]
    if kind == "tag":
        return [(text, np.where(text % 4 == 0, -100, text[::-1])) for text in texts]
    return texts


def batch_of(kind: str, n: int = 6) -> tuple[torch.Tensor, ...]:
    return task(kind).collate(examples(kind, n), np.random.default_rng(0))


def alone(batch: tuple[torch.Tensor, ...], row: int) -> tuple[torch.Tensor, ...]:
    """One example of a batch, without what filled it up."""
    parts = [part[row : row + 1] for part in batch]
    if len(parts) == 3 and parts[0].dim() == parts[1].dim() == 2:  # noise, reach, words
        n = int((parts[2] != -100).sum())
        return parts[0], parts[1][:, :n], parts[2][:, :n]
    if len(parts) == 2:  # inputs, targets
        n = int((parts[1] != -100).sum())
        return parts[0][:, :n], parts[1][:, :n]
    if len(parts) == 3:  # inputs, lengths, targets: one a token or one in all
        n = int(parts[1])
        return parts[0][:, :n], parts[1], parts[2][:, :n] if parts[2].dim() == 2 else parts[2]
    if len(parts) == 5:  # chosen and rejected texts with their lengths
        a, b = int(parts[1]), int(parts[3])
        return parts[0][:, :a], parts[1], parts[2][:, :b], parts[3], parts[4]
    source, lengths, target_in, target_out = parts
    n = int((target_out != -100).sum())
    return source[:, : int(lengths)], lengths, target_in[:, :n], target_out[:, :n]


def test_all_of_them_are_known_by_their_names():
    on_chats = {"sft", "dpo", "kto", "distill", "grpo", "ppo"}  # test_assistant.py
    others = on_chats | {
        "regress",
        "induction",
        "diffusion",
        "image_tokens",
        "generalist",
    }  # the loss of next_token; rows of one length
    assert set(FACTS) | others == {name for name, kind in TASKS.items() if kind.reads == "text"}  # images: no padding
    assert all(issubclass(kind.Settings, TaskSettings) for kind in TASKS.values())


@every_case
def test_pads_change_nothing(kind: str, make):
    """Each example by itself costs what it costs in a batch of longer ones, in float64 to 1e-9; and the report adds up
    to what is trained."""
    model, batch, asked = make(), batch_of(kind), task(kind)
    with torch.no_grad():
        together, count, _ = asked.loss(model, batch)
        pieces = [asked.loss(model, alone(batch, row)) for row in range(6)]
        rows, singly = asked.rows(model, batch), [asked.rows(model, alone(batch, row)) for row in range(6)]
    torch.testing.assert_close(together, sum(loss for loss, _, _ in pieces), rtol=1e-9, atol=0)
    assert count == rows.counts_B.sum() == sum(n for _, n, _ in pieces) >= 6
    for shown, each in zip(rows, zip(*singly, strict=True), strict=True):
        torch.testing.assert_close(shown, torch.cat(each), rtol=1e-9, atol=0)
    assert [part.dtype for part in rows] == [torch.float64, torch.int64, torch.int64]
    assert all(part.shape == (6,) for part in rows) and (rows.correct_B <= rows.counts_B).all()
    assert rows.sums_B.sum().item() == pytest.approx(together.item(), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("next token", "skip-gram")])
def test_what_fills_up_is_never_looked_at(name: str):
    (kind, make), filled = CASES[name], []
    for pad in (0, 7):
        asked = task(kind, pad_token=pad)
        batch = asked.collate(examples(kind), np.random.default_rng(0))
        assert any((part == pad).any() for part in batch if part.dim() == 2)
        filled.append(asked.loss(make(), batch)[0])
    torch.testing.assert_close(*filled, rtol=1e-12, atol=0)


@every_case
@pytest.mark.parametrize("cut", [(8, 8, 8, 8), (1, 20, 11)], ids=str)
def test_32_examples_at_once_are_32_in_pieces(kind: str, make, cut: tuple[int, ...]):
    """Loss, count and gradients; in pieces of which each has another number of targets."""
    asked, batch = task(kind), batch_of(kind, 32)
    results = []
    for pieces in ((32,), cut):
        model, total, n = make(), 0.0, 0
        for piece in zip(*(part.split(pieces) for part in batch), strict=True):
            loss, count, _ = asked.loss(model, piece)
            loss.backward()
            total, n = total + loss.item(), n + count
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert n == asked.rows(model, batch).counts_B.sum() and any(g.abs().max() > 1e-3 for g in gradients)
        results.append([torch.tensor(total, dtype=torch.float64), *gradients])
    for whole, added in zip(*results, strict=True):
        torch.testing.assert_close(added, whole, rtol=1e-9, atol=1e-9)


@every_case
def test_halves_are_added_up_in_full(kind: str, make):
    """In bf16 a sum of losses of 4 each would stop growing at about 1,000."""
    asked, batch = task(kind), batch_of(kind, 256)
    exact = asked.loss(make().to(torch.bfloat16).double(), batch)[0].item()
    half = make().to(torch.bfloat16)
    loss, rows = asked.loss(half, batch)[0], asked.rows(half, batch)
    assert loss.dtype == torch.float32 and exact > 150
    assert loss.item() == pytest.approx(exact, rel=2e-2)
    assert rows.sums_B.sum().item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_chance_there_is_comes_from_the_generator(kind: str):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = batch_of(kind), batch_of(kind)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "next_token"])
def test_empty_examples_and_empty_batches_are_one_clear_line(kind: str):
    asked, random = task(kind), np.random.default_rng(0)
    empty: Any = {"translate": ([], [3]), "classify": ([], 1), "reward": ([3], []), "tag": ([], [])}.get(kind, [])
    with pytest.raises(DataError, match=r"^example 1 of a batch has an empty (source|text); it needs 1 token"):
        asked.collate([examples(kind)[0], empty], random)
    with pytest.raises(DataError, match=r"^a batch needs 1 example"):
        asked.collate([], random)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_one_clear_line(kind: str):
    with pytest.raises(UsageError, match=r"^unknown key task\.smoothness"):
        TASKS[kind].Settings.make(smoothness=1)
