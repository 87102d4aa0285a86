"""The readable GPT: short enough for one sitting, and equal to `Decoder`, in logits, loss, gradients and start."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F

from glassformer.errors import UsageError
from glassformer.models import Decoder, ModelConfig, gpt
from glassformer.models.gpt import GPT, GPTConfig

SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 3, "n_head": 2, "n_embd": 12}
FORMS = {
    "gpt2": {},
    "no biases": {"bias": False},
    "lesson 8": {"tied_head": False, "activation": "relu"},
}


def decoder_of(form: str) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(ModelConfig.make(**SHAPE, **FORMS[form]))
    with torch.no_grad():
        for parameter in model.parameters():  # so that no norm is the identity and no bias zero
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_it_is_read_in_one_sitting_and_needs_torch_alone():
    source = inspect.getsource(gpt)
    assert len(source.splitlines()) <= 200
    imports = [line for line in source.splitlines() if "glassformer" in line and "import" in line]
    assert imports == ["from glassformer.errors import UsageError"]


@pytest.mark.parametrize("form", FORMS)
def test_it_equals_the_decoder(form):
    decoder, ids = decoder_of(form), torch.randint(61, (4, 13), generator=torch.Generator().manual_seed(1))
    twin = GPT.of(decoder)
    torch.testing.assert_close(twin(ids), decoder(ids), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in twin.parameters()) == decoder.parameter_count()
    theirs = F.cross_entropy(decoder(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    ours = twin.loss(ids)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    gradients = dict(decoder.named_parameters())
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_planted_change_of_one_weight_is_noticed():
    decoder, ids = decoder_of("gpt2"), torch.arange(13)[None]
    twin = GPT.of(decoder)
    with torch.no_grad():
        decoder.blocks[1].attention.qkv.weight[0, 0] += 0.5
    assert not torch.allclose(twin(ids), decoder(ids), atol=1e-5)


def test_both_start_from_weights_of_the_same_scale():
    ours, theirs = GPT(GPTConfig(**SHAPE)), Decoder(ModelConfig.make(**SHAPE))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert a.shape == b.shape, name
        if a.dim() == 2 and a.numel() > 100:
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.35), name
        elif a.dim() == 1:
            assert torch.equal(a, b), name


def test_it_learns_and_writes_beyond_its_window():
    torch.manual_seed(2)
    model, texts = GPT(GPTConfig(**SHAPE)), torch.arange(14).repeat(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = model.loss(texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    written = model.generate(torch.tensor([[0]]), 20, temperature=0.1)
    assert written.shape == (1, 21) and written[0, :13].tolist() == list(range(13))


@pytest.mark.parametrize(
    "fields", [{"family": "modern"}, {"patterns": ("window(3)",)}, {"n_hidden": 7}, {"norm_eps": 1e-6}]
)
def test_another_form_of_decoder_is_refused(fields):
    with pytest.raises(UsageError, match="classic"):
        GPT.of(Decoder(ModelConfig.make(**SHAPE, **fields)))
