"""`response_format` through the API, as OpenAI's own client sees it."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the package openai")
pytest.importorskip("llguidance", reason="needs the extra grammar")

import jsonschema  # noqa: E402
import torch  # noqa: E402
from served import CHAT, ask_json, running, shaken  # noqa: E402

from glassformer.models import Decoder, ModelConfig  # noqa: E402
from glassformer.processors.tokenizers import TOKENIZERS  # noqa: E402

CITY = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Ulm", "Köln", '"quoted"', "\\u0007"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "rivers": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    },
    "required": ["name", "people", "rivers"],
    "additionalProperties": False,
}
ASKED = {"messages": [{"role": "user", "content": "A city?"}]}


def format_of(schema, **fields):
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, **fields}}


@pytest.fixture(scope="module")
def url():
    torch.manual_seed(2)
    tokenizer = TOKENIZERS["bytes"]([])
    tokenizer.chat_template = CHAT
    config = ModelConfig.make(
        family="modern", vocab_size=tokenizer.vocab_size, block_size=600, n_layer=1, n_head=2, n_embd=12
    )
    with running({"random": (shaken(Decoder(config)), tokenizer)}) as address:
        yield address


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("strict", [None, True, False])
def test_an_answer_is_json_of_the_schema(client, strict):
    given = format_of(CITY, **({} if strict is None else {"strict": strict}))
    answer = client.chat.completions.create(model="random", **ASKED, n=20, seed=1, response_format=given)
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), CITY)
        assert choice.finish_reason == "stop"
    assert len({choice.message.content for choice in answer.choices}) > 1
    free = client.chat.completions.create(model="random", **ASKED, n=20, seed=1, max_tokens=50)
    with pytest.raises(ValueError):
        json.loads(free.choices[0].message.content)


def test_a_stream_gives_the_same(client):
    fields = {**ASKED, "seed": 3, "response_format": format_of(CITY), "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(model="random", **fields).choices[0]
    pieces = [piece.choices[0] for piece in client.chat.completions.create(model="random", stream=True, **fields)]
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.message.content
    assert pieces[-1].finish_reason == whole.finish_reason == "stop"
    assert len(whole.logprobs.content) > 9


def test_any_object_and_a_completion(client):
    given = {"type": "json_object"}
    answer = client.chat.completions.create(model="random", **ASKED, n=9, seed=1, max_tokens=80, response_format=given)
    done = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    assert all(isinstance(json.loads(choice.message.content), dict) for choice in done)
    assert all(choice.message.content.startswith("{") for choice in answer.choices)
    extra = {"response_format": format_of({"const": [1, "é"]})}
    answer = client.completions.create(model="random", prompt="A city:", max_tokens=200, extra_body=extra)
    assert json.loads(answer.choices[0].text) == [1, "é"]


def test_an_answer_that_is_cut_off_has_the_reason_length(client):
    given = format_of({"const": "a long constant"})
    (choice,) = client.chat.completions.create(model="random", **ASKED, max_tokens=5, response_format=given).choices
    assert (choice.message.content, choice.finish_reason) == ('"a lo', "length")


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        (format_of({"type": "array", "uniqueItems": True}), "response_format", "uniqueItems"),
        (format_of({"$ref": "http://127.0.0.1/x"}), "response_format", "refused"),
        (format_of({"enum": ["x" * 70_000]}), "response_format.json_schema.schema", "65,536"),
        (format_of(nested(300)), "response_format", "recursion"),
        (format_of([]), "response_format.json_schema.schema", "object"),
        (format_of({}, name="a b"), "response_format.json_schema.name", "name"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema", "missing"),
        ({"type": "json_schema"}, "response_format.json_schema", "goes with"),
        (
            {"type": "json_object", "json_schema": {"name": "x", "schema": {}}},
            "response_format.json_schema",
            "goes with",
        ),
        ({"type": "grammar"}, "response_format.type", "json_schema"),
        ({"type": "text", "x": 1}, "response_format.x", "no such field"),
        ("json", "response_format", "object"),
    ],
)
def test_a_format_that_cannot_be_followed_is_refused_in_one_line(url, given, param, words):
    status, answer = ask_json(url, "/v1/chat/completions", {"model": "random", **ASKED, "response_format": given})
    assert status == 400 and answer["error"]["param"] == param, answer
    message = answer["error"]["message"]
    assert words in message and "\n" not in message and len(message) < 600


def test_text_is_the_default(client):
    fields = {**ASKED, "seed": 1, "max_tokens": 9}
    texts = {
        client.chat.completions.create(model="random", **fields, **given).choices[0].message.content
        for given in ({}, {"response_format": {"type": "text"}})
    }
    assert len(texts) == 1


def test_without_the_package_the_error_names_the_extra(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    body = {"model": "random", **ASKED, "response_format": format_of(CITY)}
    status, answer = ask_json(url, "/v1/chat/completions", body)
    assert status == 501 and "glassformer[grammar]" in answer["error"]["message"]
    assert ask_json(url, "/v1/chat/completions", {"model": "random", **ASKED, "max_tokens": 1})[0] == 200
