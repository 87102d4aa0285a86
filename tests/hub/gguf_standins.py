"""For the tests of GGUF files: toy models of every architecture, and files made by hand with the `gguf` package's own
writer, fields and tensors spelled out, as others write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from toys import GEMMA3, toy_model

from glassformer.processors.tokenizers import TOKENIZERS

TEXT = "Être ou ne pas être, là est la question. 生きるべきか、死ぬべきか 🙂 to be or not to be, that is the question"
LLAMA = {"qk_norm": False}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("classic", {}),
    "gpt2, no biases, own head": ("classic", {"bias": False, "tied_head": False}),
    "qwen3": ("modern", {}),
    "qwen3, own head, another base": ("modern", {"tied_head": False, "rotary_base": 500.0, "norm_eps": 0.1}),
    "qwen2": ("modern", {**LLAMA, "qkv_bias": True, "n_embd": 60}),
    "gemma3": ("modern", {**GEMMA3, "patterns": ("window(3)",) * 5 + ("causal",), "n_layer": 7,
                          "rotary_base_local": 10_000.0}),
    "llama": ("modern", LLAMA),
    "llama, own head": ("modern", {**LLAMA, "tied_head": False}),
    "llama, no groups": ("modern", {**LLAMA, "n_kv_head": 6}),
    "llama, linear scaling": ("modern", {**LLAMA, "rotary_scaling": {"rope_type": "linear", "factor": 2.5}}),
}  # fmt: skip


def toy(case: str, tokenizer: Any, **changes: Any) -> Any:
    family, fields = MODELS[case]
    return toy_model(family, **{**fields, "vocab_size": tokenizer.vocab_size, **changes})


@torch.inference_mode()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids)


def toy_tokenizers() -> dict[str, Any]:
    return {
        "bpe": TOKENIZERS["bpe"]([TEXT] * 3, vocab_size=293),
        "characters": TOKENIZERS["characters"]([TEXT]),
        "bytes": TOKENIZERS["bytes"]([]),
    }


BYTES = [chr(b) if 33 <= b < 127 or 161 <= b < 173 or 174 <= b < 256 else None for b in range(256)]
SPARE = iter(range(256, 512))
BYTES = [chr(next(SPARE)) if character is None else character for character in BYTES]  # GPT-2's alphabet, once more
N_LAYER, N_HEAD, N_KV_HEAD, HEAD_WIDTH, N_EMBD, N_HIDDEN = 2, 4, 2, 64, 256, 512  # K-quants come in blocks of 256


def vocabulary(merges: tuple[str, ...] = ("t h", "th e", "Ġ the")) -> dict[str, Any]:
    """The header's fields of a byte-level tokenizer: 256 bytes, some merges, an end of text."""
    tokens = [*BYTES, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 1) + [3],
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


def llama_tensors(seed: int = 0, n_vocab: int = 260) -> dict[str, np.ndarray]:
    """Random weights of a small Llama under llama.cpp's names, (out, in)."""
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, N_EMBD), "output_norm.weight": (N_EMBD,)}
    for number in range(N_LAYER):
        here = f"blk.{number}"
        shapes |= {
            f"{here}.attn_norm.weight": (N_EMBD,),
            f"{here}.attn_q.weight": (N_HEAD * HEAD_WIDTH, N_EMBD),
            f"{here}.attn_k.weight": (N_KV_HEAD * HEAD_WIDTH, N_EMBD),
            f"{here}.attn_v.weight": (N_KV_HEAD * HEAD_WIDTH, N_EMBD),
            f"{here}.attn_output.weight": (N_EMBD, N_HEAD * HEAD_WIDTH),
            f"{here}.ffn_norm.weight": (N_EMBD,),
            f"{here}.ffn_gate.weight": (N_HIDDEN, N_EMBD),
            f"{here}.ffn_up.weight": (N_HIDDEN, N_EMBD),
            f"{here}.ffn_down.weight": (N_EMBD, N_HIDDEN),
        }
    return {
        name: (0.1 * draw.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_llama(path: Path, tensors: dict[str, Any], kind: str = "F32", **more: Any) -> Path:
    """A `llama` file; matrices in the number format `kind`, or, where some come as bytes, those alone.

    more: further fields, with `__` for a dot; `alignment` is the file's.
    """
    writer = gguf.GGUFWriter(path, "llama")
    if alignment := more.pop("alignment", None):
        writer.add_custom_alignment(alignment)
    writer.add_block_count(N_LAYER)
    writer.add_context_length(13)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_HIDDEN)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_KV_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, value in {**vocabulary(), **{name.replace("__", "."): value for name, value in more.items()}}.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
        add[type(value)](name, value)
    as_bytes = any(tensor.dtype == np.uint8 for tensor in tensors.values())
    for name, tensor in tensors.items():
        if tensor.dtype == np.uint8 or (tensor.ndim == 2 and kind != "F32" and not as_bytes):
            wanted = gguf.GGMLQuantizationType[kind]
            data = tensor if tensor.dtype == np.uint8 else gguf.quants.quantize(tensor, wanted)
            writer.add_tensor(name, data, raw_dtype=wanted)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(shape: tuple[int, int], kind: str, seed: int = 0) -> np.ndarray:
    """Bytes of a matrix in a format that the package reads and does not write: any bytes will do, but for the scales,
    which are 16-bit floats and small here."""
    in_block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    n_blocks = shape[0] * shape[1] // in_block
    blocks = np.random.default_rng(seed).integers(256, size=(n_blocks, n_bytes), dtype=np.uint8)
    scales = {"Q4_K": slice(0, 4), "Q6_K": slice(n_bytes - 2, n_bytes)}[kind]
    blocks[:, scales] = np.full((n_blocks, (scales.stop - scales.start) // 2), 1e-4, np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)
