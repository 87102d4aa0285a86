"""Small models behind a real server on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
import uvicorn
from patience import PATIENCE

from glassformer.models import Decoder, Encoder, EncoderConfig, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.server import ModelHandle, create_app

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
def running(models: dict[str, tuple[Any, Any]], *, api_key: str | None = None, **engine: Any) -> Iterator[str]:
    """The address of a server with these models, as long as the block lasts."""
    app = create_app({name: ModelHandle(name, *pair, **engine) for name, pair in models.items()}, api_key=api_key)
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
