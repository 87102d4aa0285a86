"""The API as OpenAI's own client sees it, over a real socket."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time

import pytest
import torch
from patience import PATIENCE

pytest.importorskip("fastapi", reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the package openai")

from served import ask, ask_json, events, pieces_of, running, small_decoder, text_of  # noqa: E402

from glassformer.generation import embed  # noqa: E402
from glassformer.models import GenerationSettings  # noqa: E402


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["base", "chat", "vectors"]
    assert client.models.retrieve("chat").owned_by == "glassformer"
    with pytest.raises(openai.NotFoundError, match=r"'other'.*: base, chat, vectors"):
        client.models.retrieve("other")


def test_a_completion_is_what_the_engine_gives(client, models):
    settings = {"seed": 5, "temperature": 0.7}
    answer, again = (
        client.completions.create(model="base", prompt="the quick", max_tokens=20, **settings) for _ in range(2)
    )
    assert answer.choices[0].text == text_of(models["base"], "the quick", 20, **settings) == again.choices[0].text
    assert answer.choices[0].finish_reason == "length" and answer.object == "text_completion"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 20, 29)
    assert again.id != answer.id


def test_several_prompts_and_samples(client, models):
    answer = client.completions.create(model="base", prompt=["the", "fox"], n=2, max_tokens=6, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    wanted = [text_of(models["base"], prompt, 6, seed=seed) for prompt in ("the", "fox") for seed in (1, 2)]
    assert [choice.text for choice in answer.choices] == wanted
    ids = models["base"][1].encode("the")
    assert client.completions.create(model="base", prompt=ids, max_tokens=6, seed=1).choices[0].text == wanted[0]


def test_a_stream_is_the_same_in_pieces(client, models):
    stream = client.completions.create(
        model="base", prompt="the", max_tokens=15, seed=3, stream=True, stream_options={"include_usage": True}
    )
    *pieces, last = stream
    assert "".join(p.choices[0].text for p in pieces) == text_of(models["base"], "the", 15, seed=3)
    assert [p.choices[0].finish_reason for p in pieces] == [None] * 14 + ["length"]
    assert last.choices == [] and last.usage.completion_tokens == 15


def test_log_probabilities_of_prompt_and_answer(client, models):
    model, tokenizer = models["base"]
    answer = client.completions.create(
        model="base", prompt="lazy", max_tokens=3, logprobs=2, echo=True, temperature=0, seed=0
    ).choices[0]
    ids = tokenizer.encode(answer.text)
    with torch.no_grad():
        logp = model(torch.tensor([ids])).log_softmax(dim=-1)[0]
    found = answer.logprobs
    assert answer.text.startswith("lazy") and found.tokens == [tokenizer.decode([i]) for i in ids]
    assert found.text_offset == list(range(7)) and found.token_logprobs[0] is None
    for t in range(1, 7):
        assert found.token_logprobs[t] == pytest.approx(float(logp[t - 1, ids[t]]), abs=1e-3)
        best = logp[t - 1].topk(2).indices.tolist()
        assert set(found.top_logprobs[t]) == {tokenizer.decode([i]) for i in best}


def test_a_chat(client, models):
    tokenizer = models["chat"][1]
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = client.chat.completions.create(
        model="chat", messages=messages, max_tokens=12, seed=2, logprobs=True, top_logprobs=3
    ).choices[0]
    plain = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    pieces = pieces_of(models["chat"], tokenizer.chat.encode(plain), 12, seed=2)
    assert answer.message.content == "".join(piece.text for piece in pieces) and answer.message.role == "assistant"
    entries = answer.logprobs.content
    assert [bytes(entry.bytes) for entry in entries] == [tokenizer.token_bytes(piece.token) for piece in pieces]
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    stream = list(client.chat.completions.create(model="chat", messages=plain, max_tokens=12, seed=2, stream=True))
    assert stream[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in stream) == answer.message.content


def test_vectors_of_texts_and_of_ids(client, url, models):
    model, tokenizer = models["vectors"]
    texts = ["the lazy dog", "a fox"]
    ids = [tokenizer.encode(text) for text in texts]
    wanted = embed(model, tokenizer, texts)
    for given, expected in ((texts, wanted), (ids, wanted), (texts[0], wanted[:1]), (ids[0], wanted[:1])):
        for form in ("base64", "float"):  # the client asks for base64 by default
            answer = client.embeddings.create(model="vectors", input=given, encoding_format=form)
            got = [decoded(e.embedding) if isinstance(e.embedding, str) else e.embedding for e in answer.data]
            torch.testing.assert_close(torch.tensor(got), expected, atol=1e-6, rtol=1e-5)
    counts = ask_json(url, "/v1/embeddings", {"model": "vectors", "input": texts, "dimensions": 24})[1]["usage"]
    assert counts == {"prompt_tokens": 17, "total_tokens": 17}


def decoded(spelled: str) -> list[float]:
    """Base64 of little-endian fp32."""
    raw = base64.b64decode(spelled)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def test_stop_strings_and_biases(client, models):
    text = text_of(models["base"], "the", 40, seed=9)
    cut = client.completions.create(model="base", prompt="the", max_tokens=40, seed=9, stop=[text[10:12]]).choices[0]
    assert cut.text == text[: text.index(text[10:12])] and cut.finish_reason == "stop"
    (x,) = models["base"][1].encode("x")
    forced = client.completions.create(model="base", prompt="the", max_tokens=4, logit_bias={str(x): 100})
    assert forced.choices[0].text == "xxxx"


FOLDER = {"temperature": 0.3, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.7, "max_new_tokens": 23}
SAMPLING = {name: value for name, value in FOLDER.items() if name != "max_new_tokens"}


@pytest.fixture(scope="module")
def with_defaults():
    """A model whose folder sets some settings, and its server."""
    model, tokenizer = small_decoder()
    model.generation_settings = GenerationSettings(**FOLDER)
    with running({"set": (model, tokenizer), "plain": small_decoder()}) as url:
        yield (model, tokenizer), url


def test_defaults_of_the_folder_are_shown(with_defaults):
    for path, name in (("/v1/models", "data"), ("/api/models", "models")):
        shown = [model["defaults"] for model in ask_json(with_defaults[1], path)[1][name]]
        assert shown == [SAMPLING | {"max_tokens": 23}, {}]


@pytest.mark.parametrize(
    ("fields", "n", "sampling"),
    [
        ({}, 23, SAMPLING),
        ({"temperature": 2}, 23, SAMPLING | {"temperature": 2}),
        ({"repetition_penalty": 1, "top_k": 0, "temperature": 1, "top_p": 1, "max_tokens": 5}, 5, {}),
        ({"min_p": 0.9, "temperature": None}, 23, SAMPLING | {"min_p": 0.9}),
    ],
)
def test_defaults_of_the_folder_hold_field_by_field(with_defaults, fields, n, sampling):
    pair, url = with_defaults
    wanted = [piece.token for piece in pieces_of(pair, "the", n, seed=4, **sampling)]
    _, answer = ask_json(url, "/v1/completions", {"prompt": "the", "seed": 4, **fields})
    assert answer["choices"][0]["text"] == pair[1].decode(wanted)
    shown = events(url, "/api/generate", **{"ids": pair[1].encode("the"), "seed": 4, "max_tokens": n, **fields})
    assert [event["id"] for event in shown if event["type"] == "token"] == wanted


def test_health_and_metrics(url, client):
    assert ask_json(url, "/healthz") == (200, {"status": "ok"})
    before = counts(url)
    client.completions.create(model="base", prompt="the", max_tokens=7)
    after = counts(url)
    grown = {name: after[name] - before[name] for name in before if 'model="base"' in name}
    assert grown['glassformer_completion_tokens_total{model="base"}'] == 7
    assert grown['glassformer_prompt_tokens_total{model="base"}'] == 3
    assert after['glassformer_cache_bytes{model="base"}'] <= after['glassformer_cache_max_bytes{model="base"}']


def counts(url: str) -> dict[str, float]:
    lines = [line.split() for line in ask(url, "/metrics")[1].decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def wait_for_rows(url: str, n: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while counts(url)['glassformer_rows_active{model="base"}'] != n and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts(url)['glassformer_rows_active{model="base"}'] == n


def test_a_client_that_disconnects_frees_its_row(url, client):
    stream = client.completions.create(model="base", prompt="the", max_tokens=60_000, stream=True)
    next(iter(stream))
    wait_for_rows(url, 1)
    stream.close()
    wait_for_rows(url, 0)
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    body = json.dumps({"model": "base", "prompt": "the", "max_tokens": 60_000})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    wait_for_rows(url, 1)
    connection.close()
    wait_for_rows(url, 0)


def test_a_key_is_needed_by_all_but_the_page(models):
    with running({"base": models["base"]}, api_key="secret") as url:
        key, body = {"Authorization": "Bearer secret"}, {"prompt": "a", "max_tokens": 1}
        for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), (key, 200)):
            assert ask(url, "/v1/completions", body, **headers)[0] == status
            assert ask(url, "/api/logits", {"ids": [1], "positions": [0]}, **headers)[0] == status
        for path in ("/api/models", "/api/vocabulary", "/web/../api/models"):
            assert ask(url, path)[0] in (401, 404), path
        assert ask(url, "/")[0] == ask(url, "/web/main.js")[0] == 200
        assert ask(url, "/", Host="evil.example")[0] == 421
        assert ask(url, "/api/models", Host="evil.example", **key)[0] == 421


def test_only_names_of_this_machine_are_accepted_as_host(url):
    for host in ("evil.example", "testserver", "10.0.0.7:80", "127.0.0.1.evil.example", "[2001:db8::1]:80", "["):
        code, answer = ask_json(url, "/v1/completions", {"prompt": "a"}, Host=host)
        assert code == 421 and host in answer["error"]["message"]
    for host in ("localhost", "localhost:99", "127.0.0.1", "127.0.0.9:80", "[::1]", "[::1]:8000", "LocalHost:1"):
        assert ask(url, "/v1/models", Host=host)[0] == 200


def test_bodies_are_bounded(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", str(9 << 20))
    connection.endheaders()  # it is refused before it is sent
    answer = connection.getresponse()
    assert answer.status == 413 and "8,388,608 bytes" in json.load(answer)["error"]["message"]
    connection.close()
