"""Lengths and directions of what layers add, against hooks of PyTorch on the modules themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stacks import FAMILIES, TEXT, TOKENIZER, asked, looked_at, patches, stack

from glassformer.inspection import residual

FAMILY = pytest.mark.parametrize("family", FAMILIES)


def modules_seen(model: Any, seen: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What went into each module of the stack and what came out, (T, C) each, in one pass."""
    held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _, given, out: held.update({name: (given[0][0], out[0])})

    hooks = [module.register_forward_hook(keep(name)) for name, module in stack(model).named_modules() if name]
    seen.run()
    for hook in hooks:
        hook.remove()
    return held


@FAMILY
def test_lengths_and_cosines_are_those_of_the_modules(family: str):
    model, seen = looked_at(family)
    view = residual(model, TOKENIZER, TEXT, **asked(model))
    held, place = modules_seen(model, seen), stack(model).config.norm_place
    kinds = (
        ["attention", "cross_attention", "feedforward"] if hasattr(model, "decoder") else ["attention", "feedforward"]
    )
    assert list(view.updates) == list(view.cosines) == kinds
    x_TC = held["embedding"][1]
    np.testing.assert_allclose(view.stream[0], x_TC.norm(dim=-1), rtol=1e-5)
    for layer in range(len(stack(model).blocks)):
        for kind in kinds:
            text = f"blocks.{layer}.{kind}", f"blocks.{layer}.{kind.replace('cross_attention', 'cross')}_norm"
            behind = {"sandwich": f"{text[1]}_after", "output": text[1]}.get(place, text[0])
            added_TC = held[behind][1]
            np.testing.assert_allclose(view.updates[kind][layer], added_TC.norm(dim=-1), rtol=1e-5)
            cosine = (x_TC * added_TC).sum(dim=-1) / x_TC.norm(dim=-1) / added_TC.norm(dim=-1)
            np.testing.assert_allclose(view.cosines[kind][layer], cosine, atol=1e-5)
            x_TC = held[text[1]][1] if place == "post" else x_TC + added_TC
        np.testing.assert_allclose(view.stream[layer + 1], x_TC.norm(dim=-1), rtol=1e-5)
    assert view.is_post_norm == (place == "post")


def test_images_have_a_stream_and_no_tokenizer():
    view = residual(patches(), None, torch.rand(2, 6, 6))
    assert view.tokens == ["<class>", "0,0", "0,1", "1,0", "1,1"] and view.stream.shape == (3, 5)
    assert max(map(len, str(view).splitlines())) <= 80
