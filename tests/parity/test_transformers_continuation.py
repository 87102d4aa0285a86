"""The whole way: model and tokenizer from one folder, and the same continuation from both, token by token.

Promised inside block_size (beyond it, transformers has no positions left). The two best logits of random models are far
apart compared with a rounding, so greedy choices agree.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from toys import GEMMA3, toy_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import glassformer as gf
from glassformer.processors.tokenizers import TOKENIZERS

transformers.logging.set_verbosity_error()

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n"
PROMPT = "All:\nSpeak to me, "
FAMILIES = {"classic": ("classic", {}), "modern": ("modern", {}), "gemma3": ("modern", GEMMA3)}


def build(kind: str):
    return TOKENIZERS[kind]([TEXT * 3], **({"vocab_size": 283} if kind == "bpe" else {}))


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_continuation_is_the_same(family: str, kind: str, tmp_path: Path):
    tokenizer = build(kind)
    preset, changes = FAMILIES[family]
    talkative = toy_model(preset, vocab_size=tokenizer.vocab_size, block_size=47, tied_head=False, **changes)
    with torch.no_grad():
        talkative.embedding.token.weight *= 5  # what was said decides what comes next
        if family == "classic":
            talkative.final_norm.bias.zero_()  # and no token is the favourite everywhere
    gf.save(tmp_path, talkative, tokenizer)
    model, tokenizer = gf.load(tmp_path)
    ids = tokenizer.encode(PROMPT)
    ours = [
        p.token for p in gf.generate(model, tokenizer, PROMPT, max_new_tokens=47 - len(ids), temperature=0)[0].pieces
    ]

    their_model, their_tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    prompt = their_tokenizer(PROMPT, return_tensors="pt")
    assert prompt.input_ids[0].tolist() == ids
    with torch.no_grad():
        theirs = their_model.generate(**prompt, max_new_tokens=47 - len(ids), do_sample=False)[0, len(ids) :].tolist()
    assert ours == theirs
    assert len(set(ours)) > 2  # not one token over and over
    assert their_tokenizer.decode(theirs) == tokenizer.decode(ours)


def test_the_end_of_text_is_known_to_both_or_to_neither(tmp_path: Path):
    """GPT-2's default of 50256 would point outside a small vocabulary, and stop nothing or crash."""
    for kind in ("characters", "bpe"):
        tokenizer = build(kind)
        gf.save(tmp_path / kind, toy_model(vocab_size=tokenizer.vocab_size), tokenizer)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / kind)
        for config in (model.config, model.generation_config):
            assert config.eos_token_id == config.bos_token_id == tokenizer.end_of_text
            assert config.pad_token_id is None
    assert build("characters").end_of_text is None and build("bpe").end_of_text == 282
