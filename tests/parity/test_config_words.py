"""Every word of config.json counts: each is changed, left out or set by itself, and a decoder family must then give the
logits of transformers, or refuse the folder. A word that is read past gives other logits, and the test fails.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, Case, plainly
from toys import toy_ids

from glassformer.errors import ModelFolderError, UsageError
from glassformer.hub import load_model
from glassformer.hub.configuration import read_config

# words that decide nothing about the numbers of a loaded model
ASIDE = {"architectures", "model_type", "transformers_version", "dtype", "torch_dtype"}
FAMILIES = [
    *("gpt2", "gpt_neo, in no order, own head", "gpt_neox, one after the other"),
    *("llama, biases", "qwen2, last layers windowed", "qwen3, biases and windows", "mistral"),
    *("phi3, longrope, in part", "olmo2, biases, stretched", "smollm3, windows, biases, own head"),
    *("gemma2", "gemma3", "mixtral", "qwen3_moe, shares of the active, windows, biases", "gpt_oss"),
]
GONE = object()


def others(word: str, value: Any) -> Iterator[Any]:
    """Other values for a word."""
    yield GONE
    yield None
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if word != "original_max_position_embeddings":  # fewer than 2 pi turn yarn's ramp round there
            yield 1
    elif isinstance(value, float):
        yield 2 * value + 0.25
    elif isinstance(value, str):
        yield from ("relu", "silu", "gelu", "gelu_pytorch_tanh") if "act" in word else ("other",)
    elif isinstance(value, list):
        yield from (value[::-1], value[:-1], value[:1] * len(value))
    elif isinstance(value, dict):
        yield from ({**value, inner: new} for inner in value for new in others(inner, value[inner]) if new is not GONE)
        yield from ({k: v for k, v in value.items() if k != inner} for inner in value)
        yield {**value, "rope_type": "linear", "factor": 3.0}
        yield {**value, "rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 11}
        yield {**value, "rope_type": "dynamic", "factor": 3.0}
        yield {**value, "partial_rotary_factor": 0.4}
    else:
        yield from (True, 3, 0.7)


def changes(words: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for word, value in words.items():
        if word in ASIDE:
            continue
        for new in others(word, value):
            changed = {k: v for k, v in words.items() if k != word} if new is GONE else {**words, word: new}
            if changed != words:
                yield f"{word}={'(left out)' if new is GONE else new}", changed
    for word, new in {"rope_theta": 300.0, "rope_scaling": {"type": "linear", "factor": 3.0}}.items():
        yield f"{word}={new}", {**words, word: new}
    if "rope_parameters" in words:
        old = {k: v for k, v in words.items() if k != "rope_parameters"}
        yield "rope_theta alone", {**old, "rope_theta": 300.0}
        yield "both old words", {**old, "rope_theta": 300.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}


def their_logits(case: Case, words: dict[str, Any], weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """What transformers computes; None where it refuses, or the weights do not fit."""
    try:
        config = type(case.config).from_dict(copy.deepcopy(words), attn_implementation="eager")
        model = plainly(case.model(config))
        found = model.load_state_dict(weights, strict=False)
        if found.missing_keys or found.unexpected_keys:
            return None
        model.tie_weights()
        return model(toy_ids(3, 11)).logits
    except Exception:  # it refuses with errors of many kinds
        return None


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_word_is_applied_or_refused(name: str, tmp_path: Path):
    case = CASES[name]
    theirs = case.build()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    words, weights, plain = json.loads(file.read_text()), theirs.state_dict(), theirs(toy_ids(3, 11)).logits
    applied, moved, wrong = 0, 0, []
    computed: dict[str, torch.Tensor] = {}  # our logits by our configuration
    for what, changed in changes(words):
        file.write_text(json.dumps(changed))
        try:
            config = repr(read_config(tmp_path)[1])
            if config not in computed:
                computed[config] = load_model(tmp_path)(toy_ids(3, 11))
        except (ModelFolderError, UsageError) as error:  # the folder, or a text longer than it has positions for
            assert "\n" not in str(error)
            continue
        expected = their_logits(case, changed, weights)
        if expected is None:
            continue
        applied += 1
        moved += not torch.allclose(expected, plain, rtol=1e-4, atol=1e-4)
        if not torch.allclose(computed[config], expected, rtol=1e-3, atol=1e-3):
            wrong.append(f"{what}: off by {float((computed[config] - expected).abs().max()):.2g}")
    assert not wrong, "\n".join(wrong)
    assert applied > 20 and moved > 3, (applied, moved)  # something was tried, and something changed
