"""`model: "auto"`: a classifier names the model that answers, and the answer is that model's own."""

from __future__ import annotations

import functools

import pytest
import torch
from command_line import glassformer, refused

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import CHAT, ask, ask_json, events, running, small_decoder, text_of

from glassformer.errors import UsageError
from glassformer.hub import save
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.server import ModelHandle
from glassformer.server.router import open_router

__all__ = ["glassformer", "refused"]


def classifier(folder, labels):
    """An encoder that answers labels[0] for a text of x, and labels[1] for one of y."""
    torch.manual_seed(1)
    tokenizer = TOKENIZERS["characters"](["xyz ab"])
    size = {"vocab_size": tokenizer.vocab_size, "block_size": 40, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = Encoder(EncoderConfig.make(family="modern", n_classes=len(labels), pooling="mean", **size)).eval()
    classes = torch.tensor([0, 1]).repeat(32)
    texts = ["x" * (1 + i % 7) if i % 2 == 0 else "y" * (1 + i % 5) for i in range(64)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        for ids, label in zip(map(tokenizer.encode, texts[:16]), classes[:16], strict=True):
            lengths = torch.tensor([len(ids)])
            logits = model.sequence_logits(model(torch.tensor([ids]), lengths), lengths)
            torch.nn.functional.cross_entropy(logits, label[None]).backward()
        optimizer.step()
        optimizer.zero_grad()
    save(folder, model, tokenizer, labels=labels)
    return folder


@pytest.fixture(scope="module")
def two():
    torch.manual_seed(9)
    return {"first": small_decoder(CHAT), "second": small_decoder()}


@pytest.fixture(scope="module")
def address(two, tmp_path_factory):
    folder = classifier(tmp_path_factory.mktemp("router") / "model", ["first", "second"])
    second, tokenizer = two["second"]
    with torch.no_grad():
        second.embedding.token.weight.mul_(-1.5)
    with running(two, router=functools.partial(open_router, str(folder))) as url:
        yield url


def test_auto_is_the_model_that_the_classifier_names_and_answers_as_it_does(two, address):
    for prompt, name in (("xx ", "first"), ("yy ", "second")):
        body = {"prompt": prompt, "max_tokens": 9, "temperature": 0, "seed": 1}
        for asked in ({"model": "auto"}, {}):
            status, answer = ask_json(address, "/v1/completions", {**body, **asked})
            assert (status, answer["model"]) == (200, name)
            alone = ask_json(address, "/v1/completions", {**body, "model": name})[1]
            assert answer["choices"][0]["text"] == alone["choices"][0]["text"]
            assert answer["choices"][0]["text"] == text_of(two[name], prompt, 9, temperature=0.0)
    assert text_of(two["first"], "xx ", 9, temperature=0.0) != text_of(two["second"], "xx ", 9, temperature=0.0)


def test_a_chat_is_routed_by_the_last_message_of_the_user_and_may_be_streamed(address):
    turns = [("user", "yyy"), ("assistant", "yyy"), ("user", "xx"), ("assistant", "yyyy")]
    body = {"model": "auto", "max_tokens": 3, "messages": [{"role": r, "content": c} for r, c in turns]}
    assert ask_json(address, "/v1/chat/completions", body)[1]["model"] == "first"
    assert {event["model"] for event in events(address, "/v1/chat/completions", **body, stream=True)} == {"first"}
    body["messages"][2]["content"] = [{"type": "text", "text": "yyyy"}]
    status, answer = ask_json(address, "/v1/chat/completions", body)  # the second one has no chat template
    assert status == 400 and "second has no chat template" in answer["error"]["message"]


def test_the_router_is_listed_and_counts(address):
    cards = ask_json(address, "/v1/models")[1]["data"]
    assert [card["id"] for card in cards] == ["auto", "first", "second"]
    assert ask_json(address, "/v1/models/auto")[1]["routes_to"] == ["first", "second"]

    def counted():
        lines = ask(address, "/metrics")[1].decode().splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("glassformer_routed_total")]

    before = counted()
    ask_json(address, "/v1/completions", {"model": "auto", "prompt": "yyy", "max_tokens": 1})
    ask_json(address, "/v1/completions", {"model": "first", "prompt": "yyy", "max_tokens": 1})
    assert counted() == [before[0], before[1] + 1]


@pytest.mark.parametrize("prompt", [["x", "y"], [1, 2], [[1]]])
def test_auto_refuses_several_prompts_and_ids(address, prompt):
    status, answer = ask_json(address, "/v1/completions", {"model": "auto", "prompt": prompt})
    assert status == 400 and answer["error"]["param"] == "prompt" and "name a model" in answer["error"]["message"]


def test_an_empty_text_is_answered_by_the_first_model(address):
    assert ask_json(address, "/v1/completions", {"model": "auto", "prompt": "", "max_tokens": 1})[1]["model"] == "first"


def test_without_a_router_auto_is_no_model(url):
    status, answer = ask_json(url, "/v1/completions", {"model": "auto", "prompt": "x"})
    assert status == 404 and "no model 'auto'" in answer["error"]["message"]


def test_what_is_refused(two, tmp_path, refused):
    handles = {name: ModelHandle(name, *pair) for name, pair in two.items()}
    try:
        for labels, named in ((["first", "third"], "third"), (["first", "first"], "second")):
            with pytest.raises(UsageError, match=named):
                open_router(str(classifier(tmp_path / named, labels)), handles)
        save(tmp_path / "writer", *two["first"])
        with pytest.raises(UsageError, match=r"task\.kind=classify"):
            open_router(str(tmp_path / "writer"), handles)
        with pytest.raises(UsageError, match="rename"):
            open_router(str(tmp_path / "third"), {"auto": handles["first"]})
    finally:
        for handle in handles.values():
            handle.worker.stop()
    refused(
        "serve", tmp_path / "writer", "--port", 0, "--router", tmp_path / "writer", code=2, names=("--router", "task")
    )
