"""Encoder and decoder: the source is felt everywhere, the future nowhere; in pieces as in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import shaken, toy_ids

from glassformer.errors import UsageError
from glassformer.models import EncoderDecoder, EncoderDecoderConfig, parameter_count
from glassformer.taps import listening

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "block_size": 13,
    "n_layer": 2,
    "n_decoder_layer": 3,
    "n_head": 3,
    "n_embd": 18,
    "n_hidden": 23,
    "start_token": 1,
    "end_token": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "2017": {"family": "original"},
    "T5": {"family": "classic", "norm": "rmsnorm", "positions": "relative", "bias": False, "attention_scale": 1.0},
    "modern": {"family": "modern", "n_head": 6, "n_kv_head": 2, "head_width": 10},
    "sandwich": {"family": "classic", "norm": "zero_centered_rmsnorm", "norm_place": "sandwich", "qk_norm": True},
    "output-norm": {"family": "modern", "norm_place": "output", "qk_norm_over": "all", "qkv_bias": True},
    "own tables": {"family": "classic", "source_vocab_size": 47},
}
KIND = pytest.mark.parametrize("kind", KINDS)


def toy(kind: str = "2017", **changes: Any) -> EncoderDecoder:
    return shaken(EncoderDecoder(EncoderDecoderConfig.make(**{**SHAPE, **KINDS[kind], **changes}))).eval()


def sources() -> tuple[torch.Tensor, torch.Tensor]:
    return toy_ids(2, 9, vocab_size=47), torch.tensor([9, 4])


@KIND
def test_in_pieces_as_in_one(kind: str):
    model, (source_BS, lengths_B), target_BT = toy(kind), sources(), toy_ids(2, 7, seed=1)
    whole = model(source_BS, target_BT, lengths_B)
    memory, cache = model.encode(source_BS, lengths_B), model.new_cache(2)
    pieces = [model.decode(piece, memory, cache=cache) for piece in target_BT.split([3, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert len(cache.crossed) == 3, "keys and values of the memory are computed once a layer"


@KIND
def test_the_source_is_felt_and_its_padding_is_not(kind: str):
    model, (source_BS, lengths_B), target_BT = toy(kind), sources(), toy_ids(2, 7, seed=1)
    whole = model(source_BS, target_BT, lengths_B)
    alone = model(source_BS[1:, :4], target_BT[1:])
    torch.testing.assert_close(whole[1:], alone, rtol=1e-4, atol=1e-4)
    padded, real = source_BS.clone(), source_BS.clone()
    padded[1, 4:] = (padded[1, 4:] + 1) % 47
    real[1, 3] = (real[1, 3] + 1) % 47
    assert torch.equal(model(padded, target_BT, lengths_B), whole)
    felt = (model(real, target_BT, lengths_B) - whole).abs().amax(dim=-1)
    assert (felt[0] == 0).all() and (felt[1] > 1e-6).all()


@KIND
def test_the_future_of_the_target_is_not_felt(kind: str):
    model, (source_BS, lengths_B), target_BT = toy(kind), sources(), toy_ids(2, 7, seed=1)
    other = target_BT.clone()
    other[:, 5] = (other[:, 5] + 1) % 61
    before, after = model(source_BS, target_BT, lengths_B), model(source_BS, other, lengths_B)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5], after[:, 5])


@KIND
def test_rows_of_the_cache_move_together(kind: str):
    """Beam search: after `reorder` each row goes on as the row that it became."""
    model, (source_BS, lengths_B), target_BT = toy(kind), sources(), toy_ids(2, 7, seed=1)
    memory, cache, rows = model.encode(source_BS, lengths_B), model.new_cache(2), torch.tensor([1, 1, 0])
    model.decode(target_BT[:, :4], memory, cache=cache)
    cache.reorder(rows)
    went_on = model.decode(target_BT[rows, 4:], memory.rows(rows), cache=cache)
    whole = model(source_BS, target_BT, lengths_B)[rows, 4:]
    torch.testing.assert_close(went_on, whole, rtol=1e-4, atol=1e-4)
    twice = memory.repeat(2)
    assert twice.vectors_BSC.shape[0] == 4 and twice.lengths_B is not None and twice.lengths_B.tolist() == [9, 9, 4, 4]


@KIND
def test_listening_changes_nothing_and_shows_where_it_looks(kind: str):
    model, (source_BS, lengths_B), target_BT = toy(kind), sources(), toy_ids(2, 7, seed=1)
    seen: dict[str, torch.Tensor] = {}
    with listening(model, "decoder.*.cross_attention.pattern", lambda name, x: seen.update({name: x})):
        watched = model(source_BS, target_BT, lengths_B)
    torch.testing.assert_close(watched, model(source_BS, target_BT, lengths_B), rtol=1e-4, atol=1e-4)
    assert list(seen) == [f"decoder.blocks.{layer}.cross_attention.pattern" for layer in range(3)]
    for pattern_BHTS in seen.values():
        torch.testing.assert_close(pattern_BHTS.sum(dim=-1), torch.ones(pattern_BHTS.shape[:3]))
        assert not pattern_BHTS[1, :, :, 4:].any(), "nobody looks at padding"


@KIND
def test_parameters_are_counted_and_used(kind: str):
    model, (source_BS, lengths_B) = toy(kind), sources()
    assert parameter_count(model.config) == model.parameter_count()
    assert EncoderDecoderConfig.model_validate(model.config.model_dump()) == model.config
    model(source_BS, toy_ids(2, 7), lengths_B).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_table_for_reading_writing_and_answering():
    model = toy("2017")
    table = model.decoder.embedding.token.weight
    assert model.encoder.embedding.token.weight is table and model.decoder.head.weight is table
    assert toy("own tables").encoder.embedding.token.weight.shape == (47, 18)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_token": 61}, "start_token=61 is not one of the decoder's 61 tokens"),
        (
            {"source_vocab_size": 47, "shared_embedding": True},
            "shared_embedding needs one vocabulary, not 47 and 61 tokens",
        ),
        ({"n_embd": 19}, "n_embd=19 is not divisible by n_head=3; try n_embd=18"),
        ({"parallel": True}, "use parallel=false"),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], message: str):
    with pytest.raises(UsageError) as error:
        EncoderDecoderConfig.make(**{**SHAPE, "family": "classic", **changes})
    assert message in str(error.value) and "\n" not in str(error.value)
