"""The readable BPE and the fast one are the same algorithm: same merges in the same order, same ids."""

import pytest
from tokenizer_texts import AWKWARD, SPOKEN

from glassformer.processors.tokenizers import TOKENIZERS, bpe_twin, kinds


def merges_of(tokenizer):
    model = tokenizer._spec()["model"]
    return [(model["vocab"][left], model["vocab"][right]) for left, right in kinds.merge_pairs(model)]


def test_the_first_merge_by_hand():
    """In "aaabdaaabac" (Wikipedia's example) `aa` occurs four times; then `ab` and `Xa` tie at two, and the tie goes to
    the pair with the lower ids: a is 64, b is 65, X is 256."""
    merges = bpe_twin.train("aaabdaaabac", 258)
    assert merges == [(64, 64), (64, 65)]
    assert bpe_twin.encode("aaab", merges) == [256, 257]
    assert bpe_twin.decode([256, 257], merges) == "aaab"


@pytest.mark.parametrize("text", [SPOKEN, SPOKEN * 3, "aaabdaaabac", "abcabd " * 9 + "xyxyx" * 7, "zzzzzzz zzz zz z"])
def test_training_gives_the_same_merges_in_the_same_order(text):
    fast = TOKENIZERS["bpe"]([text], vocab_size=401)
    merges = bpe_twin.train(text, 400)
    assert merges and merges == merges_of(fast)
    for sample in [*AWKWARD, text, SPOKEN]:
        assert bpe_twin.encode(sample, merges) == fast.encode(sample), repr(sample)
        assert bpe_twin.decode(fast.encode(sample), merges) == sample


def test_ends_when_no_pair_occurs_twice():
    assert bpe_twin.train("abcdefg", 1000) == []
    assert TOKENIZERS["bpe"](["abcdefg"], vocab_size=1000).vocab_size == 257


def test_with_gpt2s_merges_it_gives_gpt2s_ids(gpt2):
    merges = merges_of(gpt2)
    for sample in [*AWKWARD, SPOKEN]:
        assert bpe_twin.encode(sample, merges, kinds.GPT2_PATTERN) == gpt2.encode(sample)
