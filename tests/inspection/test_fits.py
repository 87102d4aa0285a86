"""What `why_not` says without running a view is what the view does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stacks import FAMILIES, TEXT, TOKENIZER, encoder, patches

from glassformer.errors import UsageError
from glassformer.history import build_history
from glassformer.inspection.fits import why_not
from glassformer.inspection.look import Subject, show
from glassformer.inspection.options import options_of
from glassformer.views import VIEWS

MODELS: dict[str, Any] = {
    **{name: FAMILIES[name] for name in ("classic", "2017", "modern", "encoder", "BERT", "T5")},
    "vectors": lambda: encoder(token_head="none"),
    "classes": lambda: encoder(token_head="none", n_classes=3),
    "bigram": lambda: build_history("bigram", vocab_size=61, block_size=13),
    "GRU": lambda: build_history("gru", vocab_size=61, block_size=13, n_embd=4),
    "words": lambda: build_history("skip-gram", vocab_size=61, block_size=13, n_embd=4),
    "images": patches,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "neighbours": {"word": "A"},
    "analogy": {"a": "A", "b": "B", "c": "C", "expected": "D"},
    "direction": {"pairs": ["A:B"]},
    "components": {"words": ["A", "B", "C"]},
    "induction": {"length": 4},
    "context": {"word": "FED", "texts": ["A FED", "FED A"]},
    "neurons": {"corpus": TEXT},
    "diffusion": {"text": "A<mask:2>"},
    "tokenizers": {"corpus": TEXT, "others": ["characters", "bytes"]},
    "promoters": {"token": "A"},
    "steering": {"pairs": ["AB=>CD", "A=>D"], "tokens": 4},
    "links": {"reader": "2", "read": "1"},
    "patching": {"other": "B" + TEXT[1:], "token": 3, "against": 5},
}
SPEECH = "speech"  # needs a sound: only its reason is tested


@pytest.mark.parametrize("kind", MODELS)
def test_a_view_applies_exactly_where_it_runs(kind: str):
    model = MODELS[kind]()
    subject = Subject("toy", model, None if kind == "images" else TOKENIZER)
    for view in VIEWS.keys() - {SPEECH}:
        options = dict(OPTIONS.get(view, {}))
        if "text" in options_of(VIEWS[view].load()).model_fields and "text" not in options:
            options["text"] = torch.rand(2, 6, 6) if kind == "images" else TEXT
        reason = why_not(view, subject)
        try:
            show(view, subject, options)
        except UsageError as error:
            assert reason is not None and "\n" not in reason, (view, str(error))
        else:
            assert reason is None, (view, reason)
    assert why_not(SPEECH, subject)
