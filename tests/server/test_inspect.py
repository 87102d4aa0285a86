"""`/api/...` against torch and the engine."""

from __future__ import annotations

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from safetensors.torch import load
from served import TEXT, ask, ask_json, events, small_decoder

from glassformer.generation import Engine, Request, Sampling
from glassformer.server import ModelHandle
from glassformer.server.inspect import LogitsReader

GENERATE = "/api/generate"


def test_models_and_their_sizes(url):
    shown = {model["name"]: model for model in ask_json(url, "/api/models")[1]["models"]}
    assert list(shown) == ["base", "chat", "vectors"]
    assert shown["base"] | {"name": ""} == {
        "name": "", "kind": "Decoder", "writes": True, "chats": False, "reads": "text", "vocab_size": 30,
        "block_size": 200, "n_layer": 2, "n_head": 4, "n_embd": 24, "defaults": {},
    }  # fmt: skip
    assert shown["chat"]["chats"] and not shown["vectors"]["writes"]


def test_the_vocabulary_is_sent_once(url, models):
    with urllib.request.urlopen(f"{url}/api/vocabulary?model=base") as answer:
        shown, tag = json.load(answer), answer.headers["ETag"]
    assert "".join(shown["texts"]) == models["base"][1].decode(range(30))
    assert ask(url, "/api/vocabulary?model=base", **{"If-None-Match": tag}) == (304, b"")
    assert ask(url, "/api/vocabulary?model=base", **{"If-None-Match": '"other"'})[0] == 200


def test_a_text_and_a_chat_become_the_ids_that_the_model_reads(url, models):
    shown = ask_json(url, "/api/tokenize", {"text": "the fox"})[1]
    assert shown["ids"] == models["base"][1].encode("the fox") and "".join(shown["texts"]) == "the fox"
    assert b"".join(map(bytes, shown["bytes"])) == b"the fox"
    messages = [{"role": "user", "content": "the fox"}]
    shown = ask_json(url, "/api/tokenize", {"model": "chat", "messages": messages})[1]
    assert shown["ids"] == models["chat"][1].chat.encode(messages, add_generation_prompt=True)


def test_logits_are_torchs(url, models):
    model, tokenizer = models["base"]
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        wanted = model(torch.tensor([ids]))[0]
    for positions in ([11, 3, 3], [0], [len(ids) - 1], list(range(20, 40))):  # forward and back, and one twice
        status, shown = ask(url, "/api/logits", {"ids": ids, "positions": positions})
        tensors = load(shown)
        assert status == 200 and tensors["positions"].tolist() == positions
        torch.testing.assert_close(tensors["logits"], wanted[positions], atol=1e-5, rtol=1e-5)
    other = tokenizer.encode("the lazy dog")  # another text after the same beginning
    with torch.no_grad():
        wanted = model(torch.tensor([other]))[0]
    shown = load(ask(url, "/api/logits", {"ids": other, "positions": [8, 11]})[1])["logits"]
    torch.testing.assert_close(shown, wanted[[8, 11]], atol=1e-5, rtol=1e-5)


def test_logits_do_not_depend_on_the_chunks(monkeypatch):
    model, tokenizer = small_decoder()
    ids = tokenizer.encode(TEXT * 4)
    monkeypatch.setattr("glassformer.server.inspect.CHUNK", 7)
    reader, pieces = LogitsReader(model, tokenizer), 1
    reading = reader.logits(ids, [2, 50, 101])
    try:
        while True:
            next(reading)
            pieces += 1
    except StopIteration as end:
        shown = end.value
    with torch.no_grad():
        wanted = model(torch.tensor([ids]))[0, [2, 50, 101]]
    assert pieces == 15
    torch.testing.assert_close(shown, wanted, atol=1e-5, rtol=1e-5)
    again = reader.logits(ids, [101])  # all but the last token is known
    with pytest.raises(StopIteration):
        next(again)


def test_generating_sends_what_the_engine_does(url, models):
    model, tokenizer = models["base"]
    ids = tokenizer.encode("the quick")
    sampling = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 5}
    request = Request(tuple(ids), max_new_tokens=12, sampling=Sampling(**sampling), score_prompt=True)
    pieces, scored = [], []
    for event in Engine(model, tokenizer).run(request):
        scored += [piece.probability for piece in event.prompt]
        pieces += [event.piece] if event.piece else []
    shown = events(url, GENERATE, ids=ids, max_tokens=12, score=True, **sampling)
    assert shown[0] == {"type": "start", "model": "base", "seed": 5}
    assert shown[1]["probabilities"][0] is None and shown[1]["probabilities"][1:] == pytest.approx(scored, abs=1e-6)
    assert [event["id"] for event in shown[2:-1]] == [piece.token for piece in pieces]
    for event, piece in zip(shown[2:-1], pieces, strict=True):
        assert event["probability"] == pytest.approx(piece.probability, abs=1e-6)
        assert event["sampling_probability"] == pytest.approx(piece.sampling_probability, abs=1e-6)
    assert shown[-1] == {"type": "end", "reason": "length"}


def test_a_random_seed_is_sent_and_gives_the_same_again(url, models):
    ids = models["base"][1].encode("fox")
    first = events(url, GENERATE, ids=ids, max_tokens=9)
    again = events(url, GENERATE, ids=ids, max_tokens=9, seed=first[0]["seed"])
    assert first == again and 0 <= first[0]["seed"] < 1 << 53


def test_reasons_for_the_end(url, models):
    ids = models["base"][1].encode("jumps")
    read = events(url, GENERATE, ids=ids, max_tokens=0, score=True)
    assert [event["type"] for event in read] == ["start", "prompt", "end"]
    (x,) = models["base"][1].encode("x")
    shown = events(url, GENERATE, ids=ids, max_tokens=200, end_tokens=list(range(30)), seed=1)
    assert len(shown) == 3 and shown[-1]["reason"] == "end_of_text"
    shown = events(url, GENERATE, ids=[x] * 195, max_tokens=60)
    assert [event["type"] for event in shown] == ["start", *["token"] * 5, "end"] and shown[-1]["reason"] == "full"


def test_numbers_in_one_answer_are_bounded(url, monkeypatch):
    monkeypatch.setattr("glassformer.server.inspect.MAX_NUMBERS", 59)
    code, shown = ask_json(url, "/api/logits", {"ids": [1, 2], "positions": [0, 1]})
    assert code == 400 and "60" in shown["error"]["message"] and "59" in shown["error"]["message"]


def test_logits_while_others_generate(url, models, monkeypatch):
    """Jobs run between the engine's steps, a chunk at a time, and change no numbers or tokens of others."""
    monkeypatch.setattr("glassformer.server.inspect.CHUNK", 5)
    model, tokenizer = models["base"]
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        wanted = model(torch.tensor([ids]))[0]

    def generate(_: int = 0) -> list:
        return [event.get("id") for event in events(url, GENERATE, ids=ids, max_tokens=100, seed=3)]

    expected = generate()
    with ThreadPoolExecutor(4) as pool:
        generated = pool.map(generate, range(4))
        for position in (1, 44, *range(0, 40, 3)):
            shown = load(ask(url, "/api/logits", {"ids": ids, "positions": [position]})[1])["logits"]
            torch.testing.assert_close(shown, wanted[[position]], atol=1e-5, rtol=1e-5)
        assert list(generated) == [expected] * 4


def test_a_cancelled_job_is_ended(models):
    begun, ended = threading.Event(), threading.Event()

    def endless():
        try:
            while True:
                begun.set()
                yield
        finally:
            ended.set()

    worker = ModelHandle("base", *models["base"]).worker
    assert worker is not None
    job = worker.run_in_engine_thread(endless())
    behind = worker.run_in_engine_thread(word for word in ())
    assert begun.wait(20) and job.cancel()
    assert ended.wait(20) and behind.result(20) is None
    worker.stop()


def test_an_error_of_a_job_is_reported_and_the_next_is_served(url, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LogitsReader, "logits", lambda self, ids, positions: (1 / 0 for _ in "x"))
        code, shown = ask_json(url, "/api/logits", {"ids": [1], "positions": [0]})
        assert code == 500 and shown["error"]["type"] == "server_error"
    assert ask(url, "/api/logits", {"ids": [1], "positions": [0]})[0] == 200


def test_the_page_and_its_policy(url):
    with urllib.request.urlopen(f"{url}/") as answer:
        page, headers = answer.read().decode(), answer.headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert "style=" not in page and "onclick" not in page and "://" not in page  # nothing inline
    with urllib.request.urlopen(f"{url}/web/main.js") as answer:
        assert answer.headers["Content-Type"].startswith("text/javascript")
    assert ask(url, "/web/nothing.js")[0] == ask(url, "/web/../page.py")[0] == 404
