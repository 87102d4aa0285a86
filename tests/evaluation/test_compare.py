"""Is a difference of two losses real? By hand, and by how often the answer is wrong when the truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from toys import toy_ids, toy_model

from glassformer.errors import RunError
from glassformer.evaluation import LossEstimate, WindowLosses, compare_losses
from glassformer.tasks import evaluate_loss, window_losses


def windows(sums, counts=None, targets: str = "t") -> WindowLosses:
    sums = torch.as_tensor(sums, dtype=torch.float64)
    return WindowLosses(sums, torch.full((len(sums),), 10) if counts is None else torch.tensor(counts), targets)


def measured(w: WindowLosses, bytes_per_token: float | None = None) -> tuple[LossEstimate, WindowLosses]:
    return w.estimate(bytes_per_token), w


def alone(loss: float, interval: float, bits: float | None = None) -> tuple[LossEstimate, None]:
    return LossEstimate(loss, 100, interval, bits), None


def test_paired_by_hand():
    """Three windows of 10: sums 20 31 42 against 18 30 42, so differences 2 1 0, a mean of 3/30 = 0.1 a target.

    What each adds beyond its share of 1: 1 0 -1, spread 2/2 = 1, standard error sqrt(1 * 3) / 30; t with 2 degrees of
    freedom is 4.3027.
    """
    shown = compare_losses(measured(windows([20, 31, 42])), measured(windows([18, 30, 42])))
    assert (shown.method, shown.n, shown.unit) == ("paired", 3, "nats a token")
    assert shown.difference == pytest.approx(0.1)
    assert shown.interval == pytest.approx(4.3027 * math.sqrt(3) / 30, rel=1e-4)
    assert not shown.significant
    assert compare_losses(measured(windows([20, 31, 42])), measured(windows([10, 20, 32]))).significant


def test_unpaired_by_hand():
    """Intervals 0.03 and 0.04 make one of 0.05."""
    shown = compare_losses(alone(1.50, 0.03), alone(1.56, 0.04))
    assert (shown.method, shown.n) == ("unpaired", 0)
    assert (shown.difference, shown.interval) == (pytest.approx(-0.06), pytest.approx(0.05, rel=1e-4))
    assert shown.significant and not compare_losses(alone(1.50, 0.03), alone(1.54, 0.04)).significant
    a, b = windows([20, 31, 42]), windows([18, 30, 42], targets="u")  # other targets are not paired
    assert compare_losses(measured(a), measured(b)).method == "unpaired"
    assert compare_losses(measured(a), (b.estimate(), None)).method == "unpaired"


def test_other_tokens_are_compared_by_bits_a_byte():
    """A loss of 4 nats over long tokens may be better than 2 over characters."""
    shown = compare_losses(alone(4.0, 0.1, bits=2.0), alone(2.0, 0.1, bits=2.5), same_tokens=False)
    assert shown.unit == "bits a byte" and shown.difference == pytest.approx(-0.5)
    assert shown.interval == pytest.approx(math.hypot(0.05, 0.125), rel=1e-4) and shown.significant
    unknown = compare_losses(alone(4.0, 0.1), alone(2.0, 0.1, bits=2.5), same_tokens=False)
    assert unknown.interval == math.inf and not unknown.significant


def test_windows_of_two_lengths_are_joined_to_passages_that_both_have():
    """Of 7 windows of 6 (the last of 3) and 10 of 4 (the last of 3) the common ends are 12, 24, 36 and 39."""
    sums_a, counts_a = torch.arange(1.0, 8.0), [6] * 6 + [3]
    sums_b, counts_b = torch.arange(2.0, 12.0), [4] * 9 + [3]
    shown = compare_losses(measured(windows(sums_a, counts_a)), measured(windows(sums_b, counts_b)))
    a, b = [1 + 2, 3 + 4, 5 + 6, 7], [2 + 3 + 4, 5 + 6 + 7, 8 + 9 + 10, 11]
    by_hand = windows([x - y for x, y in zip(a, b, strict=True)], [12, 12, 12, 3]).estimate()
    assert shown.n == 4 and shown.difference == pytest.approx(by_hand.loss)
    assert shown.interval == pytest.approx(by_hand.interval / 1.96 * 3.1824, rel=1e-4)  # t with 3 degrees of freedom


def test_one_window_or_an_unknown_interval_gives_no_result():
    assert not compare_losses(measured(windows([20])), measured(windows([10]))).significant
    assert not compare_losses(alone(1.0, math.inf), alone(2.0, 0.01)).significant


def texts(n: int, better: float, seed: int):
    """n texts of 40 passages: each passage is hard or easy for both models, and each model has its own luck with it."""
    generator = torch.Generator().manual_seed(seed)
    hard, luck_a, luck_b = torch.randn(3, n, 40, generator=generator, dtype=torch.float64).unbind()
    for i in range(n):
        yield windows(20 + 3 * hard[i] + luck_a[i] - 10 * better), windows(20 + 3 * hard[i] + luck_b[i])


@pytest.mark.parametrize("comparisons", [1, 10])
def test_equally_good_models_differ_in_5_of_100_texts(comparisons: int):
    """2,000 texts, no difference: 100 +- 9.7 findings are due (10 +- 3.2 with a tenth of the odds). Five deviations are
    allowed: a false alarm less than once in a million (and the seed is set)."""
    found = sum(
        compare_losses(measured(a), measured(b), comparisons=comparisons).significant for a, b in texts(2000, 0.0, 0)
    )
    due = 2000 * 0.05 / comparisons
    assert abs(found - due) < 5 * math.sqrt(due * (1 - due / 2000))


def test_pairs_see_what_intervals_cannot():
    """A true difference of 0.07 nats a token, which varies by sqrt(2 / 40) / 10 = 0.022 from text to text.

    In pairs that is also the standard error: seen in about 86 of 100 texts. By the intervals, which hold the hard
    passages, it seems to be sqrt(2 * 10 / 40) / 10 = 0.071: seen when the difference is over 0.139, 1 text in 1000.
    """
    pairs = list(texts(300, 0.07, 1))
    paired = sum(compare_losses(measured(a), measured(b)).significant for a, b in pairs)
    unpaired = sum(compare_losses((a.estimate(), None), (b.estimate(), None)).significant for a, b in pairs)
    assert paired > 220 and unpaired < 8
    mean = sum(compare_losses(measured(a), measured(b)).difference for a, b in pairs) / 300
    assert mean == pytest.approx(-0.07, abs=5 * 0.022 / math.sqrt(300))


def real_batches(t: int, vocab_size: int = 61):
    """One stream of 61 targets in windows of t, as `data.windows` cuts it."""
    ids = toy_ids(62, vocab_size=vocab_size)
    starts = range(0, 61, t)
    return [(ids[s : min(s + t, 61)][None], ids[s + 1 : min(s + t, 61) + 1][None]) for s in starts]


def test_window_losses_are_what_the_estimate_is_made_of(tmp_path):
    model = toy_model()
    shown = window_losses(model, real_batches(5))
    assert shown.estimate(2.0) == evaluate_loss(model, real_batches(5), bytes_per_token=2.0)
    assert shown.counts.tolist() == [5] * 12 + [1]
    shown.save(tmp_path / "windows.safetensors")
    again = WindowLosses.load(tmp_path / "windows.safetensors")
    assert torch.equal(shown.sums, again.sums) and torch.equal(shown.counts, again.counts)
    assert shown.targets == again.targets


def test_the_same_targets_are_known_however_they_are_cut():
    model, other = toy_model(), toy_model(seed=1)
    assert window_losses(model, real_batches(5)).targets == window_losses(other, real_batches(10)).targets
    shifted = [(x, (y + 1) % 61) for x, y in real_batches(5)]
    assert window_losses(model, shifted).targets != window_losses(model, real_batches(5)).targets
    a, b = window_losses(model, real_batches(5)), window_losses(other, real_batches(10))
    shown = compare_losses(measured(a), measured(b))
    assert shown.method == "paired" and shown.n == 7
    assert shown.difference == pytest.approx(a.estimate().loss - b.estimate().loss)


@pytest.mark.parametrize("content", [None, b"", b"\x10\0\0\0\0\0\0\0{}"])
def test_damaged_window_losses_are_one_clear_line(tmp_path, content):
    path = tmp_path / "windows.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="evaluate the run again"):
        WindowLosses.load(path)
