"""One small model of every family that has a residual stream, and a tokenizer that knows fewer tokens than they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toys import GEMMA3, shaken, toy_model

from glassformer.inspection import Reading, read
from glassformer.models import Encoder, EncoderConfig, EncoderDecoder, EncoderDecoderConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS

TEXT = "ABE FED A"
LETTERS = "".join(chr(ord("A") + i) for i in range(50)) + " "  # with the special tokens fewer than the models' 61
TOKENIZER = build_tokenizer("characters", [LETTERS], specials=MASKED_SPECIALS)
SMALL: dict[str, Any] = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}


def encoder(**changes: Any) -> Encoder:
    return shaken(Encoder(EncoderConfig.make(**{**SMALL, "token_head": "vocabulary", **changes}))).eval()


def pair(**changes: Any) -> EncoderDecoder:
    shape = {**SMALL, "n_decoder_layer": 3, "start_token": 1, "end_token": 2}
    return shaken(EncoderDecoder(EncoderDecoderConfig.make(**{**shape, **changes}))).eval()


def patches() -> Encoder:
    """It reads images (2, 6, 6) as a class token and four patches."""
    shape = {**SMALL, "stem": "patches", "image_size": 6, "patch_size": 3, "n_channels": 2, "block_size": 5}
    return shaken(Encoder(EncoderConfig.make(**{**shape, "vocab_size": 1}))).eval()


SANDWICH: dict[str, Any] = {"norm": "zero_centered_rmsnorm", "norm_place": "sandwich"}
FAMILIES: dict[str, Callable[[], Any]] = {
    "classic": toy_model,
    "classic with n-grams": lambda: toy_model(n_gram=3, n_gram_rows=101, head_bias=True, logit_scale=0.7),
    "classic in a sandwich": lambda: toy_model(norm_place="sandwich"),
    "modern": lambda: toy_model("modern"),
    "Gemma": lambda: toy_model("modern", **GEMMA3, logit_softcap=5.0, attention_softcap=3.0),
    "gpt-oss": lambda: toy_model("modern", attention_sinks=True, n_expert=3, feedforward="clamped", router_bias=True),
    "GPT-NeoX": lambda: toy_model("classic", positions="rotary", head_width=6, parallel=True, rotary_fraction=0.34),
    "OLMo 2": lambda: toy_model("modern", norm_place="output", qk_norm_over="all"),
    "SmolLM3": lambda: toy_model("modern", positioned_layers=(False, True), qkv_bias=True),
    "2017": lambda: toy_model(family="original"),
    "encoder": lambda: encoder(positions="learned", head_bias=True),
    "BERT": lambda: encoder(family="original", n_segments=2, embedding_norm=True, token_transform=True, head_bias=True),
    "translator of 2017": lambda: pair(family="original"),
    "T5": lambda: pair(norm="rmsnorm", positions="relative", bias=False, attention_scale=1.0),
    "modern pair": lambda: pair(family="modern", n_head=6, n_kv_head=2, head_width=10),
    "sandwich pair": lambda: pair(**SANDWICH, qk_norm=True),
    "pair with norms on what is written": lambda: pair(family="modern", norm_place="output", qk_norm_over="all"),
}


def looked_at(name: str) -> tuple[Any, Reading]:
    """A model, and the text as it reads it."""
    model = FAMILIES[name]()
    return model, read(model, TOKENIZER, TEXT, **asked(model))


def asked(model: Any) -> dict[str, Any]:
    """What else the functions need to know of a model."""
    return {"target": "DECADE"} if hasattr(model, "decoder") else {}


def stack(model: Any) -> Any:
    return getattr(model, "decoder", model)
