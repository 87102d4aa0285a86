"""For the tests of CTranslate2's folders: a toy Whisper of `transformers`, and a model.bin made by hand as its
converter makes it, names, settings and tensors spelled out."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from toys import shaken
from transformers import WhisperConfig, WhisperForConditionalGeneration

from glassformer.processors.tokenizers.alphabet import CHARACTER_TO_BYTE
from glassformer.processors.tokenizers.gpt2 import byte_level_bpe

KINDS = [torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16]
LETTERS = sorted(CHARACTER_TO_BYTE, key=CHARACTER_TO_BYTE.__getitem__)
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]
TOKENS = [*LETTERS, "to", *SPECIALS, "<|0.00|>", "<|0.02|>"]
END, START, PREVIOUS, NO_TIMES = range(257, 261)
CONFIG = {"suppress_ids": [1, 2], "suppress_ids_begin": [32, END], "lang_ids": [7], "alignment_heads": [[0, 8], [2, 0]]}


def whisper() -> WhisperForConditionalGeneration:
    """All parameters random, but for the encoder's sines; sizes prime or all different."""
    config = WhisperConfig(
        vocab_size=len(TOKENS), d_model=18, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3,
        decoder_attention_heads=9, encoder_ffn_dim=23, decoder_ffn_dim=29, num_mel_bins=7, max_source_positions=50,
        max_target_positions=11, decoder_start_token_id=START, bos_token_id=START, eos_token_id=END, pad_token_id=END,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    waves = model.model.encoder.embed_positions.weight.clone()
    shaken(model)
    with torch.no_grad():
        model.model.encoder.embed_positions.weight.copy_(waves)
    return model.eval()


def variables(model: WhisperForConditionalGeneration) -> dict[str, Tensor]:
    """Its tensors and settings by CTranslate2's names."""
    given = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    byte, short = torch.int8, torch.int16
    made: dict[str, Tensor] = {
        "decoder/activation": torch.tensor(3, dtype=byte),
        "decoder/alibi": torch.tensor(0, dtype=byte),
        "decoder/alignment_heads": torch.tensor(1, dtype=short),
        "decoder/alignment_layer": torch.tensor(-1, dtype=short),
        "decoder/num_heads": torch.tensor(9, dtype=short),
        "decoder/pre_norm": torch.tensor(1, dtype=byte),
        "decoder/scale_embeddings": torch.tensor(0, dtype=byte),
        "decoder/start_from_zero_embedding": torch.tensor(0, dtype=byte),
        "encoder/num_heads": torch.tensor(3, dtype=short),
        "decoder/embeddings/weight": given["decoder.embed_tokens.weight"],
        "decoder/position_encodings/encodings": given["decoder.embed_positions.weight"],
        "encoder/position_encodings/encodings": given["encoder.embed_positions.weight"],
    }

    def linear(there: str, *here: str) -> None:
        made[f"{there}/weight"] = torch.cat([given[f"{name}.weight"] for name in here])
        biases = [given.get(f"{name}.bias", torch.zeros(len(given[f"{name}.weight"]))) for name in here]
        made[f"{there}/bias"] = torch.cat(biases)

    def norm(there: str, here: str) -> None:
        made[f"{there}/gamma"], made[f"{there}/beta"] = given[f"{here}.weight"], given[f"{here}.bias"]

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"encoder.{conv}")
    for side, layers in (("encoder", 2), ("decoder", 3)):
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for number in range(layers):
            there, here = f"{side}/layer_{number}", f"{side}.layers.{number}"
            linear(f"{there}/self_attention/linear_0", *(f"{here}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{there}/self_attention/linear_1", f"{here}.self_attn.out_proj")
            norm(f"{there}/self_attention/layer_norm", f"{here}.self_attn_layer_norm")
            linear(f"{there}/ffn/linear_0", f"{here}.fc1")
            linear(f"{there}/ffn/linear_1", f"{here}.fc2")
            norm(f"{there}/ffn/layer_norm", f"{here}.final_layer_norm")
            if side == "decoder":
                linear(f"{there}/attention/linear_0", f"{here}.encoder_attn.q_proj")
                linear(f"{there}/attention/linear_1", *(f"{here}.encoder_attn.{part}_proj" for part in "kv"))
                linear(f"{there}/attention/linear_2", f"{here}.encoder_attn.out_proj")
                norm(f"{there}/attention/layer_norm", f"{here}.encoder_attn_layer_norm")
    return dict(sorted(made.items()))


def packed(
    variables: dict[str, Tensor],
    *,
    kind: str = "WhisperSpec",
    revision: int = 3,
    second_names: tuple[tuple[str, str], ...] = (("decoder/projection/weight", "decoder/embeddings/weight"),),
    dtype: torch.dtype | None = None,
) -> bytes:
    """A model.bin; tensors (and no settings) in `dtype`."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text.encode()) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", 6), name(kind), struct.pack("<II", revision, len(variables))]
    for text, tensor in variables.items():
        tensor = tensor.to(dtype) if dtype and tensor.dim() else tensor
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        parts += [name(text), struct.pack("<B", tensor.dim()), struct.pack(f"<{tensor.dim()}I", *tensor.shape)]
        parts += [struct.pack("<BI", KINDS.index(tensor.dtype), len(data)), data]
    parts += [struct.pack("<I", len(second_names)), *(name(text) for pair in second_names for text in pair)]
    return b"".join(parts)


def write_folder(folder: Path, model: Any = None, *, data: bytes | None = None, **options: Any) -> Path:
    """A folder as faster-whisper has it, of a toy or with this model.bin; its tokenizer.json lacks the timestamps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(packed(variables(model), **options) if data is None else data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocabulary.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    library = byte_level_bpe({token: number for number, token in enumerate([*LETTERS, "to"])}, [("t", "o")])
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    library.save(str(folder / "tokenizer.json"))
    return folder
