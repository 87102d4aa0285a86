"""What a model's folder sets holds where a request does not say, is shown, and is overridden field by field."""

from __future__ import annotations

import json
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import running, small_decoder

from glassformer.generation import Engine, Request, Sampling
from glassformer.models import GenerationSettings

FOLDER = {"temperature": 0.3, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.7, "max_new_tokens": 23}


@pytest.fixture(scope="module")
def models():
    model, tokenizer = small_decoder()
    model.generation_settings = GenerationSettings(**FOLDER)
    return {"set": (model, tokenizer), "plain": small_decoder()}


@pytest.fixture(scope="module")
def url(models):
    with running(models) as address:
        yield address


def ask(url: str, path: str, body: dict | None = None) -> str:
    given = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url + path, given, {"Content-Type": "application/json"})
    ) as answer:
        return answer.read().decode()


def expected(models, n: int, **sampling) -> list[int]:
    model, tokenizer = models["set"]
    request = Request(tuple(tokenizer.encode("the")), n, sampling=Sampling(**sampling))
    return [event.piece.token for event in Engine(model, tokenizer).run(request) if event.piece]


def test_they_are_shown(url):
    shown = {key: value for key, value in FOLDER.items() if key != "max_new_tokens"} | {"max_tokens": 23}
    for path, name in (("/v1/models", "data"), ("/api/models", "models")):
        assert [one["defaults"] for one in json.loads(ask(url, path))[name]] == [shown, {}]


@pytest.mark.parametrize(
    ("fields", "n", "sampling"),
    [
        ({}, 23, {"temperature": 0.3, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.7}),
        ({"temperature": 2}, 23, {"temperature": 2, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.7}),
        ({"repetition_penalty": 1, "top_k": 0, "temperature": 1, "top_p": 1, "max_tokens": 5}, 5, {}),
        ({"min_p": 0.9, "temperature": None}, 23,
         {"temperature": 0.3, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.7, "min_p": 0.9}),
    ],
)  # fmt: skip
def test_they_hold_where_a_request_does_not_say(url, models, fields, n, sampling):
    tokenizer = models["set"][1]
    wanted = expected(models, n, seed=4, **sampling)
    answer = json.loads(ask(url, "/v1/completions", {"prompt": "the", "seed": 4, **fields}))
    assert answer["choices"][0]["text"] == tokenizer.decode(wanted)
    lines = ask(url, "/api/generate", {"ids": tokenizer.encode("the"), "seed": 4, "max_tokens": n, **fields})
    events = [json.loads(line[6:]) for line in lines.splitlines() if line]
    assert [event["id"] for event in events if event["type"] == "token"] == wanted
