"""A batch without its padding, in one row: the losses and gradients of the batch as it is, from fewer tokens."""

from __future__ import annotations

import pytest
import torch
from toys import toy_ids

from glassformer.data.packing import PADDING
from glassformer.models import Decoder, ModelConfig, decoder
from glassformer.tasks import SFT
from glassformer.tasks.losses import token_log_probs

T = 90
POSITIONS = [{"family": "classic"}, {"family": "modern"}, {"family": "modern", "positions": "alibi"}]
MASKS = [
    {},
    {"patterns": ("window(20)",)},
    {"patterns": ("window(9) | sinks(2)", "causal")},
    {"attention_softcap": 5.0, "n_kv_head": 1},
]


def model_of(fields: dict[str, object]) -> Decoder:
    torch.manual_seed(3)
    shape = {"vocab_size": 61, "block_size": T, "n_layer": 2, "n_head": 3, "n_embd": 18}
    return Decoder(ModelConfig.make(**shape, **{"family": "modern", **fields})).double()


def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that have their last target at places 90, 40, none and 71; a place within is not trained."""
    ids_BT = toy_ids(4, T + 1)
    targets_BT = ids_BT[:, 1:].clone()
    for row, last in enumerate((90, 40, 0, 71)):
        targets_BT[row, last:] = -100
        targets_BT[row, 5:9] = -100
    return ids_BT[:, :-1], targets_BT


def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    inputs_BT, targets_BT = ragged()
    rows = [0] * 50 + [1] * 40, [0] * 90, [0] * 90, [0] * 39 + [1] + [2] * 31 + [PADDING] * 19
    documents_BT = torch.tensor(rows)
    return inputs_BT, documents_BT, targets_BT


def both_ways(monkeypatch, model: Decoder, batch: tuple[torch.Tensor, ...]) -> list[list[torch.Tensor]]:
    """Loss and gradients, in one row and as it is."""
    found, tokens = [], []
    for least in (decoder.LEAST_DOCUMENT, 10**9):
        monkeypatch.setattr(decoder, "LEAST_DOCUMENT", least)
        read = model.embedding.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].numel()))
        total = SFT().loss(model, batch).sum
        read.remove()
        found.append([total.detach(), *torch.autograd.grad(total, list(model.parameters()))])
    assert tokens == [201, 4 * T]
    return found


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_padding_is_not_computed(monkeypatch, positions, mask):
    torch.testing.assert_close(*both_ways(monkeypatch, model_of({**positions, **mask}), ragged()))


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_packed_documents_are_attended_to_one_by_one(monkeypatch, positions, mask):
    torch.testing.assert_close(*both_ways(monkeypatch, model_of({**positions, **mask}), packed()))


def test_log_probs_and_rows_are_the_same(monkeypatch):
    model, (inputs_BT, targets_BT) = model_of({}), ragged()
    found = []
    for least in (decoder.LEAST_DOCUMENT, 10**9):
        monkeypatch.setattr(decoder, "LEAST_DOCUMENT", least)
        found.append((token_log_probs(model, inputs_BT, targets_BT), *SFT().rows(model, (inputs_BT, targets_BT))))
    torch.testing.assert_close(*found)


def test_where_nothing_is_saved_the_batch_stays():
    ids_BT, _ = ragged()
    lengths = torch.tensor([90, 88, 90, 89])
    assert decoder.one_row(ids_BT, None, lengths) is None  # 1 % of it
    assert decoder.one_row(ids_BT, None, torch.tensor([90, 3, 4, 5])) is None  # short ones
    assert decoder.one_row(ids_BT, None, torch.zeros(4)) is None
    in_pieces = torch.tensor([0, 1] * 45).expand(4, T)
    assert decoder.one_row(ids_BT, in_pieces, None) is None
