"""What the tokenizer tests share: one small tokenizer of each kind."""

import pytest
from tokenizer_texts import SPOKEN

from glassformer.errors import DataError
from glassformer.processors.tokenizers import TOKENIZERS


@pytest.fixture(scope="session")
def gpt2():
    try:
        return TOKENIZERS["gpt2"]()
    except DataError as error:
        pytest.skip(f"GPT-2's vocabulary cannot be fetched: {error}")


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
