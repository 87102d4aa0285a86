"""Diffusion: the loss is a bound with the right weights, noise is fair, and a run resumes, evaluates and writes."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_models import V, encoder
from toys import toy_model

import glassformer as gf
from glassformer import recipes
from glassformer.errors import DataError
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.tasks import Diffusion
from glassformer.tasks.diffusion import NoisyBatches, even_levels, hidden

MASK = 3
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 40


class Counts(torch.nn.Module):
    """An encoder whose logits depend on how many tokens are hidden, and on nothing else: the bound is then known."""

    def forward(self, ids_BT):
        n_B = (ids_BT == MASK).sum(dim=1)
        return (n_B[:, None, None] / ids_BT.shape[1]).expand(*ids_BT.shape, V).double()

    def token_logits(self, x):  # token 10 is more likely the more is hidden
        return torch.nn.functional.one_hot(torch.tensor(10), V) * x


def opened(recipe: str, text):
    return recipes.opening.open_task(recipes.read_recipe(recipe, [], {"data": {"source": str(text)}}))[0]


def exact(T: int, text: torch.Tensor) -> float:
    """The mean over k = 1 ... T of T / k times the expected loss of k hidden tokens."""
    tens, total = int((text == 10).sum()), 0.0
    for k in range(1, T + 1):
        z = math.log(math.exp(k / T) + V - 2)  # without the mask
        total += T / k * k * (z - tens / T * k / T) / T
    return total


def test_the_loss_is_the_mean_over_all_noise_levels():
    """By hand for a model whose answers depend on the level; 4,000 batches of one window, each level equally often."""
    text, task, random = (
        torch.tensor([10, 11, 10, 12, 13, 10, 14]),
        Diffusion(mask_token=MASK),
        np.random.default_rng(5),
    )
    T, n = len(text), 4_000
    batch = task.collate([text.numpy()] * n, random)
    total, count, _ = task.loss(Counts(), batch)
    assert count == n * T
    spread = task.rows(Counts(), batch).sums_B.std().item() / math.sqrt(n)
    assert abs(total.item() / n - exact(T, text)) < 4 * spread + 1e-3  # false alarm: less than 1 in 10,000


def test_independent_masks_with_weight_1_over_t_have_the_same_mean():
    """Each token hidden with probability t, t uniform, weight 1/t (MDLM), against exactly k hidden, weight T / k."""
    model, task, random = (
        encoder("modern", token_head="vocabulary"),
        Diffusion(mask_token=MASK),
        np.random.default_rng(0),
    )
    ids_BT = torch.from_numpy(random.integers(10, V, size=(1, 6))).expand(20_000, 6)
    t_B1 = torch.from_numpy((np.arange(20_000) + random.random(20_000)) / 20_000)[:, None]
    shown_BT = ids_BT.masked_fill(torch.from_numpy(random.random(ids_BT.shape)) < t_B1, MASK)
    with torch.no_grad():
        losses_BT, _ = task.token_losses(model, shown_BT, ids_BT)
        theirs_B = losses_BT.sum(dim=1) / t_B1[:, 0]
        ours_B = task.rows(model, task.collate(ids_BT.numpy(), random)).sums_B
    error = math.hypot(theirs_B.std().item(), ours_B.std().item()) / math.sqrt(20_000)
    assert abs(theirs_B.mean() - ours_B.mean()) < 4 * error
    assert ours_B.std() < 0.7 * theirs_B.std()  # why it is done


def test_the_mask_is_never_an_answer_and_what_is_shown_costs_nothing():
    model, task = encoder("modern", token_head="vocabulary"), Diffusion(mask_token=MASK)
    with torch.no_grad():
        model.head.weight.mul_(0.1).data[MASK] += 5.0 * model.head.weight.mean(dim=0).sign()
        ids_BT = torch.arange(10, 18)[None]
        shown_BT = ids_BT.clone()
        shown_BT[0, [1, 4]] = MASK
        losses_BT, hits_BT = task.token_losses(model, shown_BT, ids_BT)
        logits_BTV = model.token_logits(model(shown_BT))
    logits_BTV[..., MASK] = -math.inf
    expected = -logits_BTV.log_softmax(dim=-1)[0, [1, 4]].gather(1, ids_BT[0, [1, 4], None])[:, 0]
    torch.testing.assert_close(losses_BT[0, [1, 4]], expected)
    assert losses_BT.count_nonzero() == 2 and hits_BT.sum() <= 2


def test_every_level_comes_equally_often_and_a_batch_is_spread_evenly():
    random = np.random.default_rng(1)
    ids_BT = torch.arange(16)[None].expand(8, 16)
    counts = np.zeros(17)
    for _ in range(200):
        numbers = (hidden(ids_BT, even_levels(8, random), random, -1) == -1).sum(dim=1).tolist()
        assert all(1 <= n <= 16 for n in numbers) and all(b - a in (1, 2, 3) for a, b in pairwise(numbers))
        counts[numbers] += 1
    assert counts[0] == 0 and counts[1:].min() > 60  # 100 each expected
    places = sum((hidden(ids_BT, np.full(8, 0.2), random, -1) == -1).sum(dim=0) for _ in range(200))
    assert places.min() > 320 and places.max() < 480  # 400 each: 4 of 16 in 1,600 windows


def test_ranks_read_parts_of_what_one_process_reads(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    task = opened("shakespeare-diffusion", tmp_path / "text.txt")
    view = task.view("train")
    shape = {"block_size": 16, "seed": 7}
    one = NoisyBatches(view, task.mask_token, batch_size=6, **shape)
    parts = [NoisyBatches(view, task.mask_token, batch_size=3, rank=rank, world_size=2, **shape) for rank in (0, 1)]
    for _ in range(3):
        whole = next(one)
        for ours, both in zip(whole, zip(*(next(part) for part in parts), strict=True), strict=True):
            assert torch.equal(ours, torch.cat(both))
    other = NoisyBatches(view, task.mask_token, batch_size=6, **shape)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(next(one), next(other), strict=True))


def test_windows_of_unequal_length_are_one_clear_line():
    task = Diffusion(mask_token=MASK)
    with pytest.raises(DataError, match="equal length"):
        task.collate([[10, 11], [10]], np.random.default_rng(0))
    with pytest.raises(DataError, match="needs 1"):
        task.collate([], np.random.default_rng(0))


WORDS = [
    "model.n_layer=1",
    "model.n_head=2",
    "model.head_width=8",
    "model.n_embd=16",
    "model.n_hidden=32",
    "model.block_size=16",
    "training.batch_size=8",
    "training.eval_every=4",
    "training.sample_every=4",
    "training.sample_tokens=20",
    "training.checkpoint_every=4",
    "training.dropout=0.1",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    words = [*WORDS, "training.steps=150", "training.eval_every=150", "training.sample_every=0"]
    return recipes.train(
        "shakespeare-diffusion", words, data=str(text), out=tmp_path_factory.mktemp("run") / "run"
    ).path


def test_a_run_resumes_to_the_bit(text, tmp_path):
    words = [*WORDS, "training.steps=8"]
    whole, cut = (
        recipes.train("shakespeare-diffusion", words, data=str(text), out=tmp_path / name) for name in ("whole", "cut")
    )
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()


def test_it_learns_and_the_bound_is_measured_on_the_targets_of_an_autoregressive_model(run, text, glassformer):
    """So `runs A B` compares them window by window."""
    model, task = recipes.opening.open_run(run)
    bound = task.evaluate(model)
    assert bound["loss"].value < 2.6 < math.log(task.tokenizer.vocab_size)  # counts alone: about 2.9
    assert bound["loss"].n == len(task.view("validation")) - 1
    again = task.evaluate(model)
    assert again["loss"] == bound["loss"]  # the same noise each time
    autoregressive = opened("shakespeare-fast", text).evaluate(
        toy_model(vocab_size=model.config.vocab_size, block_size=16)
    )
    assert autoregressive.windows.targets == bound.windows.targets
    found = json.loads(glassformer("evaluate", run, "--json").out)
    levels = found["by_noise_level"]
    assert levels["loss"][0] < levels["loss"][-1] and len(levels["loss"]) == 10 and max(levels["accuracy"]) <= 1
    assert glassformer("evaluate", run).out.splitlines()[-1].startswith("(")


def test_the_folder_holds_the_model_and_its_tokenizer_has_a_mask(run, glassformer):
    model, tokenizer = gf.load(run)
    assert tokenizer.special_tokens["<mask>"] == tokenizer.vocab_size - 1 == model.config.vocab_size - 1
    assert glassformer("fill", run, "To <mask>e, or").out.startswith("mask 1: ")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["task.noise_levels=0"], ["noise_levels", "1"]),
        (["task.noise_level=4"], ["noise_levels"]),
        (["model.kind=decoder"], ["encoder"]),
        (["data.document_mask=true"], ["document_mask"]),
        (["tokenizer.kind=gpt2"], ["special tokens"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, words, names):
    refused("train", "shakespeare-diffusion", *words, code=2, names=names)


def test_a_tokenizer_of_your_own_needs_a_mask(refused, text, tmp_path):
    TOKENIZERS["characters"]([TEXT]).save(tmp_path / "plain")
    path = f"tokenizer.path={tmp_path / 'plain'}"
    (tmp_path / "r.toml").write_text(
        '[model]\nkind = "encoder"\nn_layer = 1\nn_embd = 16\nn_head = 2\n[task]\nkind = "diffusion"\n'
    )
    refused("train", tmp_path / "r.toml", path, "--data", text, code=2, names=["<mask>"])
