"""One bad request fails itself with 400 or 500, never those beside it; the log has the traceback."""

from __future__ import annotations

import json
import logging
import threading

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import TEXT, ask, ask_json, running, shaken

from glassformer.generation import Engine, embed
from glassformer.models import Decoder, Encoder, EncoderConfig, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS

PADDING = range(29, 37)


class Planted(Exception):
    """An error that nothing else raises."""


@pytest.fixture(scope="module")
def models():
    """A decoder with eight rows more than tokens, and those are the most likely ones; and an encoder."""
    torch.manual_seed(4)
    tokenizer = TOKENIZERS["characters"]([TEXT])
    assert tokenizer.vocab_size == PADDING.start
    shape = {"vocab_size": PADDING.stop, "block_size": 211, "n_layer": 2, "n_head": 3, "n_embd": 30}
    model = shaken(Decoder(ModelConfig.make(family="classic", tied_head=False, head_bias=True, **shape)))
    with torch.no_grad():
        model.head.bias[list(PADDING)] += 30
    encoder = EncoderConfig.make(family="modern", pooling="mean", **{**shape, "n_embd": 24, "n_head": 4})
    reader = shaken(Encoder(encoder))
    return {"padded": (model, tokenizer), "vectors": (reader, tokenizer)}


@pytest.fixture(scope="module")
def url(models):
    with running(models) as address:
        yield address


BODY = {"prompt": "the lazy dog", "max_tokens": 400, "seed": 3, "stop": []}


@pytest.fixture(scope="module")
def alone(url):
    return ask_json(url, "/v1/completions", BODY)


@pytest.fixture
def neighbour(url, alone):
    """Another request that runs during the test."""
    answers: list[tuple[int, dict]] = []
    thread = threading.Thread(target=lambda: answers.append(ask_json(url, "/v1/completions", BODY)))
    thread.start()
    yield
    thread.join()
    assert alone[0] == answers[0][0] == 200
    assert answers[0][1]["choices"][0]["text"] == alone[1]["choices"][0]["text"]


@pytest.mark.parametrize("token", [PADDING.start, PADDING.stop, 1 << 30])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": ["the", [1, "ID"]], "repetition_penalty": 1.2}),
        ("/v1/completions", {"prompt": [0, "ID"], "echo": True, "logprobs": 1}),
        ("/v1/completions", {"prompt": "a", "logit_bias": {"ID": 5}}),
        ("/v1/completions", {"prompt": [1, "ID"], "stream": True}),
        ("/api/generate", {"ids": [0, "ID"], "score": True}),
        ("/api/generate", {"ids": [0], "end_tokens": ["ID"]}),
        ("/api/logits", {"ids": ["ID"], "positions": [0]}),
    ],
)
def test_ids_without_a_token_are_refused(url, token, path, fields):
    body = json.loads(json.dumps(fields).replace('"ID"', str(token)).replace(f"{{{token}", f'{{"{token}"'))
    status, answer = ask(url, path, body)
    assert status == 400
    message = json.loads(answer)["error"]["message"]
    assert str(token) in message and f"0 to {PADDING.start - 1}" in message


def test_an_id_without_a_token_is_never_generated(url):
    status, answer = ask(url, "/v1/completions", {"prompt": "fox", "max_tokens": 60, "logprobs": 20, "temperature": 2})
    shown = json.loads(answer)["choices"][0]
    assert status == 200 and len(shown["text"]) == 60
    assert all(sum(2.718281828**p for p in top.values()) > 0.5 for top in shown["logprobs"]["top_logprobs"])


@pytest.mark.parametrize(
    ("path", "stream"), [("/v1/completions", False), ("/v1/completions", True), ("/api/generate", True)]
)
def test_a_failure_is_one_clients_and_its_traceback_is_in_the_log(url, neighbour, monkeypatch, caplog, path, stream):
    submit = Engine.submit

    def planted(self, request):
        number = submit(self, request)
        for row in self.waiting:
            if row.number == number and row.request.max_new_tokens == 17:
                monkeypatch.setattr(row, "take", lambda *a: raise_planted())
        return number

    monkeypatch.setattr(Engine, "submit", planted)
    body = {"prompt": "the fox", "stream": stream} if path.startswith("/v1") else {"ids": [1, 2]}
    with caplog.at_level(logging.ERROR, "glassformer"):
        status, answer = ask(url, path, {**body, "max_tokens": 17})
        answer = answer.decode()
    if stream:  # the answer has begun
        shown = json.loads([line for line in answer.splitlines() if line][-1].removeprefix("data: "))
        message = shown["message"] if path == "/api/generate" else shown["error"]["message"]
        assert status == 200 and (path == "/api/generate" or shown["error"]["type"] == "server_error")
    else:
        message = json.loads(answer)["error"]["message"]
        assert status == 500
    assert "log" in message and "planted" not in message, "the client gets no details"
    (record,) = [r for r in caplog.records if r.exc_info and r.exc_info[0] is Planted]
    assert "raise_planted" in caplog.text and record.levelno == logging.ERROR


def raise_planted():
    raise Planted("planted")


def test_an_engine_that_fails_is_replaced_and_the_log_has_why(url, monkeypatch, caplog):
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "glassformer"):
        patch.setattr(Engine, "_write", lambda self: raise_planted())
        status, answer = ask(url, "/v1/completions", {"prompt": "the", "max_tokens": 3})
    assert status == 500 and json.loads(answer)["error"]["type"] == "server_error"
    assert "raise_planted" in caplog.text
    assert ask(url, "/v1/completions", {"prompt": "the", "max_tokens": 3})[0] == 200


def test_vectors_of_nan_are_an_error(url, models, monkeypatch):
    model, tokenizer = models["vectors"]
    assert embed(model, tokenizer, ["fox"]).isfinite().all()
    monkeypatch.setattr(model, "pool", lambda vectors, lengths: vectors[:, 0] * torch.nan)
    status, answer = ask(url, "/v1/embeddings", {"model": "vectors", "input": "fox"})
    assert status == 500 and "NaN" in json.loads(answer)["error"]["message"]
