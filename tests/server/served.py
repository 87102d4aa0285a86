"""Small models behind a real server on a free port of this machine, and requests to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from patience import PATIENCE

from glassformer.generation import Engine, Piece, Request, Sampling
from glassformer.models import Decoder, Encoder, EncoderConfig, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS

TEXT = "the quick brown fox jumps over the lazy dog.\n"
CHAT = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def shaken(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def small_decoder(template: str | None = None) -> tuple[Decoder, Any]:
    torch.manual_seed(4)
    tokenizer = TOKENIZERS["characters"]([TEXT + ":"])
    tokenizer.chat_template = template
    config = ModelConfig.make(
        family="modern", vocab_size=tokenizer.vocab_size, block_size=200, n_layer=2, n_head=4, n_kv_head=2, n_embd=24
    )
    return shaken(Decoder(config)), tokenizer


def small_encoder() -> tuple[Encoder, Any]:
    torch.manual_seed(6)
    tokenizer = TOKENIZERS["characters"]([TEXT])
    config = EncoderConfig.make(
        family="modern", vocab_size=tokenizer.vocab_size, block_size=50, n_layer=2, n_head=4, n_embd=24, pooling="mean"
    )
    return shaken(Encoder(config)), tokenizer


@contextlib.contextmanager
def running(
    models: dict[str, tuple[Any, Any]],
    *,
    router: Any = None,
    runs: Any = None,
    open_checkpoint: Any = None,
    api_key: str | None = None,
    **engine: Any,
) -> Iterator[str]:
    """The address of a server with these models, as long as the block lasts."""
    from glassformer.server import ModelHandle, create_app

    handles = {name: ModelHandle(name, *pair, **engine) for name, pair in models.items()}
    more = {"runs": runs, "open_checkpoint": open_checkpoint}
    with listening(create_app(handles, router=router and router(handles), api_key=api_key, **more)) as url:
        yield url


@contextlib.contextmanager
def served_folder(path: Any) -> Iterator[str]:
    """The address of a server with the models of a folder."""
    from glassformer.server.app import create_app, open_models

    with listening(create_app(open_models([str(path)], device="cpu", dtype="fp32"))) as url:
        yield url


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an application, as long as the block lasts."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE)


@pytest.fixture(scope="session")
def models() -> dict[str, tuple[Any, Any]]:
    """Tests that change one of them make their own."""
    return {"base": small_decoder(), "chat": small_decoder(template=CHAT), "vectors": small_encoder()}


@pytest.fixture(scope="session")
def url(models: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    """One server of these models for all tests."""
    with running(models) as address:
        yield address


def ask(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and bytes of an answer."""
    given = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, given, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask_json(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer, which may hold no NaN."""
    status, shown = ask(url, path, body, **headers)
    return status, json.loads(shown, parse_constant=_no_constants)


def _no_constants(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def events(url: str, path: str, **body: Any) -> list[dict[str, Any]]:
    """The JSON of all server-sent events."""
    status, shown = ask(url, path, body)
    assert status == 200, shown
    lines = [line.removeprefix("data: ") for line in shown.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def pieces_of(pair: tuple[Any, Any], prompt: str | list[int], n: int, **sampling: Any) -> list[Piece]:
    """What the engine alone generates."""
    model, tokenizer = pair
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    request = Request(tuple(ids), max_new_tokens=n, sampling=Sampling(**sampling))
    return [event.piece for event in Engine(model, tokenizer).run(request) if event.piece]


def text_of(pair: tuple[Any, Any], prompt: str | list[int], n: int, **sampling: Any) -> str:
    return "".join(piece.text for piece in pieces_of(pair, prompt, n, **sampling))
