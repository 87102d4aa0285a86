"""Fine-tuning: logits of trained tokens alone, a reference without a copy, samples, and one story from end to end."""

import pytest
import torch

from glassformer.data.batches import IGNORED
from glassformer.hub.adapters import new_adapter
from glassformer.layers.lora import lora_layers
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import GRPO, SFT, NextToken, losses
from glassformer.tasks.losses import token_log_probs

SHAPE = {"vocab_size": 61, "block_size": 32, "n_layer": 2, "n_head": 3, "n_embd": 18}


def decoder(**fields):
    torch.manual_seed(4)
    return Decoder(ModelConfig.make(family="modern", **SHAPE, **fields))


def batch():
    ids = torch.randint(0, 61, (3, 12), generator=torch.Generator().manual_seed(2))
    targets = ids.roll(-1, dims=1)
    targets[:, :7] = IGNORED
    targets[1] = IGNORED  # a row of which nothing is trained
    targets[2, 9:] = IGNORED
    return ids, targets


@pytest.mark.parametrize("fields", [{}, {"logit_softcap": 5.0}, {"tied_head": False}], ids=str)
@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["in pieces", "at once"])
def test_logits_of_trained_tokens_alone_give_the_loss_and_gradients_of_all(fields, piece, monkeypatch):
    monkeypatch.setitem(losses.PIECE_BYTES, "cpu", 4 * 61 * piece)
    found = []
    for task in (SFT(), NextToken()):
        model = decoder(**fields)
        total, count, _ = task.loss(model, batch())
        total.backward()
        rows = task.rows(model, batch())
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append((total.detach(), torch.tensor(count), gradients, *rows))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert found[0][1] == 7


def test_with_lora_the_reference_is_the_model_without_its_adapters():
    model = decoder().eval()
    inputs, targets = batch()
    with torch.no_grad():
        before = token_log_probs(model, inputs, targets)
    new_adapter(model, "all", rank=2, alpha=4.0)
    for _, layer in lora_layers(model):
        for b in layer.lora_b:
            torch.nn.init.normal_(b)
    task = GRPO(reward="math:fsum")
    task.begin(model)
    assert torch.equal(task.log_probs(task.reference_model(), inputs, targets), before)
    assert not torch.allclose(task.log_probs(model, inputs, targets), before)
    weights = {tensor.data_ptr() for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in task.reference_model().parameters()} <= weights
