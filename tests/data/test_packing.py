"""Packed chats: nothing is lost, nothing leaks."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer import recipes
from glassformer.data.packing import PADDING, pack, padding
from glassformer.errors import UsageError
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import SFT


def pairs_of(lengths, vocab_size=50):
    random = np.random.default_rng(5)
    pairs = []
    for n in lengths:
        targets = random.integers(0, vocab_size, n)
        targets[: n // 2] = -100
        pairs.append((random.integers(0, vocab_size, n), targets))
    return pairs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 23), min_size=1, max_size=40))
def test_every_example_is_in_one_sequence_and_none_is_longer(lengths):
    packed = pack(pairs_of(lengths), 23)
    assert all(len(inputs) == len(documents) == len(targets) <= 23 for inputs, documents, targets in packed)
    found = [
        (inputs[documents == d].tolist(), targets[documents == d].tolist())
        for inputs, documents, targets in packed
        for d in range(documents.max() + 1)
    ]
    assert sorted(found) == sorted((i.tolist(), t.tolist()) for i, t in pairs_of(lengths))
    fewest = -(-sum(lengths) // 23)
    assert len(packed) <= 11 / 9 * max(fewest, sum(n > 11 for n in lengths)) + 1


@pytest.mark.parametrize("positions", ["rotary", "alibi", "none"])
def test_packed_losses_and_gradients_are_those_of_the_chats_alone(positions):
    torch.manual_seed(2)
    config = ModelConfig(vocab_size=50, block_size=23, n_layer=2, n_head=3, n_embd=18, positions=positions)
    model, task, pairs = Decoder(config), SFT(packing=True), pairs_of([7, 3, 11, 5, 2, 9, 13])
    packed = pack(pairs, 23)
    assert max(documents.max() for _, documents, _ in packed) >= 2
    batch = task.collate(packed)
    assert (batch[1] == PADDING).any()  # padding stands in the batch too
    alone = [task.loss(model, task.collate([pair])) for pair in pairs]
    together = task.loss(model, batch)
    assert together.count == sum(loss.count for loss in alone)
    whole = sum(loss.sum for loss in alone)
    torch.testing.assert_close(together.sum, whole, atol=1e-4, rtol=1e-6)
    weight = model.embedding.token.weight
    torch.testing.assert_close(
        *(torch.autograd.grad(x, weight)[0] for x in (together.sum, whole)), atol=1e-5, rtol=1e-5
    )
    leaking = task.loss(model, (batch[0], torch.zeros_like(batch[1]), batch[2]))
    assert abs((leaking.sum - whole).item()) > 1e-3  # without the mask it would show


def test_padding_is_counted_as_the_batches_have_it():
    pairs = pairs_of([3, 9, 4, 8, 5, 7, 2, 6, 10])
    batches = recipes_batches(pairs)
    expected = sum(int((batch[0] == 99).sum()) for batch in batches)
    assert padding(pairs, 3, 1) == expected > 0


def recipes_batches(pairs):
    from glassformer.data.example_batches import ExampleBatches

    def collate(rows, _):
        T = max(len(inputs) for inputs, _ in rows)
        return (torch.tensor([[*inputs, *[99] * (T - len(inputs))] for inputs, _ in rows]),)

    batches = ExampleBatches(pairs, collate, by_chance=False, batch_size=3, seed=1)
    return [batches.batch(step) for step in range(3)]


def test_a_packed_run_resumes_to_the_bit_and_learned_positions_are_refused(tmp_path):
    rows = [{"prompt": f"{i}=", "completion": "0123"[: 1 + i % 4]} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "task.kind=sft",
        "task.packing=true",
        "tokenizer.kind=bytes",
        "model.n_layer=1",
        "model.n_head=2",
        "model.n_embd=16",
        "model.block_size=32",
        "training.batch_size=3",
        "training.steps=4",
        "training.checkpoint_every=2",
        "training.precision=fp32",
    ]
    lines = []
    whole, cut = (
        recipes.train(None, words, data=str(tmp_path / "a.jsonl"), out=tmp_path / name, log=lines.append)
        for name in ("whole", "cut")
    )
    assert any("packing: 5" in line and "chats in" in line for line in lines)
    (cut.path / "checkpoints" / "step-000004").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    file = "checkpoints/step-000004/model/model.safetensors"
    assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()
    with pytest.raises(UsageError, match=r"task\.packing.*learned"):
        recipes.train(None, [*words, "model.positions=learned"], data=str(tmp_path / "a.jsonl"), out=tmp_path / "no")
