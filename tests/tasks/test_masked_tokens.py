"""Masked tokens: which are asked for, what is shown instead, and that the head is asked there alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SHAPE, V
from torch import nn
from toys import shaken

from glassformer.errors import UsageError
from glassformer.models import Encoder, EncoderConfig
from glassformer.tasks import MaskedTokens

START, END, PAD, MASK = 1, 2, 0, 3
SPECIAL = (PAD, START, END)


class ToyEncoder(nn.Module):
    """Each vector is its token's, plus the mean of the sequence."""

    def __init__(self):
        super().__init__()
        self.table, self.mix, self.token_head = nn.Embedding(V, 5), nn.Linear(5, 5), nn.Linear(5, V)

    def forward(self, ids_BT, lengths_B):
        x_BTC = self.table(ids_BT)
        counts_BT1 = (torch.arange(x_BTC.shape[1]) < lengths_B[:, None]).unsqueeze(2)
        return torch.tanh(x_BTC + self.mix(x_BTC.where(counts_BT1, 0).sum(dim=1, keepdim=True) / 9))

    def token_logits(self, vectors):
        return self.token_head(vectors)


def toy_encoder() -> ToyEncoder:
    return shaken(ToyEncoder()).double()


def masking(**changes) -> MaskedTokens:
    return MaskedTokens(**{"mask_token": MASK, "vocab_size": V, "special_tokens": SPECIAL, **changes})


def texts(n: int = 9) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [np.array([START, *random.integers(4, V, 3 + 7 * i), END]) for i in range(n)]


def test_all_that_was_hidden_is_asked_for_and_nothing_else_was_changed():
    inputs, lengths, targets = masking().collate(texts(), np.random.default_rng(0))
    original, its_lengths = torch.full_like(inputs, PAD), [len(ids) for ids in texts()]
    for row, ids in enumerate(texts()):
        original[row, : len(ids)] = torch.from_numpy(ids)
    assert lengths.tolist() == its_lengths
    assert torch.equal(torch.where(targets == -100, inputs, targets), original)
    assert not torch.isin(targets, torch.tensor([*SPECIAL, MASK])).any()
    assert (targets != -100).sum(dim=1).tolist() == [max(1, round(0.15 * (3 + 7 * i))) for i in range(9)]


def test_a_text_of_special_tokens_asks_nothing_and_costs_nothing():
    inputs, _, targets = batch = masking().collate([[START, MASK, END]], np.random.default_rng(0))
    assert inputs.tolist() == [[START, MASK, END]] and (targets == -100).all()
    loss, count, _ = masking().loss(toy_encoder(), batch)
    assert loss.item() == 0 and count == 0


def test_eighty_ten_ten():
    """20,000 hidden tokens in one text of 133,333. Shares 0.8, 0.1, 0.1 have deviations 0.0028, 0.0021, 0.0021; of the
    random ones 1 in 57 (the ordinary tokens) is the token itself. 5 deviations: a false alarm once in 600,000 (and the
    seed is set)."""
    ids = np.random.default_rng(4).integers(4, V, 133_333)
    shown, targets = masking().mask(ids, np.random.default_rng(0))
    asked = targets != -100
    assert asked.sum() == 20_000
    stay = 0.1 + 0.1 / 57
    masked, same = (shown[asked] == MASK).mean(), (shown[asked] == ids[asked]).mean()
    for seen, share in ((masked, 0.8), (same, stay), (1 - masked - same, 0.2 - stay)):
        assert abs(seen - share) < 5 * math.sqrt(share * (1 - share) / 20_000)
    randomised = shown[asked & (shown != MASK) & (shown != ids)]
    counts = np.bincount(randomised, minlength=V)
    assert counts[:4].sum() == 0  # never a special one
    mean = len(randomised) / 57
    assert (abs(counts[4:] - mean) < 6 * math.sqrt(mean)).all()  # a false alarm once in 8 million for all 57


def test_every_place_is_chosen_equally_often():
    """Of 20 places 3 are chosen, 20,000 times: 3,000 each, deviation 50; 6 deviations at 20 places: one false alarm in
    25 million (and the seed is set)."""
    random, seen = np.random.default_rng(0), np.zeros(20)
    for _ in range(20_000):
        seen += masking().mask(np.arange(4, 24), random)[1] != -100
    assert seen.sum() == 60_000 and (abs(seen - 3_000) < 6 * math.sqrt(20_000 * 0.15 * 0.85)).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"masked": 1.0, "randomised": 0.0}, "all masks"), ({"masked": 0.0, "randomised": 0.0}, "as they are")],
)
def test_shares_can_be_set(settings, expected):
    ids = np.arange(4, 54)
    shown, targets = masking(**settings).mask(ids, np.random.default_rng(0))
    asked = targets != -100
    assert asked.sum() == round(0.15 * 50)
    assert (shown[asked] == (MASK if expected == "all masks" else ids[asked])).all()


def test_the_head_is_asked_where_there_are_targets_and_nowhere_else():
    model, batch = toy_encoder(), masking().collate(texts(), np.random.default_rng(0))
    (inputs, lengths, targets), heard = batch, []
    hook = model.token_head.register_forward_hook(lambda _, given, text: heard.append((given[0].shape, text.shape)))
    loss, count, _ = masking().loss(model, batch)
    hook.remove()
    assert heard == [((count, 5), (count, V))] and count == int((targets != -100).sum())
    whole = model.token_logits(model(inputs, lengths))
    true = F.cross_entropy(whole.mT, targets, reduction="sum", ignore_index=-100)
    torch.testing.assert_close(loss, true, rtol=1e-12, atol=0)
    rows = masking().rows(model, batch)
    each = F.cross_entropy(whole.mT, targets, reduction="none", ignore_index=-100)
    torch.testing.assert_close(rows.sums_B, each.sum(dim=1), rtol=1e-12, atol=0)
    assert rows.counts_B.tolist() == (targets != -100).sum(dim=1).tolist()
    assert rows.correct_B.tolist() == (whole.argmax(-1) == targets).sum(dim=1).tolist()


def test_compiled_it_is_the_same_and_one_graph_serves_all_masks():
    """Which places are asked for differs from batch to batch; shapes must not, or each would be compiled anew."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    model, asked, ids = toy_encoder(), masking(), texts()
    compiled = torch.compile(lambda *batch: asked.loss(model, batch)[:2], dynamic=False, backend=backend)
    for seed in range(3):
        batch = asked.collate(ids, np.random.default_rng(seed))
        loss, count = compiled(*batch)
        plain, plain_count, _ = asked.loss(model, batch)
        torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
        assert count == plain_count
    assert len(graphs) == 1
    values = [node.meta.get("example_value") for node in graphs[0].graph.nodes]
    numbers = [x for x in values if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 2]
    logits = {tuple(x.shape) for x in numbers if x.shape[1] == V}
    assert batch[0].shape == (9, 61) and logits == {(9 * 9, V)}  # 15 in 100 of 61 places, in 9 rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0}, r"^task\.share=0 is too small; use more than 0$"),
        ({"share": 1}, r"^task\.share=1 is too large; use less than 1$"),
        (
            {"masked": 0.95},
            r"^task\.masked=0\.95 and task\.randomised=0\.1 are .* 1; try .*randomised=0\.05$",
        ),
        ({"chance": 0.5}, r"^unknown key task\.chance"),
        ({"special_tokens": range(V)}, r"^all 61 tokens of the vocabulary are special"),
    ],
)
def test_impossible_settings_are_one_clear_line(settings, message):
    with pytest.raises(UsageError, match=message):
        masking(**settings)


def test_what_is_masked_is_found_from_both_sides():
    """Texts count upwards from anywhere. Of the first tokens, which only what stands behind them tells, more than half
    are found after 60 steps; one that reads from left to right would guess 1 in 50."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Encoder(EncoderConfig.make(family="modern", token_head="vocabulary", **{**SHAPE, "n_layer": 1}))
    asked = MaskedTokens(mask_token=3, vocab_size=61, special_tokens=(0, 1, 2), share=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        batch = asked.collate([np.arange(start, start + 7) for start in random.integers(4, 54, 64)], random)
        loss, count, _ = asked.loss(model, batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    inputs = torch.stack([torch.arange(start, start + 7) for start in range(4, 54)])
    targets = torch.full_like(inputs, -100)
    targets[:, 0], inputs[:, 0] = inputs[:, 0], 3
    rows = asked.rows(model.eval(), (inputs, torch.full((50,), 7), targets))
    assert rows.counts_B.tolist() == [1] * 50 and rows.correct_B.sum() > 25
