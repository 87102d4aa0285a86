"""SentencePiece models against SentencePiece itself."""

import io
import sys

import pytest
import regex
from tokenizer_texts import AWKWARD, SPOKEN, random_strings

from glassformer.errors import MissingExtraError, TokenizerError
from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer

spm = pytest.importorskip("sentencepiece")


def trained(**options) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter((SPOKEN * 3).split("\n")), model_writer=model, minloglevel=2, num_threads=1,
        hard_vocab_limit=options.get("model_type") == "bpe", **options,
    )  # fmt: skip
    return model.getvalue()


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
MODELS = {
    "unigram, folded and collapsed": {"vocab_size": 200},
    "unigram, lossless": {"vocab_size": 420, "byte_fallback": True, "add_dummy_prefix": False, **PLAIN},
    "unigram across words": {"vocab_size": 250, "split_by_whitespace": False},
    "bpe": {"vocab_size": 200, "model_type": "bpe"},
    "bpe as in Llama 2": {"vocab_size": 420, "model_type": "bpe", "byte_fallback": True, **PLAIN},
}


@pytest.mark.parametrize("name", MODELS)
def test_same_ids_as_sentencepiece(name, tmp_path):
    proto = trained(**MODELS[name])
    reference = spm.SentencePieceProcessor()
    reference.LoadFromSerializedProto(proto)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.kind == "sentencepiece" and tokenizer.vocab_size == reference.get_piece_size()
    texts = [SPOKEN, *AWKWARD[:6], *random_strings(200, seed=4, longest=15)]
    if "normalization_rule_name" not in MODELS[name]:  # folding: the library goes by clusters, see sentencepiece.py
        texts = [text for text in texts if all(len(cluster) == 1 for cluster in regex.findall(r"\X", text))]
        assert len(texts) > 100
    for text in texts:
        expected = reference.encode(text)
        assert tokenizer.encode(text) == expected, repr(text)
        if tokenizer.special_tokens["<unk>"] not in expected and "\ufffd" not in tokenizer.decode(expected):
            assert tokenizer.decode(expected) == reference.decode(expected), repr(text)


def test_our_own_is_lossless_saved_and_the_same_every_time(tmp_path):
    tokenizer = TOKENIZERS["sentencepiece"]([SPOKEN * 3], vocab_size=420)
    assert tokenizer == TOKENIZERS["sentencepiece"]([SPOKEN * 3], vocab_size=420)
    for text in [SPOKEN, *AWKWARD]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.encode_to_array(text).tolist() == ids
        assert tokenizer.end_of_text not in ids and b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path) == tokenizer
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [SPOKEN, *AWKWARD]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text), repr(text)
        assert theirs.decode(tokenizer.encode(text)) == text


def test_damage_is_one_line(tmp_path):
    file = tmp_path / "x.model"
    for content in (b"", b"nonsense", trained(vocab_size=200)[:500]):
        file.write_bytes(content)
        with pytest.raises(TokenizerError, match="not a SentencePiece model"):
            load_tokenizer(file)
    with pytest.raises(TokenizerError, match="cannot train"):
        TOKENIZERS["sentencepiece"](["abc"], vocab_size=3)


def test_without_the_extra_the_pip_line_is_shown(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "x.model").write_bytes(b"anything")
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[sentencepiece\]'"):
        load_tokenizer(tmp_path / "x.model")
