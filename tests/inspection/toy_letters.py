"""A tokenizer that fits the toy models: 61 characters. Not `conftest`: pytest puts all test folders on one path."""

from __future__ import annotations

from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

LETTERS = "".join(chr(65 + i) for i in range(60)) + " "
TEXT = "tAZ ab AZ b"  # 11 tokens; the block size of the toys is 13


def letters() -> Tokenizer:
    """One token for each of the 61 characters."""
    return TOKENIZERS["characters"]([LETTERS])
