"""Batches of examples: each once an epoch, rows of like length together, the same chance wherever an example lies."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassformer.data.example_batches import ExampleBatches, in_order, length_order, lengths_of
from glassformer.errors import DataError, UsageError


def pairs(n: int, longest: int = 30) -> list[tuple[np.ndarray, np.ndarray]]:
    """Example i: its number and some filling, of any length, and a target that is as long as it likes."""
    random = np.random.default_rng(0)
    return [
        (np.full(s, i, dtype=np.uint16), np.full(t, i, dtype=np.uint16))
        for i, (s, t) in enumerate(random.integers(1, longest, size=(n, 2)))
    ]


def collate(examples, random):
    """(number, source, lengths, coin, target), padded with 7 and -100 as an objective would."""
    sources, targets = [e[0] for e in examples], [e[1] for e in examples]

    def padded(rows, fill):
        width = max(map(len, rows))
        return torch.stack([F.pad(torch.tensor(r.astype(np.int64)), (0, width - len(r)), value=fill) for r in rows])

    return (
        torch.tensor([int(s[0]) for s in sources]),
        padded(sources, 7),
        torch.tensor([len(s) for s in sources]),
        torch.tensor([random.integers(1 << 40) for _ in examples]),
        padded(targets, -100),
    )


def make(n=53, batch_size=5, **options) -> ExampleBatches:
    return ExampleBatches(pairs(n), collate, batch_size=batch_size, **{"seed": 3, "pool": 3, "pad_token": 7, **options})


def read(batches: ExampleBatches, steps: int) -> list[int]:
    return [number for _ in range(steps) for number in next(batches)[0].tolist()]


def same(one, other) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 15, 53, 60])
@pytest.mark.parametrize("pool", [1, 3, 100])
def test_every_epoch_holds_every_example_once_whatever_is_left_over(n, pool):
    """20 steps of 5: epochs begin and end in the middle of steps; nothing is dropped and nothing comes twice."""
    numbers = read(make(n, pool=pool), 20)
    for start in range(0, len(numbers) - n + 1, n):
        assert sorted(numbers[start : start + n]) == list(range(n))


def test_epochs_have_other_orders_and_seeds_too():
    numbers = read(make(60), 24)
    assert numbers[:60] != numbers[60:]
    assert numbers != read(make(60, seed=4), 24)
    assert numbers == read(make(60), 24)
    unsorted = make(60, pool=1)
    first, second, third = ({frozenset(read(unsorted, 1)) for _ in range(12)} for _ in range(3))
    assert not first & second and not second & third  # not the same companions in another order


@pytest.mark.parametrize("steps", [0, 1, 7, 10, 11, 30])
def test_what_some_steps_read_is_known_before(steps):
    ranks = [make(rank=rank, world_size=2, batch_size=3) for rank in range(2)]
    assert ranks[0].read_within(steps) == sorted({number for rank in ranks for number in read(rank, steps)})


def test_rows_hold_their_example_and_are_filled_up_on_the_right():
    examples = pairs(53)
    for batch in (next(make()) for _ in range(3)):
        for number, source, length, _, target in zip(*batch, strict=True):
            ids, text = examples[number]
            assert length == len(ids) and source[:length].tolist() == ids.tolist() and (source[length:] == 7).all()
            assert target[: len(text)].tolist() == text.tolist() and (target[len(text) :] == -100).all()
        _, source, lengths, _, target = batch
        assert source.shape[1] == lengths.max() and (target[:, -1] != -100).any()
        assert all(tensor.dtype == torch.int64 for tensor in batch)


def test_sorting_in_pools_saves_padding_and_the_lengths_come_in_no_order():
    def padding(pool: int) -> float:
        batches = make(1000, batch_size=10, pool=pool)
        drawn = [next(batches) for _ in range(100)]
        cells = sum(b[1].numel() for b in drawn)
        return 1 - sum(int(b[2].sum()) for b in drawn) / cells

    assert padding(1) > 0.4 and padding(20) < 0.1
    batches = make(1003, batch_size=10, pool=20)  # later epochs begin in the middle of a step
    drawn = [next(batches) for _ in range(300)][200:]
    assert 1 - sum(int(b[2].sum()) for b in drawn) / sum(b[1].numel() for b in drawn) < 0.1
    batches = make(1000, batch_size=10, pool=20)
    widths = np.array([next(batches)[1].shape[1] for _ in range(100)])
    assert abs(np.corrcoef(widths[:-1], widths[1:])[0, 1]) < 0.5  # sorted ones would have a correlation near 1


@pytest.mark.parametrize("step", [3, 17])
def test_resuming_equals_never_stopping_and_the_state_is_one_number(step):
    whole = make()
    expected = [next(whole) for _ in range(30)]
    stopped = make()
    for _ in range(step):
        next(stopped)
    state = json.loads(json.dumps(stopped.state_dict()))
    assert state == {"seed": 3, "step": step}
    resumed = make(seed=99)
    next(resumed)
    resumed.load_state_dict(state)
    assert all(same(next(resumed), batch) for batch in expected[step:])


@pytest.mark.parametrize("n", [53, 60])
def test_ranks_together_read_what_one_process_reads_with_the_same_chance(n):
    one = make(n, batch_size=6)
    ranks = [make(n, batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    for _ in range(40):
        whole, parts = next(one), [next(rank) for rank in ranks]
        for column in (0, 2, 3):  # numbers, lengths, coins: row r of the whole is row r // 3 of rank r % 3
            assert torch.equal(torch.stack([part[column] for part in parts], dim=1).flatten(), whole[column])


def test_an_examples_chance_is_new_each_epoch_and_its_own():
    batches = make(53, batch_size=53)
    coins = [dict(zip(b[0].tolist(), b[3].tolist(), strict=True)) for b in (next(batches), next(batches))]
    assert all(coins[0][i] != coins[1][i] for i in range(53)) and len(set(coins[0].values())) == 53


def test_without_chance_a_batch_is_collated_at_once_and_is_the_same():
    calls = []

    def without_chance(examples, random):
        calls.append((len(examples), random))
        numbers, source, lengths, _, target = collate(examples, np.random.default_rng(0))
        return numbers, source, lengths, target

    one, other = (
        ExampleBatches(pairs(53), without_chance, batch_size=5, seed=3, pad_token=7, by_chance=by_chance)
        for by_chance in (True, False)
    )
    for _ in range(12):
        assert same(next(one), next(other))
    assert calls[-1] == (5, None)
    ways = ([*in_order(pairs(53), without_chance, 8, 3, pad_token=7, by_chance=flag)] for flag in (True, False))
    assert all(same(a, b) for a, b in zip(*ways, strict=True))


@pytest.mark.parametrize("batch_size", [1, 4, 53, 100])
def test_in_order_gives_every_example_once_with_the_same_chance_at_any_batch_size(batch_size):
    examples = pairs(53)
    alone = {int(b[0]): int(b[3]) for b in in_order(examples, collate, 1, seed=5)}
    batches = list(in_order(examples, collate, batch_size, seed=5, pad_token=7))
    numbers = torch.cat([b[0] for b in batches]).tolist()
    assert numbers == length_order(examples).tolist() and sorted(numbers) == list(range(53))
    assert {i: c for b in batches for i, c in zip(b[0].tolist(), b[3].tolist(), strict=True)} == alone
    assert {int(b[0]): int(b[3]) for b in in_order(examples, collate, 1, seed=6)} != alone
    lengths = torch.cat([b[2] for b in batches])
    assert (lengths[1:] >= lengths[:-1]).all()


def test_lengths_of_all_kinds_of_examples():
    ids = np.zeros(5, dtype=np.uint16)
    kinds = [(ids, ids[:2]), (ids, 3), (ids, np.int64(3)), (ids, [1, 2, 3]), ids, [1, 2]]
    assert lengths_of(kinds).tolist() == [[5, 2], [5, 0], [5, 0], [5, 3], [5, 0], [2, 0]]
    assert length_order([ids, ids[:2], (ids[:2], ids), ids[:1]]).tolist() == [3, 1, 2, 0]


def test_every_example_is_as_likely_to_come_first_as_any_other():
    """Of 5 examples the first one read, over 2000 seeds: each count is binomial(2000, 1/5), sd 18; beyond 5 sd once in
    a million."""
    examples = pairs(5)
    first = Counter(int(next(ExampleBatches(examples, collate, batch_size=1, seed=seed))[0]) for seed in range(2000))
    assert len(first) == 5 and all(abs(count - 400) < 90 for count in first.values())


def test_what_makes_no_sense_is_one_line():
    for wrong in ({"batch_size": 0}, {"rank": 2, "world_size": 2}, {"pool": 0}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
            make(**wrong)
    with pytest.raises(DataError, match="there are no examples"):
        make(0)
    with pytest.raises(DataError, match="there are no examples"):
        next(in_order([], collate, 1, 1))
    with pytest.raises(UsageError, match="batch_size=0"):
        next(in_order(pairs(3), collate, 0, 1))
