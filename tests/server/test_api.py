"""The API as OpenAI's own client sees it, over a real socket."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
from patience import PATIENCE

pytest.importorskip("fastapi", reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the package openai")

from served import CHAT, TEXT, running, small_decoder, small_encoder  # noqa: E402

from glassformer.generation import Engine, Request, Sampling, embed  # noqa: E402


@pytest.fixture(scope="module")
def models():
    return {"base": small_decoder(), "chat": small_decoder(template=CHAT), "vectors": small_encoder()}


@pytest.fixture(scope="module")
def url(models):
    with running(models) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def expected(pair, prompt: str, n: int, **sampling) -> str:
    model, tokenizer = pair
    engine = Engine(model, tokenizer)
    engine.submit(Request(ids=tuple(tokenizer.encode(prompt)), max_new_tokens=n, sampling=Sampling(**sampling)))
    text = ""
    while engine.busy:
        text += "".join(event.piece.text for event in engine.step())
    return text


def post(url: str, path: str, body: bytes | dict, **headers: str) -> tuple[int, dict]:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["base", "chat", "vectors"]
    assert client.models.retrieve("chat").owned_by == "glassformer"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'; there are: base, chat, vectors"):
        client.models.retrieve("other")


def test_a_completion_is_what_the_engine_says(client, models):
    answer = client.completions.create(model="base", prompt="the quick", max_tokens=20, seed=5, temperature=0.7)
    assert answer.choices[0].text == expected(models["base"], "the quick", 20, seed=5, temperature=0.7)
    assert answer.choices[0].finish_reason == "length" and answer.object == "text_completion"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 20, 29)
    again = client.completions.create(model="base", prompt="the quick", max_tokens=20, seed=5, temperature=0.7)
    assert again.choices[0].text == answer.choices[0].text and again.id != answer.id


def test_several_prompts_and_samples(client, models):
    answer = client.completions.create(model="base", prompt=["the", "fox"], n=2, max_tokens=6, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    wanted = [expected(models["base"], prompt, 6, seed=seed) for prompt in ("the", "fox") for seed in (1, 2)]
    assert [choice.text for choice in answer.choices] == wanted
    ids = models["base"][1].encode("the")
    answer = client.completions.create(model="base", prompt=ids, max_tokens=6, seed=1)
    assert answer.choices[0].text == wanted[0]


def test_a_stream_is_the_same_in_pieces(client, models):
    stream = client.completions.create(
        model="base", prompt="the", max_tokens=15, seed=3, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    assert "".join(p.choices[0].text for p in pieces[:-1]) == expected(models["base"], "the", 15, seed=3)
    assert [p.choices[0].finish_reason for p in pieces[:-1]] == [None] * 14 + ["length"]
    assert pieces[-1].choices == [] and pieces[-1].usage.completion_tokens == 15


def test_log_probabilities_of_prompt_and_answer(client, models):
    model, tokenizer = models["base"]
    answer = client.completions.create(
        model="base", prompt="lazy", max_tokens=3, logprobs=2, echo=True, temperature=0, seed=0
    ).choices[0]
    ids = tokenizer.encode(answer.text)
    with torch.no_grad():
        logp = model(torch.tensor([ids])).log_softmax(dim=-1)[0]
    told = answer.logprobs
    assert answer.text.startswith("lazy") and told.tokens == [tokenizer.decode([i]) for i in ids]
    assert told.text_offset == list(range(7)) and told.token_logprobs[0] is None
    for t in range(1, 7):
        assert told.token_logprobs[t] == pytest.approx(float(logp[t - 1, ids[t]]), abs=1e-3)
        best = logp[t - 1].topk(2).indices.tolist()
        assert set(told.top_logprobs[t]) == {tokenizer.decode([i]) for i in best}


def test_a_chat(client, models):
    model, tokenizer = models["chat"]
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = client.chat.completions.create(
        model="chat", messages=messages, max_tokens=12, seed=2, logprobs=True, top_logprobs=3
    )
    plain = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    engine = Engine(model, tokenizer)
    engine.submit(Request(ids=tuple(tokenizer.chat.encode(plain)), max_new_tokens=12, sampling=Sampling(seed=2)))
    pieces = []
    while engine.busy:
        pieces += [event.piece for event in engine.step()]
    assert answer.choices[0].message.content == "".join(piece.text for piece in pieces)
    assert answer.choices[0].message.role == "assistant"
    assert [bytes(entry.bytes) for entry in answer.choices[0].logprobs.content] == [
        tokenizer.token_bytes(piece.token) for piece in pieces
    ]
    assert all(len(entry.top_logprobs) == 3 for entry in answer.choices[0].logprobs.content)
    stream = list(client.chat.completions.create(model="chat", messages=plain, max_tokens=12, seed=2, stream=True))
    assert stream[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in stream) == answer.choices[0].message.content


def test_vectors(client, models):
    texts = ["the lazy dog", "a quick fox jumps"]
    wanted = embed(*models["vectors"], texts)
    answer = client.embeddings.create(model="vectors", input=texts)  # the client asks for base64
    got = torch.tensor([entry.embedding for entry in answer.data])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    plain = client.embeddings.create(model="vectors", input=texts[0], encoding_format="float")
    torch.testing.assert_close(torch.tensor(plain.data[0].embedding), wanted[0], atol=1e-6, rtol=1e-5)


def test_base64_is_little_endian_fp32(url, models):
    _, answer = post(url, "/v1/embeddings", {"model": "vectors", "input": "the", "encoding_format": "base64"})
    spelled = base64.b64decode(answer["data"][0]["embedding"])
    vector = struct.unpack(f"<{len(spelled) // 4}f", spelled)
    assert vector == pytest.approx(embed(*models["vectors"], ["the"])[0].tolist(), abs=1e-6)


def test_stop_strings_and_biases(client, models):
    text = expected(models["base"], "the", 40, seed=9)
    cut = client.completions.create(model="base", prompt="the", max_tokens=40, seed=9, stop=[text[10:12]]).choices[0]
    assert cut.text == text[: text.index(text[10:12])] and cut.finish_reason == "stop"
    (x,) = models["base"][1].encode("x")
    forced = client.completions.create(model="base", prompt="the", max_tokens=4, logit_bias={str(x): 100})
    assert forced.choices[0].text == "xxxx"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("completions", b"{", 400, "the body is not JSON: Expecting property name"),
        ("completions", b"[1]", 400, "the body is no JSON object; send one"),
        (
            "completions",
            {"prompt": "a", "max_tokens": -1},
            400,
            "max_tokens: -1 is out of range; use 0 or more",
        ),
        ("completions", {"prompt": "a", "n": 1000}, 400, "n: 1000 is out of range; use 64 or less"),
        ("completions", {"prompt": "a", "temperature": "hot"}, 400, 'temperature: "hot" is not a number; give one'),
        (
            "completions",
            {"prompt": "a", "frequency_penalty": 1},
            400,
            "frequency_penalty: is not supported; use repetition_penalty",
        ),
        (
            "completions",
            {"prompt": "a", "logit_bias": {"x": 1}},
            400,
            "logit_bias: give numbers from -100 to 100 by token id",
        ),
        ("completions", {"prompt": "a", "logit_bias": {"999": 1}}, 400, "token 999 is not in the vocabulary"),
        ("completions", {"prompt": [5, 999]}, 400, "token 999 is not in the vocabulary"),
        ("completions", {"prompt": "a" * 500}, 400, "the prompt has 500 tokens and base reads 200 at most; shorten it"),
        ("completions", {"model": "vectors", "prompt": "a"}, 400, "vectors writes nothing; it gives vectors"),
        ("completions", {"model": "x", "prompt": "a"}, 404, "there is no model 'x'; there are: base, chat, vectors"),
        ("chat/completions", {"messages": []}, 400, "messages: has 0 entries, and 1 are needed"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}]}, 400, "base has no chat template; use"),
        ("chat/completions", {"model": "chat", "messages": [{"content": "a"}]}, 400, "messages.0.role: is missing"),
        ("embeddings", {"input": "a"}, 400, "base gives no vectors; name an encoder"),
        ("embeddings", {"model": "vectors", "input": " "}, 400, "text 1 is empty"),
        ("nowhere", {}, 404, "Not Found"),
    ],
)
def test_mistakes_are_told_in_openais_shape(url, path, body, status, message):
    code, answer = post(url, f"/v1/{path}", body)
    assert code == status and set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["message"].startswith(message)


def test_bodies_are_bounded(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", str(9 << 20))
    connection.endheaders()  # it is refused before it is sent
    answer = connection.getresponse()
    message = json.load(answer)["error"]["message"]
    assert answer.status == 413 and message == "the body is larger than 8,388,608 bytes; shorten it"
    connection.close()


def test_health_and_metrics(url, client):
    with urllib.request.urlopen(f"{url}/healthz") as answer:
        assert json.load(answer) == {"status": "ok"}
    before = counts(url)
    client.completions.create(model="base", prompt="the", max_tokens=7)
    after = counts(url)
    grown = {name: after[name] - before[name] for name in before if 'model="base"' in name}
    assert grown['glassformer_completion_tokens_total{model="base"}'] == 7
    assert grown['glassformer_prompt_tokens_total{model="base"}'] == 3
    assert after['glassformer_cache_bytes{model="base"}'] <= after['glassformer_cache_max_bytes{model="base"}']


def counts(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_a_client_that_goes_away_frees_its_row(url, client):
    stream = client.completions.create(model="base", prompt="the", max_tokens=60_000, stream=True)
    next(iter(stream))
    assert counts(url)['glassformer_rows_active{model="base"}'] == 1
    stream.close()
    deadline = time.monotonic() + PATIENCE
    while counts(url)['glassformer_rows_active{model="base"}'] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts(url)['glassformer_rows_active{model="base"}'] == 0


def test_a_client_that_stops_waiting_frees_its_row_too(url):
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address)
    body = json.dumps({"model": "base", "prompt": "the", "max_tokens": 60_000})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + PATIENCE
    while not counts(url)['glassformer_rows_active{model="base"}'] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts(url)['glassformer_rows_active{model="base"}'] == 1
    connection.close()
    while counts(url)['glassformer_rows_active{model="base"}'] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts(url)['glassformer_rows_active{model="base"}'] == 0


def test_many_at_once_get_what_each_gets_alone(client, models):
    wanted = {i: expected(models["base"], TEXT[i : i + 9], 10 + i, seed=i) for i in range(20)}
    got: dict[int, str] = {}

    def ask(i: int) -> None:
        answer = client.completions.create(model="base", prompt=TEXT[i : i + 9], max_tokens=10 + i, seed=i)
        got[i] = answer.choices[0].text

    threads = [threading.Thread(target=ask, args=(i,)) for i in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == wanted


def test_a_key_is_asked_for(models):
    with running(models, api_key="secret") as url:
        assert post(url, "/v1/completions", {"prompt": "a"})[0] == 401
        assert post(url, "/v1/completions", {"prompt": "a"}, Authorization="Bearer wrong")[0] == 401
        code, _ = post(url, "/v1/completions", {"prompt": "a", "max_tokens": 1}, Authorization="Bearer secret")
        assert code == 200


def test_another_name_of_this_machine_is_refused(url):
    for host in ("evil.example", "testserver", "10.0.0.7:80", "127.0.0.1.evil.example", "[2001:db8::1]:80", "["):
        code, answer = post(url, "/v1/completions", {"prompt": "a"}, Host=host)
        assert code == 421 and host in answer["error"]["message"]
    for host in ("localhost", "localhost:99", "127.0.0.1", "127.0.0.9:80", "[::1]", "[::1]:8000", "LocalHost:1"):
        assert post(url, "/v1/completions", {"prompt": "a", "max_tokens": 1}, Host=host)[0] == 200


def test_a_fault_of_ours_is_told_to_all_who_wait_and_the_next_is_served(models, monkeypatch):
    with running({"base": models["base"]}) as url:
        failing = monkeypatch.context()
        with failing as patch:
            patch.setattr(Engine, "_write", lambda self: 1 / 0)
            code, answer = post(url, "/v1/completions", {"prompt": "the", "max_tokens": 3})
            assert code == 500 and answer["error"]["type"] == "server_error"
        code, answer = post(url, "/v1/completions", {"prompt": "the", "max_tokens": 3, "seed": 1})
        assert code == 200 and answer["choices"][0]["text"] == expected(models["base"], "the", 3, seed=1)
