"""What a view refuses: one line with the value that was given and the rule or the next step."""

from __future__ import annotations

from typing import Any

import pytest
from stacks import FAMILIES, TEXT, TOKENIZER, encoder
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.history import build_history
from glassformer.inspection import parameters
from glassformer.inspection.look import Subject, show
from glassformer.inspection.options import options_of
from glassformer.layers import int8_copy
from glassformer.views import VIEWS

MODELS: dict[str, Any] = {
    **FAMILIES,
    "int8": lambda: int8_copy(toy_model()),
    "experts": lambda: toy_model("modern", n_expert=3),
    "vectors": lambda: encoder(token_head="none"),
    "classes": lambda: encoder(token_head="classes", n_classes=3),
    "other tokenizer": lambda: toy_model(vocab_size=5),
    "bigram": lambda: build_history("bigram", vocab_size=61, block_size=8),
    "GRU": lambda: build_history("gru", vocab_size=61, block_size=13, n_embd=4),
}
FED: dict[str, Any] = {"word": "FED", "texts": ["A FED", "FED A"]}
REFUSED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("classic", "attenton", {}, "attenton", "did you mean attention?"),
    ("classic", "attention", {"layer": 2}, "layer=2", "(0 to 1)"),
    ("classic", "attention", {"layer": 0, "head": -4}, "head=-4", "(0 to 2)"),
    ("classic", "attention", {"head": 1}, "head=1", "give its layer too (0 to 1)"),
    ("classic", "attention", {"kind": "encoder"}, "encoder", "leave kind out"),
    ("classic", "attention", {"kind": "corss"}, "kind='corss'", "cross"),
    ("GRU", "attention", {}, "Recurrent", "use a Transformer"),
    ("classic", "attention-walkthrough", {"layer": 2}, "layer=2", "(0 to 1)"),
    ("classic", "attention-walkthrough", {"head": 3}, "head=3", "(0 to 2)"),
    ("classic", "attention-walkthrough", {"position": 9}, "position=9", "(0 to 8)"),
    ("classic", "attention-walkthrough", {"width": 0}, "width=0", "use 1 or more"),
    ("classic", "attention-walkthrough", {"kind": "cross"}, "cross", "leave kind out"),
    ("int8", "attribution", {}, "Int8Linears", "dtype=fp32"),
    ("classes", "attribution", {}, "token_head=classes", "decoders"),
    ("classic", "attribution", {"token": "C", "against": "C"}, "both 'C'", "take two different ones"),
    ("classic", "attribution", {"against": "XY"}, "against='XY' is 2 tokens", "give one of them"),
    ("classic", "context", {"word": "FED", "texts": ["A FED", "no DEF"]}, "'no DEF'", "change the sentence"),
    ("classic", "context", {"word": "FED", "texts": ["A FED", "AFED"]}, "'AFED'", "change the sentence"),
    ("classic", "context", {"word": "FED", "texts": ["A FED"]}, "given 1", "2 to 16"),
    ("classic", "context", {"word": "FED"}, "texts", "missing"),
    ("classic", "context", {**FED, "layers": [3]}, "layer=3", "(0 to 2)"),
    ("other tokenizer", "context", FED, "5 different tokens", "do not belong together"),
    ("bigram", "context", FED, "has no blocks", "take a Transformer"),
    ("classic", "neighbours", {"word": "A", "top": 0}, "top=0", "use 1 or more"),
    ("classic", "neighbours", {"word": "%"}, "'%'", "try another word"),
    ("classic", "analogy", {"a": "A", "b": "B", "c": "C", "expected": "C"}, "'C'", "another"),
    ("classic", "direction", {"pairs": ["cat"]}, "'cat'", "cat:cats"),
    ("classic", "direction", {"pairs": []}, "there are none", "cat cats"),
    ("classic", "direction", {"pairs": ["A:B", "B:A"]}, "cancel", "give others"),
    ("classic", "components", {"words": ["A", "B", "A"]}, "2 different words", "3 or more"),
    ("classic", "induction", {"length": 7}, "length=7", "2 to 6"),
    ("encoder", "induction", {}, "Encoder", "`attention`"),
    ("T5", "induction", {}, "EncoderDecoder", "`attention`"),
    ("classic", "lens", {"top": 0}, "top=0", "use 1 or more"),
    ("classic", "lens", {"tpo": 1}, "tpo", "did you mean top?"),
    ("classic", "lens", {"top": "many"}, "top='many'", "not a whole number"),
    ("classic", "lens", {"pin": "AB"}, "pin='AB' is 2 tokens (A|B)", "give one of them, or an id"),
    ("classic", "lens", {"pin": ""}, "pin='' is no token", "must be one"),
    ("classic", "lens", {"pin": 99}, "pin=99", "0 to 54"),
    ("classic", "lens", {"position": 9}, "position=9", "(0 to 8)"),
    ("vectors", "lens", {}, "token_head=none", "decoders"),
    ("GRU", "lens", {}, "Recurrent", "take a Transformer"),
    ("GRU", "residual", {}, "Recurrent", "take a Transformer"),
    ("experts", "neurons", {"corpus": TEXT, "layer": -1}, "layer 1 is a mixture of 3 experts", "trace("),
    ("modern", "neurons", {"corpus": TEXT, "layer": 2}, "layer=2", "(0 to 1)"),
    ("modern", "neurons", {"corpus": TEXT, "neuron": 29}, "neuron=29", "(0 to 28)"),
    ("modern", "neurons", {"corpus": TEXT, "top": 0}, "top=0", "use 1 or more"),
    ("modern", "neurons", {"corpus": ""}, "no token", "two tokens or more"),
    ("classic", "next", {"position": 9}, "position=9", "(0 to 8)"),
    ("classic", "next", {"text": "A" * 14}, "14 tokens", "13 at most; shorten it"),
    ("encoder", "next", {}, "Encoder", "glassformer fill"),
    ("encoder", "surprise", {}, "Encoder", "glassformer fill"),
    ("classic", "surprise", {"text": "A"}, "two tokens", "longer text"),
    ("classic", "compare", {"others": ["b"], "temperature": [1, 2]}, "several", "the ones or the others"),
    ("classic", "tensors", {"pattern": "final_norm.wieght"}, "'final_norm.wieght'", "did you mean final_norm.weight?"),
    ("classic", "tensors", {"pattern": "block.*.qkv"}, "'block.*.qkv'", "no tensor"),
    ("classic", "tokens", {"text": ""}, "no text", "one character"),
]


@pytest.mark.parametrize(("model", "view", "options", "value", "rule"), REFUSED)
def test_a_mistake_is_refused_with_the_value_and_the_rule(model: str, view: str, options: dict, value: str, rule: str):
    if view in VIEWS and "text" in options_of(VIEWS[view].load()).model_fields:
        options = {"text": TEXT, **options}
    with pytest.raises(UsageError) as error:
        show(view, Subject("toy", MODELS[model](), TOKENIZER), options)
    assert value in str(error.value) and rule in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "message"), [("gtp3", "did you mean gpt3"), (3, "give a model, its config or a size")]
)
def test_what_has_no_parameters_is_refused(what: Any, message: str):
    with pytest.raises(UsageError, match=message):
        parameters(what)
