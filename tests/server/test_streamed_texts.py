"""Prompt and answer are one text: whole, in a stream and with `echo`; log-probabilities of as many tokens as requested.
For every family of tokenizers."""

from __future__ import annotations

import json

import pytest
import tokenizers
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import ask_json, events, running, shaken
from tokenizer_families import FAMILIES as OTHERS
from tokenizer_families import llama

from glassformer.generation.generate import prompt_ids
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import Tokenizer

PROMPTS = ["the quick", " jumps", "ünï 🦊", "", "lazy  dog.\n"]


def llama_with_start() -> Tokenizer:
    """As Llama 2: a token begins every text."""
    library = tokenizers.Tokenizer.from_str(llama().to_json())
    library.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return Tokenizer(library, end_of_text="</s>")


FAMILIES = {name: OTHERS[name] for name in ("characters", "bytes", "bpe", "wordpiece")} | {"llama": llama_with_start}


@pytest.fixture(scope="module")
def models():
    made = {}
    for name, make in FAMILIES.items():
        torch.manual_seed(4)
        tokenizer = make()
        shape = {"vocab_size": tokenizer.vocab_size, "block_size": 97, "n_layer": 1, "n_head": 3, "n_embd": 30}
        made[name] = shaken(Decoder(ModelConfig.make(family="classic", **shape))), tokenizer
    return made


@pytest.fixture(scope="module")
def url(models):
    with running(models) as address:
        yield address


def choices(url: str, **body) -> list[dict]:
    return ask_json(url, "/v1/completions", body)[1]["choices"]


def parts(url: str, **body) -> list[dict]:
    return [event["choices"][0] for event in events(url, "/v1/completions", **body, stream=True)]


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.tokenizer.UnknownCharacterWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_and_answer_are_one_text(url, models, family, prompt):
    tokenizer = models[family][1]
    plain = {"model": family, "prompt": prompt, "max_tokens": 13, "seed": 5, "temperature": 1.3}
    (alone,) = choices(url, **plain)
    assert "".join(part["text"] for part in parts(url, **plain)) == alone["text"]
    (with_tokens,) = choices(url, **plain, logprobs=20)
    assert with_tokens["text"] == alone["text"]
    drawn = with_tokens["logprobs"]["tokens"]
    if family in ("bytes", "bpe", "characters"):
        raw = b"".join(spelled(token) for token in drawn)
        assert (prompt.encode() + raw).decode("utf-8", "replace") == prompt + alone["text"]
    for logprobs in (None, 3):
        (echoed,) = choices(url, **plain, echo=True, logprobs=logprobs)
        assert echoed["text"] == prompt + alone["text"], "the prompt comes back as it was sent"
        streamed = parts(url, **plain, echo=True, logprobs=logprobs)
        assert "".join(part["text"] for part in streamed) == echoed["text"]
        assert streamed[-1]["finish_reason"] == echoed["finish_reason"]
        if logprobs is not None:
            assert joined([part["logprobs"] for part in streamed]) == echoed["logprobs"]
            of_prompt = tokenizer.encode(prompt)
            assert len(echoed["logprobs"]["tokens"]) == len(of_prompt) + len(drawn)
            check_places(echoed)


def spelled(token: str) -> bytes:
    return bytes.fromhex(token[6:].replace("\\x", "")) if token.startswith("bytes:") else token.encode()


def joined(tables: list[dict]) -> dict:
    return {name: [entry for table in tables for entry in table[name]] for name in tables[0]}


def check_places(choice: dict) -> None:
    """Places grow from 0, and each token's text begins at its own, where it is one character or more."""
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == sorted(offsets) and (not offsets or offsets[0] == 0)
    assert all(0 <= place <= len(choice["text"]) for place in offsets)


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_come_back_as_their_text(url, models, family):
    tokenizer = models[family][1]
    ids = tokenizer.encode("the fox 🦊")[:-1]  # which may end within a character
    body = {"model": family, "prompt": ids, "max_tokens": 9, "seed": 2}
    for logprobs in (None, 2):
        (echoed,) = choices(url, **body, echo=True, logprobs=logprobs)
        (plain,) = choices(url, **body, logprobs=logprobs)
        assert echoed["text"].endswith(plain["text"])
        assert tokenizer.decode(ids).rstrip("\ufffd") == echoed["text"][: -len(plain["text"]) or None]
        assert "".join(part["text"] for part in parts(url, **body, echo=True, logprobs=logprobs)) == echoed["text"]


def test_the_probability_of_the_first_token(url, models):
    """A model that reads a token before every text has a probability for the first one; otherwise there is none."""
    (llama,) = choices(url, model="llama", prompt="fox dog", max_tokens=0, echo=True, logprobs=2)
    (other,) = choices(url, model="bpe", prompt="fox dog", max_tokens=0, echo=True, logprobs=2)
    assert llama["logprobs"]["token_logprobs"][0] < 0 and llama["text"] == other["text"] == "fox dog"
    assert other["logprobs"]["token_logprobs"][0] is other["logprobs"]["top_logprobs"][0] is None
    model, tokenizer = models["llama"]
    ids = prompt_ids(tokenizer, "fox dog")
    with torch.no_grad():
        wanted = model(torch.tensor([ids]))[0].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    assert llama["logprobs"]["token_logprobs"] == pytest.approx(wanted.tolist(), abs=1e-4)
    streamed = parts(url, model="llama", prompt="fox dog", max_tokens=0, echo=True, logprobs=2)
    assert [part["text"] for part in streamed] == ["fox dog", ""]
    assert streamed[0]["logprobs"] == llama["logprobs"] and streamed[1]["finish_reason"] == "length"


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_log_probabilities_as_requested(url, models, family):
    """Several tokens may have one text (parts of characters, a byte and a letter)."""
    wanted = min(20, models[family][1].vocab_size)
    (choice,) = choices(url, model=family, prompt="x", max_tokens=6, temperature=0, logprobs=20, echo=True)
    logprobs = choice["logprobs"]
    for token, logprob, table in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        if table is None:
            continue
        assert len(table) == wanted and all("\ufffd" not in name for name in table)
        if logprob == max(table.values()):
            assert table[token] == logprob, "the token itself has its own name"
        assert sorted(table.values(), reverse=True) == list(table.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_word_of_an_answer_keeps_its_space(url, models, family):
    """A token that begins a word, forced behind a prompt, compared with decoding all ids at once."""
    tokenizer = models[family][1]
    ids = prompt_ids(tokenizer, "all")
    token = tokenizer.encode("all all")[-1 if family in ("wordpiece", "characters") else len(tokenizer.encode("all"))]
    wanted = tokenizer.decode(tokenizer.text_ids([*ids, token, token]))
    body = {"model": family, "max_tokens": 2, "logit_bias": {str(token): 100}, "temperature": 0}
    for prompt in ("all", ids):
        (whole,) = choices(url, **body, prompt=prompt)
        assert "all" + whole["text"] == wanted
        assert "".join(part["text"] for part in parts(url, **body, prompt=prompt)) == whole["text"]
    if family == "llama":
        assert whole["text"][0] == " "


def test_tokens_of_one_text_have_names_of_their_own(url, models):
    tokenizer = models["llama"][1]
    vocabulary = json.loads(tokenizer.to_json())["model"]["vocab"]
    letter, byte = vocabulary["e"], vocabulary["<0x65>"]
    assert tokenizer.token_bytes(byte) == tokenizer.token_bytes(letter) == b"e"
    bias = {str(byte): 100, str(letter): 100}
    (choice,) = choices(url, model="llama", prompt="fa", max_tokens=12, logprobs=20, logit_bias=bias, seed=1)
    tokens, tables = choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"]
    assert set(tokens) == {"e"} and all(len(table) == 20 for table in tables)
