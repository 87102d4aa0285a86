"""From one lesson to the next: what is new does what it says, and all else is as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from glassformer.lessons import lesson_2_averaging as lesson_2
from glassformer.lessons import lesson_3_head as lesson_3
from glassformer.lessons import lesson_4_heads as lesson_4
from glassformer.lessons import lesson_5_feedforward as lesson_5
from glassformer.lessons import lesson_6_blocks as lesson_6
from glassformer.lessons import lesson_7_layernorm as lesson_7
from glassformer.lessons import lesson_9_glassformer as lesson_9
from glassformer.models.gpt import GPT

B, T, C = 3, 7, 32
x_BTC = torch.randn(B, T, C, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


def test_a_head_whose_scores_are_nought_averages_the_past():
    head = lesson_3.Head(C)
    nn.init.zeros_(head.query.weight)
    nn.init.eye_(head.value.weight)
    assert torch.allclose(head(x_BTC), lesson_2.average_by_loop(x_BTC), atol=1e-6)


def test_a_head_is_scaled_dot_product_attention():
    head = lesson_3.Head(5)
    q, k, v = head.query(x_BTC), head.key(x_BTC), head.value(x_BTC)
    assert torch.allclose(head(x_BTC), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6)
    assert torch.allclose(head.weights.sum(dim=-1), torch.ones(B, T))
    assert head.weights.triu(diagonal=1).count_nonzero() == 0


def test_without_the_root_the_scores_vary_as_the_head_is_wide():
    """Of 16 x 256 x 256 products; a variance that far off has odds of less than one in a million."""
    for width in (16, 64):
        q, k = torch.randn(2, 16, 256, width)
        scores = q @ k.transpose(-2, -1)
        assert scores.var().item() == pytest.approx(width, rel=0.05)
        assert (scores * width**-0.5).var().item() == pytest.approx(1, rel=0.05)


def test_the_heads_of_lesson_6_are_those_of_lesson_4_in_one_product():
    apart, together = lesson_4.MultiHeadAttention(), lesson_6.MultiHeadAttention()
    weights = {
        f"{part}.weight": torch.cat([getattr(head, part).weight for head in apart.heads])
        for part in ("query", "key", "value")
    }
    together.load_state_dict({**weights, "projection.weight": torch.eye(C), "projection.bias": torch.zeros(C)})
    assert torch.allclose(apart(x_BTC), together(x_BTC), atol=1e-6)


def test_feed_forward_takes_each_token_by_itself():
    for layer in (lesson_5.FeedForward(), lesson_6.FeedForward()):
        together = layer(x_BTC)
        alone = torch.stack([layer(x_BTC[:, t]) for t in range(T)], dim=1)
        assert torch.allclose(together, alone, atol=1e-6)
        assert not torch.allclose(layer(2 * x_BTC), 2 * together, atol=1e-2)  # the point of the non-linearity
    assert lesson_6.FeedForward()[0].out_features == 4 * C


def test_layers_that_say_nothing_leave_the_stream_alone():
    with_stream, without = lesson_6.Block(residual=True), lesson_6.Block(residual=False)
    for block in (with_stream, without):
        for layer in (block.attention.projection, block.feedforward[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    assert torch.equal(with_stream(x_BTC), x_BTC)
    assert torch.equal(without(x_BTC), torch.zeros_like(x_BTC))


def test_residuals_bring_the_gradient_to_the_embedding():
    """At the start, three blocks without residuals hand on a small part of what reaches the embedding with them."""
    sizes = {}
    for residual in (False, True):
        torch.manual_seed(5)
        model = lesson_6.LanguageModel(65, residual)
        model(torch.randint(65, (16, 8)), torch.randint(65, (16, 8)))[1].backward()
        sizes[residual] = model.token_embedding.weight.grad.norm().item()
    assert sizes[False] < sizes[True] / 5


def test_layer_norm_is_pytorchs_and_batch_norm_on_its_side():
    norm, reference = lesson_7.LayerNorm(), nn.LayerNorm(C)
    for ours, theirs in ((norm.scale, reference.weight), (norm.shift, reference.bias)):
        with torch.no_grad():
            ours.normal_()
            theirs.copy_(ours)
    x_BTC_off = 3 * x_BTC + 5
    assert torch.allclose(norm(x_BTC_off), reference(x_BTC_off), atol=1e-5)
    rows = x_BTC_off[0]  # (T, C): its transpose has the tokens as features
    sideways = F.batch_norm(rows.T, None, None, training=True).T
    assert torch.allclose(lesson_7.LayerNorm()(rows), sideways, atol=1e-5)
    assert torch.allclose(lesson_7.LayerNorm()(x_BTC_off).mean(dim=-1), torch.zeros(B, T), atol=1e-5)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.replace("norm.scale", "norm.weight").replace("norm.shift", "norm.bias"): v for k, v in state.items()}


def test_lesson_8_is_lesson_7_when_small_and_without_dropout(monkeypatch, small_lesson_8):
    for name in ("BLOCK_SIZE", "N_EMBD", "N_HEAD", "N_LAYER"):
        monkeypatch.setattr(small_lesson_8, name, getattr(lesson_7, name))
    before, after = lesson_7.LanguageModel(65), small_lesson_8.LanguageModel(65)
    after.load_state_dict(renamed(before.state_dict()))
    ids = torch.randint(65, (3, 7))
    assert torch.allclose(before(ids)[0], after.eval()(ids)[0], atol=1e-5)
    assert not torch.allclose(before(ids)[0], after.train()(ids)[0], atol=1e-1)  # dropout


def test_dropout_stands_where_the_lecture_has_it(small_lesson_8):
    """After the softmax, after the projection, after the feed-forward layer."""
    model, seen = small_lesson_8.LanguageModel(7), []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    model(torch.randint(7, (2, 9)))
    H, C = small_lesson_8.N_HEAD, small_lesson_8.N_EMBD
    assert seen == [(2, H, 9, 9), (2, 9, C), (2, 9, C)] * small_lesson_8.N_LAYER


@pytest.mark.parametrize("vocab_size", [7, 48])
def test_lesson_9_has_lesson_8s_logits(small_lesson_8, vocab_size):
    theirs = small_lesson_8.LanguageModel(vocab_size)
    with torch.no_grad():
        for parameter in theirs.parameters():  # so that no norm is the identity and no bias small
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = lesson_9.to_glassformer(theirs.eval())
    ids = torch.randint(vocab_size, (3, small_lesson_8.BLOCK_SIZE))
    with torch.no_grad():
        logits = theirs(ids)[0]
        assert logits.std() > 0.5
        assert torch.allclose(ours(ids), logits, atol=1e-4 * logits.abs().max().item())
        assert torch.equal(ours(ids).argmax(dim=-1), logits.argmax(dim=-1))
        assert torch.allclose(GPT.of(ours)(ids), ours(ids), atol=1e-5 * logits.abs().max().item())
    start = torch.zeros((2, 1), dtype=torch.long)
    torch.manual_seed(6)
    uncached = small_lesson_8.generate(theirs, start, max_new_tokens=small_lesson_8.BLOCK_SIZE - 1)
    torch.manual_seed(6)
    assert torch.equal(uncached, lesson_9.generate(ours, start, max_new_tokens=small_lesson_8.BLOCK_SIZE - 1))


def test_lesson_9_refuses_a_head_whose_bias_it_cannot_place(small_lesson_8):
    with pytest.raises(ValueError, match="49 characters do not fit into a width of 48"):
        lesson_9.to_glassformer(small_lesson_8.LanguageModel(49))
