"""Generation settings in a GGUF file: the ids that begin and end a text, and the defaults of sampling.

llama.cpp knows three ends by their roles: of a text (eos), of a turn (eot) and of a message (eom); it stops at each of
them. More than three do not fit. Rules about tokens (bad words, forced tokens, n-grams) have no place there.
"""

from __future__ import annotations

from typing import Any

from glassformer.hub.generation_config import parsed
from glassformer.models import GenerationSettings
from glassformer.processors.tokenizers import Tokenizer

ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}
"""Their names under `general.sampling`."""


def settings_from_gguf(fields: dict[str, Any], tokenizer: Tokenizer) -> GenerationSettings:
    """The settings of generation in a file's header. Raises `ModelFolderError` for a value of the wrong kind."""
    ends = [fields.get(f"tokenizer.ggml.{name}") for name in ENDS]
    known = [end for end in ends if isinstance(end, int) and end < tokenizer.vocab_size]
    given: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(known))} if len(set(known)) > 1 else {}
    if given:  # otherwise the tokenizer's own tokens suffice
        begins = fields.get("tokenizer.ggml.bos_token_id")
        given["bos_token_id"] = begins if isinstance(begins, int) and begins < tokenizer.vocab_size else None
    for ours, theirs in SAMPLING.items():
        value = fields.get(f"general.sampling.{theirs}")
        given[ours] = round(value, 6) if isinstance(value, float) else value  # they are kept in 32 bits
    return parsed(given, where="its header")


def settings_to_gguf(settings: GenerationSettings, tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of a header."""
    ours = settings.sampling_defaults()
    fields = {f"general.sampling.{theirs}": ours[name] for name, theirs in SAMPLING.items() if name in ours}
    further = sorted(tokenizer.ends - {tokenizer.end_of_text})
    roles = ENDS[1:] if tokenizer.end_of_text is not None else ()
    fields |= {f"tokenizer.ggml.{role}": end for role, end in zip(roles, further, strict=False)}
    if settings.bos_token_id is not None:
        fields["tokenizer.ggml.bos_token_id"] = settings.bos_token_id
    if settings.pad_token_id is not None:
        fields["tokenizer.ggml.padding_token_id"] = settings.pad_token_id
    return fields
