"""What excites neurons and what they say, against all activations kept at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from play import PLAY
from stacks import FAMILIES, encoder
from toys import toy_model

from glassformer.inspection import neurons
from glassformer.layers import int8_copy
from glassformer.models import Encoder
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer
from glassformer.taps import listening

WINDOW = 11
TEXTS = [PLAY[:300], "x", PLAY[300:523]]
MODELS: dict[str, Any] = {
    "relu": lambda: toy_model("classic", activation="relu"),
    "untied": lambda: toy_model("classic", tied_head=False),
    **{name: FAMILIES[name] for name in ("modern", "Gemma", "OLMo 2", "encoder")},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TOKENIZERS["characters"]([PLAY + "x"], vocab_size=47)


def every_activation(model: Any, tokenizer: Tokenizer, layer: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """(N, F) of all counted tokens, window by window, and where each stands: the plain way."""
    kept, places = [], []
    skip = 0 if isinstance(model, Encoder) else 1
    for number, text in enumerate(TEXTS):
        ids = tokenizer.encode(text)
        for start in range(0, len(ids), WINDOW):
            piece = torch.tensor([ids[start : start + WINDOW]])
            with (
                torch.no_grad(),
                listening(
                    model, f"blocks.{layer}.feedforward.hidden", lambda name, x: kept.append(x[0, skip:].clone())
                ),
            ):
                model(piece)
            places += [(number, start + i) for i in range(skip, piece.shape[1])]
    return torch.cat(kept), places


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
@pytest.mark.parametrize("name", MODELS)
def test_the_highest_activations_and_the_sums(name: str, tokenizer: Tokenizer):
    model = MODELS[name]()
    h_NF, places = every_activation(model, tokenizer, 1)
    for neuron in (0, 7, -1):
        view = neurons(model, tokenizer, iter(TEXTS), layer=1, neuron=neuron, top=6, window=WINDOW)
        (one,) = view.neurons
        x_N = h_NF[:, neuron].double()
        best = x_N.topk(6)
        np.testing.assert_allclose([hit.value for hit in one.contexts], best.values, rtol=1e-4, atol=1e-5)
        for hit, index in zip(one.contexts, best.indices.tolist(), strict=True):
            assert (hit.text, hit.position) == places[index] or float(x_N[index]) == pytest.approx(
                float(x_N[places.index((hit.text, hit.position))]), abs=1e-5
            )
            ids = tokenizer.encode(TEXTS[hit.text])
            begin = hit.position // WINDOW * WINDOW
            around = ids[begin : begin + WINDOW][: hit.position - begin + 6]
            assert hit.tokens == [tokenizer.token_text(i) for i in around] and hit.at == hit.position - begin
        assert view.n_tokens == len(x_N) == len(places) and view.n_neurons == h_NF.shape[1]
        assert (one.mean, one.least, one.most) == pytest.approx(
            (float(x_N.mean()), float(x_N.min()), float(x_N.max())), rel=1e-4, abs=1e-5
        )
        assert one.std == pytest.approx(float(x_N.std(correction=0)), rel=1e-4)
        centred = x_N - x_N.mean()
        assert one.kurtosis == pytest.approx(float(centred.pow(4).mean() / centred.square().mean() ** 2 - 3), rel=1e-3)
        if view.gated:
            assert view.threshold == pytest.approx(float(h_NF[:10].square().mean().sqrt()), rel=1e-4), "first window"
            active = x_N.abs() > view.threshold
            lowest = x_N.topk(6, largest=False).values
            np.testing.assert_allclose([hit.value for hit in one.lowest], lowest, rtol=1e-4, atol=1e-5)
        else:
            assert view.threshold == 0 and not one.lowest
            active = x_N > 0
        assert one.active == pytest.approx(float(active.double().mean()), abs=1e-6)


def promoted_by_hand(model: Any, layer: int, n: int) -> torch.Tensor:
    """The neuron's column through the norms without their divisors, times the unembedding."""
    block = model.blocks[layer]
    w = block.feedforward.down.weight.detach()[:, n]
    if hasattr(block, "feedforward_norm_after"):
        w = w * (1 + block.feedforward_norm_after.weight.detach())
        w = w * (1 + model.final_norm.weight.detach())
    elif model.config.norm_place == "output":
        w = w * block.feedforward_norm.weight.detach() * model.final_norm.weight.detach()
    else:
        w = w - w.mean() if type(model.final_norm).__name__ == "LayerNorm" else w
        w = w * model.final_norm.weight.detach()
    return model.head.weight.detach() @ w * model.config.logit_scale


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
@pytest.mark.parametrize("name", MODELS)
def test_what_a_neuron_promotes(name: str, tokenizer: Tokenizer):
    model, n = MODELS[name](), 5
    (one,) = neurons(model, tokenizer, TEXTS, layer=0, neuron=n, window=WINDOW).neurons
    logits = promoted_by_hand(model, 0, n)[: tokenizer.vocab_size]
    for found, largest in ((one.promotes, True), (one.suppresses, False)):
        best = logits.topk(10, largest=largest)
        assert [token for token, _ in found] == [tokenizer.token_text(i) for i in best.indices.tolist()]
        np.testing.assert_allclose([value for _, value in found], best.values, rtol=1e-4, atol=1e-5)


def test_the_direction_is_what_one_unit_adds_with_the_norm_frozen(tokenizer: Tokenizer):
    """In the last layer, an activation raised by a unit moves the logits by the direction over the norm's divisor."""
    from glassformer.inspection import edit

    model, n, ids = toy_model("modern"), 5, torch.tensor([[3, 1, 4, 1, 5]])
    seen: dict[str, torch.Tensor] = {}
    eps = 1e-3
    with torch.no_grad():
        with listening(model, "blocks.1.residual.after", lambda name, x: seen.update({name: x})):
            before = model(ids)
        divisor = seen["blocks.1.residual.after"].double().square().mean(dim=-1).sqrt()[0, -1]
        with edit(model, "blocks.1.feedforward.hidden", lambda name, part: part + eps, F=n):
            after = model(ids)
    x = seen["blocks.1.residual.after"][0, -1].double()
    w = model.blocks[1].feedforward.down.weight.detach()[:, n].double()
    shrunk = float(x @ w) / (len(x) * float(divisor) ** 2)  # what the divisor itself does, which is frozen here
    logits = before[0, -1].double()
    expected = (promoted_by_hand(model, 1, n).double() / divisor - shrunk * logits) * eps
    np.testing.assert_allclose((after - before)[0, -1], expected, atol=2e-5)


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
def test_the_most_selective_neurons(tokenizer: Tokenizer):
    model = toy_model("modern")
    h_NF, _ = every_activation(model, tokenizer, 0)
    centred = h_NF.double() - h_NF.double().mean(dim=0)
    kurtosis = centred.pow(4).mean(dim=0) / centred.square().mean(dim=0) ** 2 - 3
    view = neurons(model, tokenizer, TEXTS, layer=0, top=4, window=WINDOW)
    assert [n.neuron for n in view.neurons] == kurtosis.topk(4).indices.tolist()
    assert all(len(n.contexts) == 3 for n in view.neurons)
    silent = toy_model("classic", activation="relu")
    with torch.no_grad():
        silent.blocks[0].feedforward.up.weight[2] = 0
        silent.blocks[0].feedforward.up.bias[2] = -1
    view = neurons(silent, tokenizer, TEXTS, layer=0, neuron=2, window=WINDOW)
    assert view.silent >= 1 and view.neurons[0].active == 0 and view.neurons[0].kurtosis == 0


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
def test_it_stops_at_max_tokens_and_reads_an_endless_iterable(tokenizer: Tokenizer):
    def endless():
        while True:
            yield PLAY[:100]

    view = neurons(toy_model("classic"), tokenizer, endless(), layer=-1, neuron=3, window=WINDOW, max_tokens=250)
    assert view.layer == 1 and view.n_texts == 3 and 200 < view.n_tokens < 250
    long = neurons(toy_model("classic"), tokenizer, PLAY * 50, layer=-1, neuron=3, window=WINDOW, max_tokens=110)
    assert long.n_tokens == 100, "ten windows less their first tokens"


def test_tokens_that_stand_around_every_text_are_read_and_not_counted(tmp_path: Path):
    """[CLS] and [SEP] of BERT, the start token of Llama: in the window, not in the sums; words have their spaces."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "king", "##s", "said", "no"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    bert = TOKENIZERS["wordpiece"](path=str(tmp_path / "vocab.txt"))
    model, text = MODELS["encoder"](), "the kings said no no the king"
    kept: list[torch.Tensor] = []
    ids = bert.encode(text)
    for piece in (ids[:5], ids[5:]):
        with torch.no_grad(), listening(model, "blocks.1.feedforward.hidden", lambda name, x: kept.append(x[0, 1:-1])):
            model(torch.tensor([[2, *piece, 3]]))
    view = neurons(model, bert, text, layer=1, neuron=4, window=7)
    x_N = torch.cat(kept)[:, 4]
    assert view.n_tokens == len(x_N) == len(ids) == 8 and view.skipped == 0
    assert [hit.value for hit in view.neurons[0].contexts] == pytest.approx(
        sorted(x_N.tolist(), reverse=True), abs=1e-5
    )
    first = next(hit for hit in view.neurons[0].contexts if hit.position == 0)
    assert "".join(first.tokens) == " the kings said no"

    llama = TOKENIZERS["characters"](["the king"])
    llama.__dict__["frame"] = ([5], [])
    model, kept = toy_model("modern"), []
    with torch.no_grad(), listening(model, "blocks.0.feedforward.hidden", lambda name, x: kept.append(x[0, 1:])):
        model(torch.tensor([[5, *llama.encode("the king")]]))
    view = neurons(model, llama, "the king", layer=0, neuron=4)
    assert view.n_tokens == 8 and view.skipped == 0
    assert view.neurons[0].most == pytest.approx(float(kept[0][:, 4].max()), abs=1e-5)


def test_what_is_left_out_has_a_reason(tokenizer: Tokenizer):
    silent = encoder(token_head="none")
    view = neurons(silent, tokenizer, "the king", layer=0, neuron=1)
    assert not view.neurons[0].promotes and "no unembedding" in view.direction


def test_a_compressed_model_and_the_mode_that_it_was_in(tokenizer: Tokenizer):
    model = int8_copy(toy_model("modern")).train()
    assert neurons(model, tokenizer, "the king said", layer=1, neuron=4).neurons[0].promotes
    assert model.training
