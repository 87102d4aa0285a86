"""A run's `model/` folder, opened by transformers as it is there: equal logits, equal greedy continuation."""

from __future__ import annotations

import pytest
import torch

import glassformer as gf
from glassformer import recipes

transformers = pytest.importorskip("transformers")

SHAPE = ["model.n_layer=2", "model.n_head=3", "model.n_embd=30", "model.block_size=37"]
SHORT = ["training.steps=80", "training.batch_size=16", "training.eval_every=0", "training.sample_every=0"]
FAMILIES = {
    "classic": ["model.family=classic"],
    "classic without biases": ["model.family=classic", "model.bias=false", "model.activation=gelu"],
    "modern": ["model.family=modern", "model.n_kv_head=1"],
    "modern without QK-norm": ["model.family=modern", "model.qk_norm=false", "model.tied_head=false"],
    "Gemma 3": [
        *("model.family=modern", "model.norm=zero_centered_rmsnorm", "model.norm_place=sandwich"),
        *("model.activation=gelu_new", f"model.embedding_scale={30**0.5}", "model.logit_softcap=30"),
        *("model.patterns=window(5),causal", "model.rotary_base=100000", "model.rotary_base_local=1000"),
    ],
}
TOKENIZERS = {"characters": ["tokenizer.kind=characters"], "bpe": ["tokenizer.kind=bpe", "tokenizer.vocab_size=300"]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_transformers_continues_with_the_same_tokens(play, tmp_path, family, kind):
    settings = [*SHAPE, *SHORT, *FAMILIES[family], *TOKENIZERS[kind], "training.learning_rate=0.01"]
    run = recipes.train(None, settings, data=str(play), out=tmp_path / "run")
    ours, tokenizer = gf.load(run.path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run.path / "model").eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(run.path / "model")

    prompt = "First Citizen:\nSpeak"
    ids = tokenizer.encode(prompt)
    assert their_tokenizer(prompt)["input_ids"] == ids
    assert their_tokenizer.decode(ids) == prompt
    batch = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), theirs(batch).logits, rtol=0, atol=1e-4)
    n = 37 - len(ids)  # equal continuation is promised within block_size
    expected = theirs.generate(batch, max_new_tokens=n, do_sample=False)[0, len(ids) :].tolist()
    pieces = list(gf.stream(ours, tokenizer, prompt, max_new_tokens=n, temperature=0))
    made = [piece.token for piece in pieces]
    assert made == expected[: len(made)] and len(made) == len(expected)
    assert len(set(made)) > 2  # it learned enough to say more than one thing
