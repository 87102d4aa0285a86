"""One word in several sentences, against the stream as torch has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stacks import FAMILIES
from toys import toy_model

from glassformer.inspection import context
from glassformer.models import Encoder
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

TEXTS = ["a bad cat", "my cat sat", "no cat", "cat"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TOKENIZERS["characters"]([*TEXTS, "xyz"])


def unit_dots(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[float(a @ b / (a.norm() * b.norm())) for b in x] for a in x])


def stream_by_hand(model: Any, ids: list[int]) -> list[torch.Tensor]:
    """The stream behind each block, computed block by block."""
    pos = torch.arange(len(ids))
    x = model.embedding(torch.tensor([ids]), pos, model.positions)
    found = [x[0]]
    for block, pattern in zip(model.blocks, model.masks, strict=True):
        local = model.local_positions is not None and pattern.is_local
        x = block(x, pos, model.local_positions if local else model.positions, pattern)
        found.append(x[0])
    return found


@pytest.mark.parametrize("name", ["classic", "modern", "Gemma", "classic with n-grams", "encoder", "BERT"])
def test_cosines_and_neighbours_are_those_of_the_stream(name: str, tokenizer: Tokenizer):
    model = FAMILIES[name]()
    view = context(model, tokenizer, "cat", TEXTS, neighbours=4, layers=[0, 1, -1])
    L = len(model.blocks)
    places = [8, 5, 5, 2]  # of the last letter
    assert view.positions == places and view.tokens == ["t"] * 4 and view.cosine.shape == (L + 1, 4, 4)
    with torch.no_grad():
        streams = [stream_by_hand(model, tokenizer.encode(text)) for text in TEXTS]
        np.testing.assert_allclose(view.cosine[0], 1.0, atol=1e-6, err_msg="the same row of the table")
        entering = torch.stack([stream[0][place] for stream, place in zip(streams, places, strict=True)])
        np.testing.assert_allclose(view.entering, unit_dots(entering), atol=1e-5)
        for layer in range(1, L + 1):
            x = torch.stack([stream[layer][place] for stream, place in zip(streams, places, strict=True)])
            np.testing.assert_allclose(view.cosine[layer], unit_dots(x), atol=1e-5)
        assert view.cosine[-1].min() < 0.999, "apart at the end"
        table, V = model.embedding.token.weight, tokenizer.vocab_size
        normed = x if model.final_norm is None else model.final_norm(x)
        logits = model.token_logits(normed) if isinstance(model, Encoder) else model.logits(normed)
        for near in view.neighbours:
            if near.layer == L and near.by == "embedding":
                scores = F.cosine_similarity(x[near.text][None], table[:V])
            elif near.layer == L:
                scores = logits[near.text, :V].softmax(dim=-1)
            else:
                continue
            best = scores.topk(4)
            assert near.ids == best.indices.tolist()
            np.testing.assert_allclose(near.scores, best.values, atol=1e-5)
    first = next(near for near in view.neighbours if near.layer == 0)
    assert first.tokens[0] == "t" and first.scores[0] == pytest.approx(1, abs=1e-6)
    assert {(near.by, near.layer) for near in view.neighbours} == {
        ("embedding", 0), ("embedding", 1), ("embedding", L), ("head", 1), ("head", L),
    }  # fmt: skip


def test_only_what_stands_before_the_word_matters_to_a_decoder(tokenizer: Tokenizer):
    texts = ["a cat", "a cat sat"]
    decoder = context(toy_model("modern"), tokenizer, "cat", texts)
    np.testing.assert_allclose(decoder.cosine, 1.0, atol=1e-5)
    encoder = context(FAMILIES["encoder"](), tokenizer, "cat", texts)
    assert decoder.causal and not encoder.causal and encoder.cosine[-1, 0, 1] < 0.999


def test_learned_positions_tell_the_sentences_apart_before_any_block(tokenizer: Tokenizer):
    assert context(toy_model("classic"), tokenizer, "cat", TEXTS).entering.min() < 0.99
    assert context(toy_model("modern"), tokenizer, "cat", TEXTS).entering.min() > 1 - 1e-5


def test_an_encoder_decoder_is_asked_what_it_reads(tokenizer: Tokenizer):
    model = FAMILIES["translator of 2017"]()
    view = context(model, tokenizer, "cat", TEXTS)
    alone = context(model.encoder, tokenizer, "cat", TEXTS)
    np.testing.assert_allclose(view.cosine, alone.cosine, atol=1e-6)
    assert {near.by for near in view.neighbours} == {"embedding"}


def test_tokens_that_stand_around_every_text_move_the_word(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nmo\n##le\nran\n")
    bert = TOKENIZERS["wordpiece"](path=str(tmp_path / "vocab.txt"))
    model = FAMILIES["encoder"]()
    view = context(model, bert, "Mole", ["The Mole ran", "ran the Mole"])
    assert (view.positions, view.ids, view.tokens) == ([3, 4], [7, 7], ["le", "le"])
    with torch.no_grad():
        rows = [stream_by_hand(model, [2, *ids, 3])[-1] for ids in ([5, 6, 7, 8], [8, 5, 6, 7])]
    np.testing.assert_allclose(view.vectors[-1], torch.stack([rows[0][3], rows[1][4]]), atol=1e-5)


def test_of_a_word_of_several_tokens_the_last_is_taken():
    bpe = TOKENIZERS["bpe"](["low lower lowest " * 9], vocab_size=262)
    model = toy_model("classic", vocab_size=262, block_size=29)
    view = context(model, bpe, "lowest", ["the lowest", "lowest!"])
    for text, place, token in zip(view.texts, view.positions, view.ids, strict=True):
        ids = bpe.encode(text)
        assert ids[place] == token
        assert bpe.decode(ids[: place + 1]).endswith("lowest")
