"""Without a part: against the same model with that part's weights at zero. Patches and links against the taps."""

from __future__ import annotations

import copy

import pytest
import torch
from toy_letters import TEXT, letters
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.inspection import look, trace

TOKENIZER = letters()


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([TOKENIZER.encode(TEXT)]))[0, -1, : TOKENIZER.vocab_size]


def without(part: str, model):
    """A copy in which the weights of a part are zero."""
    other = copy.deepcopy(model)
    block = other.blocks[1]
    D = block.attention.head_width
    with torch.no_grad():
        if part == "head:1.2":
            block.attention.out.weight[:, 2 * D : 3 * D] = 0
        if part == "neuron:1.5":
            block.feedforward.down.weight[:, 5] = 0
        if part in ("mlp:1", "layer:1"):
            for parameter in block.feedforward.down.parameters():
                parameter.zero_()
        if part in ("attention:1", "layer:1"):
            for parameter in block.attention.out.parameters():
                parameter.zero_()
    return other


@pytest.mark.parametrize("family", ["classic", "modern"])
@pytest.mark.parametrize("part", ["head:1.2", "neuron:1.5", "mlp:1", "attention:1", "layer:1"])
def test_a_part_off_is_a_part_whose_weights_are_zero(family: str, part: str):
    model = toy_model(family)
    view = look("ablation", model, TOKENIZER, TEXT, off=[part], top=99)
    p, q = (logits(m).double().softmax(-1) for m in (model, without(part, model)))
    order = [TOKENIZER.encode(token)[0] for token in view.top_tokens]
    torch.testing.assert_close(torch.from_numpy(view.before).double(), p[order], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(view.after).double(), q[order], atol=1e-6, rtol=1e-4)
    assert view.divergence == pytest.approx(float((p * (p / q).log2()).sum()), abs=1e-5) and view.divergence > 1e-7
    assert view.restored


def test_a_token_off_is_seen_by_none_but_itself():
    model = toy_model("modern")
    seen = []
    pattern = "blocks.0.attention.pattern"
    from glassformer.inspection.ablation import switch
    from glassformer.inspection.reading import read

    reading = read(model, TOKENIZER, TEXT)
    with switch(reading, "token:3")(), trace(model, pattern) as kept:
        reading.run()
        seen = kept[pattern][0]
    off = torch.ones(len(TEXT), dtype=torch.bool)
    off[3] = False
    assert (seen[:, off, 3] == 0).all() and (seen[:, 3, 3] > 0).all()
    torch.testing.assert_close(seen.sum(-1), torch.ones(seen.shape[:2]))


def test_without_a_name_every_head_and_feed_forward_is_tried():
    model = toy_model("classic")
    view = look("ablation", model, TOKENIZER, TEXT)
    c = model.config
    assert len(view.parts) == c.n_layer * (c.n_head + 1)
    for part in view.parts[:3]:
        one = look("ablation", model, TOKENIZER, TEXT, off=[part.part])
        assert one.divergence == pytest.approx(part.divergence, abs=1e-9)


@pytest.mark.parametrize(
    ("part", "words"),
    [("hed:1.2", "head:LAYER.HEAD"), ("head:1", "head:LAYER.HEAD"), ("head:1.9", "head=9"), ("token:99", "token=99")],
)
def test_a_part_that_does_not_exist_is_refused(part: str, words: str):
    with pytest.raises(UsageError, match=words):
        look("ablation", toy_model("classic"), TOKENIZER, TEXT, off=[part])


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_patches_bring_back_nothing_before_the_change_and_all_behind_the_last_block(family: str):
    model = toy_model(family)
    other = TEXT[:2] + ("B" if TEXT[2] != "B" else "A") + TEXT[3:]
    a, b = (int(x) for x in logits(model).topk(2).indices)
    asked = {"token": a, "against": b}
    view = look("patching", model, TOKENIZER, TEXT, other, **asked)
    assert (abs(view.restored[:, :2]) < 1e-4).all()  # these places see no difference
    assert view.restored[-1, -1] == pytest.approx(1, abs=1e-4)
    assert (abs(view.restored[-1, :-1]) < 1e-4).all()  # nobody looks at them any more
    one = look("patching", model, TOKENIZER, TEXT, other, layer=-1, position=-1, **asked)
    torch.testing.assert_close(one.probabilities[1], one.probabilities[2], atol=1e-6, rtol=1e-4)
    with pytest.raises(UsageError, match="equal length"):
        look("patching", model, TOKENIZER, TEXT, TEXT + "A")
    with pytest.raises(UsageError, match="the same"):
        look("patching", model, TOKENIZER, TEXT, TEXT)


def test_heads_that_connect_two_places_are_ranked_by_their_weight():
    model = toy_model("modern")
    view = look("links", model, TOKENIZER, TEXT, "5", "2")
    with trace(model, "blocks.*.attention.pattern") as seen, torch.no_grad():
        model(torch.tensor([TOKENIZER.encode(TEXT)]))
    truth = torch.stack([x[0, :, 5, 2] for x in seen.values()])
    torch.testing.assert_close(torch.from_numpy(view.weights), truth)
    assert view.weights[view.ranked[0]] == truth.max() and len(view.ranked) == truth.numel()
    assert view.even.tolist() == pytest.approx([1 / 6] * len(truth))
    with pytest.raises(UsageError, match="looks back"):
        look("links", model, TOKENIZER, TEXT, "2", "5")
    with pytest.raises(UsageError, match="no word"):
        look("links", model, TOKENIZER, TEXT, "zebra", "5")
