"""BERT's vocabulary, read from its list and compared with transformers' own BERT tokenizer."""

import pytest

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "un", "##believ", "##able"),
    *(*",.!'s", "cafe"),
]
TEXTS = ["The cat sat, unbelievable!", "café  cat's", "zebra the", "", "[CLS] the [SEP]", "\x00cat\u4e16"]


@pytest.fixture
def vocab(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return tmp_path


def test_same_ids_as_transformers(vocab, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer(vocab)
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    bert = transformers.BertTokenizer(vocab=str(vocab / "vocab.txt"))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] == ids
        if "[" not in text:
            assert bert(text, add_special_tokens=False)["input_ids"] == ids, repr(text)
    assert theirs("the")["input_ids"] == [2, 5, 3], "for them [CLS] and [SEP] are added, as BERT expects"


def test_pieces_and_text(vocab):
    tokenizer = TOKENIZERS["wordpiece"](path=str(vocab))
    with pytest.raises(UsageError, match="vocab_size=99"):
        TOKENIZERS["wordpiece"](path=str(vocab), vocab_size=99)
    ids = tokenizer.encode("Unbelievable cat")
    assert ids == [8, 9, 10, 6] and tokenizer.decode(ids) == "unbelievable cat"
    assert tokenizer.token_bytes(9) == b"believ" and tokenizer.kind == "wordpiece"
    assert tokenizer.special_tokens["[MASK]"] == 4 and 3 not in tokenizer.encode("[SEP]")


def test_upper_case_in_the_list_means_no_folding(vocab):
    (vocab / "vocab.txt").write_text("[UNK]\nCat\ncat\n")
    assert load_tokenizer(vocab).encode("Cat cat") == [1, 2]
    (vocab / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert load_tokenizer(vocab).encode("Cat cat") == [2, 2]


def test_damage_is_one_line(vocab):
    with pytest.raises(UsageError, match="only read"):
        TOKENIZERS["wordpiece"]()
    for text, named in (("a\nb\n", r"has no \[UNK\]"), ("[UNK]\na\na\n", "holds a token twice")):
        (vocab / "vocab.txt").write_text(text)
        with pytest.raises(TokenizerError, match=named):
            load_tokenizer(vocab)
