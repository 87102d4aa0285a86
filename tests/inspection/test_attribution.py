"""Attribution against a frozen model: by PyTorch's own hooks, a part is left out of the stream while every norm that
the stream goes through divides by what it divided by before. What the logit then lacks is what the part adds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stacks import FAMILIES, TEXT, TOKENIZER, asked, encoder, looked_at, stack
from torch import Tensor
from toys import toy_model

from glassformer.inspection import attribution, trace
from glassformer.layers import ACTIVATIONS, LayerNorm

FAMILY = pytest.mark.parametrize("family", FAMILIES)
TOKEN, OTHER, PLACE = 7, 12, 5


@contextlib.contextmanager
def hooked(module: Any, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def attentions(block: Any) -> dict[str, Any]:
    return {k: getattr(block, k) for k in ("attention", "cross_attention") if hasattr(block, k)}


def norms_of_the_stream(model: Any) -> list[Any]:
    s, place = stack(model), stack(model).config.norm_place
    ends = {"pre": None, "sandwich": "_norm_after", "post": "_norm", "output": "_norm"}[place]
    found = [m for b in s.blocks for n, m in b.named_children() if ends and n.endswith(ends)]
    return [m for m in (s.embedding.norm, *found, s.final_norm, getattr(s, "transform_norm", None)) if m is not None]


class Frozen:
    """A model whose sublayers repeat their outputs, and whose norms divide by what they divided by."""

    def __init__(self, model: Any, seen: Any):
        self.model, self.seen, self.recorded = model, seen, {}
        s = stack(model)
        self.layers = [m for b in s.blocks for m in (*(a.out for a in attentions(b).values()), b.feedforward)]
        self.norms = norms_of_the_stream(model)
        transform = [s.transform] if getattr(s, "transform", None) is not None else []
        with contextlib.ExitStack() as hooks:
            for module in (*self.layers, *self.norms, *transform):
                hooks.enter_context(hooked(module, lambda m, given, out: self.recorded.update({m: (given[0], out)})))
            seen.logits()

    def norm(self, module: Any, given: Any, out: Tensor) -> Tensor:
        was, x = self.recorded[module][0].double(), given[0].double()
        weight = module.weight.double() + (type(module).__name__ == "ZeroCenteredRMSNorm")
        if isinstance(module, LayerNorm):
            was, x = was - was.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True)
        y = x / (was.square().mean(-1, keepdim=True) + module.eps).sqrt() * weight
        bias = getattr(module, "bias", None)
        return (y if bias is None else y + bias.double()).to(out.dtype)

    def transform(self, module: Any, given: Any, out: Tensor) -> Tensor:
        """What the activation must be given so that it comes out as the frozen gate times the new sum."""
        was = self.recorded[module][1].double()
        act = ACTIVATIONS[stack(self.model).config.activation]
        self.held = (out.double() * act(was) / was).to(out.dtype)
        return out

    def logit(self, leave_out: Any = None, taken: Tensor | None = None) -> float:
        """Of TOKEN at PLACE, with `taken` (C,) missing from what the module `leave_out` says there."""

        def fixed(module: Any, _: Any, out: Tensor) -> Tensor:
            out = self.recorded[module][1].clone() if module in self.recorded else out.clone()
            if module is leave_out:
                out[0, PLACE] -= taken
            return out

        s, heads = stack(self.model), []
        with contextlib.ExitStack() as hooks:
            for module in {*self.layers, s.embedding} - set(self.norms):
                hooks.enter_context(hooked(module, fixed))
            for module in self.norms:
                hooks.enter_context(hooked(module, self.norm))
            if getattr(s, "transform", None) is not None:
                hooks.enter_context(hooked(s.transform, self.transform))
                before = s.transform_norm.register_forward_pre_hook(lambda m, given: (self.held,))
                hooks.callback(before.remove)
            hooks.enter_context(hooked(s.head, lambda m, given, out: heads.append(out)))
            self.seen.logits()
        return float(heads[-1][0, PLACE, TOKEN])


@FAMILY
def test_the_parts_add_up_and_each_is_what_the_frozen_model_lacks_without_it(family: str):
    model, seen = looked_at(family)
    view = attribution(model, TOKENIZER, TEXT, token=TOKEN, position=PLACE, check=0, **asked(model))
    own, cap = seen.logits()[PLACE], stack(model).config.logit_softcap
    assert float(own[TOKEN]) == pytest.approx(view.logit if cap is None else cap * np.tanh(view.logit / cap), abs=1e-5)
    assert view.probability == pytest.approx(float(own.softmax(dim=-1)[TOKEN]), abs=1e-6)
    values = {(p.kind, p.layer, p.head): p.value for p in view.parts}
    assert view.total == pytest.approx(sum(values.values()), abs=1e-6) == pytest.approx(view.logit, abs=1e-4)
    frozen = Frozen(model, seen)
    whole = frozen.logit()
    assert whole == pytest.approx(view.logit, abs=1e-4)

    def holds(key: Any, module: Any, taken: Tensor) -> None:
        lost = whole - frozen.logit(module, taken)
        assert values.pop(key) == pytest.approx(lost, abs=2e-5 * max(1.0, abs(whole))), key

    with torch.no_grad():
        for layer, block in enumerate(stack(model).blocks):
            for kind, attention in attentions(block).items():
                given = frozen.recorded[attention.out][0][0, PLACE]
                D = attention.head_width
                for h in range(attention.n_head):
                    columns = slice(h * D, (h + 1) * D)
                    taken = attention.out.weight[:, columns] @ given[columns]
                    holds((kind, layer, h), attention.out, taken)
                if attention.out.bias is not None:
                    holds((f"{kind} bias", layer, None), attention.out, attention.out.bias)
            holds(("feedforward", layer, None), block.feedforward, frozen.recorded[block.feedforward][1][0, PLACE])
        stem = stack(model).embedding
        if stem.norm is None:
            token = stem.token.weight[seen.ids[PLACE]] * stem.scale
            holds(("token", None, None), stem, token)
    left = {key[0] for key in values}  # what comes through the embedding, and biases
    assert left <= {"token", "position", "segment", "n-grams", "norm bias", "transform bias", "head bias"}


def test_the_parts_of_the_embedding_by_hand():
    """A model without blocks to speak of: every row of the embedding through the final norm's scale."""
    model, seen = looked_at("classic with n-grams")
    with torch.no_grad():
        for block in model.blocks:
            for module in (block.attention.out, block.feedforward.down):
                module.weight.zero_()
                module.bias.zero_()
        view = attribution(model, TOKENIZER, TEXT, token=TOKEN, position=PLACE)
        ids = torch.tensor([seen.ids])
        token, n_grams = model.embedding.token.weight[seen.ids[PLACE]], model.embedding.n_grams(ids)[0, PLACE]
        position = model.positions.table.weight[PLACE] if hasattr(model.positions, "table") else None
        position = next(model.positions.parameters())[PLACE] if position is None else position
        x = token + n_grams + position
        norm, row = model.final_norm, model.head.weight[TOKEN] * model.config.logit_scale
        for kind, vector in (("token", token), ("n-grams", n_grams), ("position", position)):
            value = ((vector - vector.mean()) / (x.var(unbiased=False) + norm.eps).sqrt() * norm.weight) @ row
            assert view.sum_of(kind) == pytest.approx(float(value), abs=1e-5), kind
        assert view.sum_of("norm bias") == pytest.approx(float(norm.bias @ row), abs=1e-5)
        assert view.sum_of("head bias") == pytest.approx(float(model.head.bias[TOKEN]), abs=1e-6)
        assert view.sum_of("attention") == view.sum_of("feedforward") == 0


@FAMILY
def test_a_difference_of_two_tokens_is_the_difference_of_their_parts(family: str):
    model, _ = looked_at(family)
    one, other, both = (
        attribution(model, TOKENIZER, TEXT, position=PLACE, check=0, **asked(model), **tokens)
        for tokens in ({"token": TOKEN}, {"token": OTHER}, {"token": TOKEN, "against": OTHER})
    )
    for p, q, r in zip(one.parts, other.parts, both.parts, strict=True):
        assert r.value == pytest.approx(p.value - q.value, abs=1e-6)
    assert both.logit == pytest.approx(one.logit - other.logit, abs=1e-6)
    assert both.probability == one.probability


@pytest.mark.parametrize("family", ["classic", "modern", "Gemma", "encoder", "translator of 2017"])
def test_ablation_is_the_model_without_the_head(family: str):
    """The columns of the output matrix that belong to the head are set to nothing, or its input at one place is."""
    model, seen = looked_at(family)
    view = attribution(model, TOKENIZER, TEXT, token=TOKEN, position=PLACE, check=4, **asked(model))
    assert [(c.layer, c.head, c.value) for c in view.checks] == [(p.layer, p.head, p.value) for p in view.strongest(4)]
    assert view.checks[0].value == max((p.value for p in view.parts if p.head is not None), key=abs)
    for c in view.checks:
        attention = getattr(stack(model).blocks[c.layer], c.kind)
        columns = slice(c.head * attention.head_width, (c.head + 1) * attention.head_width)

        def silent(_: Any, given: Any, places: Any, columns: slice = columns) -> Any:
            x = given[0].clone()
            x[0, places, columns] = 0
            return (x,)

        for places, lost in ((PLACE, c.here), (slice(None), c.everywhere)):
            heads: list[Tensor] = []
            before = attention.out.register_forward_pre_hook(lambda m, given, p=places: silent(m, given, p))
            with hooked(stack(model).head, lambda m, given, out, heads=heads: heads.append(out)):
                seen.logits()
            before.remove()
            assert view.logit - float(heads[-1][0, PLACE, TOKEN]) == pytest.approx(lost, abs=1e-5)
    last = [c for c in view.checks if c.layer == len(stack(model).blocks) - 1]
    assert all(c.here == pytest.approx(c.everywhere, abs=1e-6) for c in last if c.kind == "attention"), (
        "nothing is behind"
    )


@FAMILY
def test_where_heads_look_is_the_pattern(family: str):
    model, seen = looked_at(family)
    view = attribution(model, TOKENIZER, TEXT, position=PLACE, check=0, **asked(model))
    prefix = "decoder." if hasattr(model, "decoder") else ""
    for kind, places in view.looks_at.items():
        with trace(model, f"{prefix}blocks.*.{kind}.pattern") as kept:
            seen.run()
        for layer in range(len(stack(model).blocks)):
            row_HS = kept[f"{prefix}blocks.{layer}.{kind}.pattern"][0, :, PLACE]
            assert places[layer].tolist() == row_HS.argmax(dim=-1).tolist()
            np.testing.assert_allclose(view.looks_share[kind][layer], row_HS.max(dim=-1).values, atol=1e-6)
        assert view.looked_labels[kind] == (seen.labels if kind == "attention" else seen.source_labels)


def test_many_layers_are_drawn_in_part_and_counted_whole():
    view = attribution(toy_model(n_layer=37), TOKENIZER, TEXT)
    drawn = str(view)
    assert "the 33 largest of 37" in drawn and "The other 101 heads add" in drawn
    assert view.total == pytest.approx(view.logit, abs=1e-4)


def test_by_default_it_is_about_the_models_own_token():
    model, seen = looked_at("classic")
    view = attribution(model, TOKENIZER, TEXT)
    assert view.token_id == int(seen.logits()[-1].argmax()) and view.position == len(seen.ids) - 1
    masked = attribution(encoder(), TOKENIZER, "AB<mask>E")
    assert masked.position == 2


@pytest.mark.parametrize(("family", "capped"), [("Gemma", True), ("classic", False)])
def test_a_soft_cap_is_named(family: str, capped: bool):
    assert ("soft cap of 5" in str(attribution(looked_at(family)[0], TOKENIZER, TEXT, check=0))) == capped
