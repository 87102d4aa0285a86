"""What the tokenizer tests share: Tiny Shakespeare where it is to be had, and one small tokenizer of each kind."""

import os
from pathlib import Path

import pytest
from tokenizer_texts import SPOKEN

from glassformer.errors import DataError
from glassformer.tokenizers import TOKENIZERS


@pytest.fixture(scope="session")
def shakespeare() -> str:
    file = Path(os.environ.get("GLASSFORMER_DATA", "no-such-folder")) / "tinyshakespeare.txt"
    if not file.is_file():
        pytest.skip("GLASSFORMER_DATA names no folder with tinyshakespeare.txt")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def gpt2():
    try:
        return TOKENIZERS["gpt2"]()
    except DataError as error:
        pytest.skip(f"GPT-2's vocabulary cannot be had: {error}")


@pytest.fixture(scope="session")
def characters():
    return TOKENIZERS["characters"]([SPOKEN])


@pytest.fixture(scope="session")
def bytes_tokenizer():
    return TOKENIZERS["bytes"]()


@pytest.fixture(scope="session")
def bpe():
    return TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=400)


@pytest.fixture(params=["characters", "bytes", "bpe", "gpt2"])
def tokenizer(request):
    """Each of the kinds whose text is its tokens' bytes put together."""
    return request.getfixturevalue({"bytes": "bytes_tokenizer"}.get(request.param, request.param))
