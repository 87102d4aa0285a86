"""What `transformers` looks for beside a Whisper: how sound becomes frames, and what may be written first, or never.

preprocessor_config.json    WhisperFeatureExtractor: 16 kHz, windows of 25 ms every 10 ms, log-mel bands
generation_config.json      tokens by their meaning, tokens that are not written, heads that align words with time

Radford et al. 2022, https://arxiv.org/abs/2212.04356, sect. 2.2 and 4.5; the fields are those of OpenAI's models there.
"""

from __future__ import annotations

import re
from typing import Any

from glassformer.errors import ModelFolderError, one_line
from glassformer.models import EncoderDecoderConfig

START, END = "<|startoftranscript|>", "<|endoftext|>"
SAMPLES_A_SECOND, WINDOW, HOP = 16_000, 400, 160
FRAMES_A_VECTOR = 2  # the second convolution halves them
FIRST_MULTILINGUAL = 51_865  # tokens; by which OpenAI recognises them
_MEANINGS = {"no_timestamps_token_id": "<|notimestamps|>", "prev_sot_token_id": "<|startofprev|>"}
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


def whisper_files(config: EncoderDecoderConfig, tokens: list[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Both files, by their names.

    Args:
        tokens: the text of every id. given: CTranslate2's config.json.

    Raises:
        ModelFolderError: `given` names tokens or heads that the model has not.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    speaks_many = len(tokens) >= FIRST_MULTILINGUAL
    generation: dict[str, Any] = {
        **{meaning: ids[token] for meaning, token in _MEANINGS.items() if token in ids},
        "is_multilingual": speaks_many,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
    }
    if speaks_many:
        generation["lang_to_id"] = {token: number for token, number in ids.items() if _LANGUAGE.fullmatch(token)}
        generation["task_to_id"] = {
            task: ids[f"<|{task}|>"] for task in ("transcribe", "translate") if f"<|{task}|>" in ids
        }
    for name, theirs in (("suppress_tokens", "suppress_ids"), ("begin_suppress_tokens", "suppress_ids_begin")):
        if (found := given.get(theirs)) is not None:
            generation[name] = _numbers(found, theirs, config.decoder.vocab_size)
    if (heads := given.get("alignment_heads")) is not None:
        if not isinstance(heads, list) or not all(isinstance(head, list) and len(head) == 2 for head in heads):
            raise _wrong("alignment_heads", heads)
        _numbers([layer for layer, _ in heads], "alignment_heads", config.decoder.n_layer)
        _numbers([head for _, head in heads], "alignment_heads", config.decoder.n_head)
        generation["alignment_heads"] = heads
    frames = config.encoder.block_size * FRAMES_A_VECTOR
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": config.encoder.n_mels,
        "sampling_rate": SAMPLES_A_SECOND,
        "n_fft": WINDOW,
        "hop_length": HOP,
        "chunk_length": frames * HOP // SAMPLES_A_SECOND,
        "n_samples": frames * HOP,
        "nb_max_frames": frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    return {"preprocessor_config.json": extractor, "generation_config.json": generation}


def _numbers(found: Any, field: str, bound: int) -> list[int]:
    if not isinstance(found, list) or any(type(number) is not int or not 0 <= number < bound for number in found):
        raise _wrong(field, found)
    return found


def _wrong(field: str, value: Any) -> ModelFolderError:
    return ModelFolderError(f"{field} is no list of numbers that this model has: {one_line(value, most=60)}")
