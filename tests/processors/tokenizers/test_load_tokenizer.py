"""Tokenizer files by others, and files that are none: always a tokenizer or one clear line."""

import json
import random

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from glassformer.errors import GlassformerError, TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, build_tokenizer, files, load_tokenizer


@pytest.fixture
def saved(bpe, tmp_path):
    bpe.save(tmp_path)
    return tmp_path / "tokenizer.json"


def refused(path) -> str:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value), "one line"
    return str(caught.value)


def test_nothing_there(tmp_path):
    assert "there is no such file or folder" in refused(tmp_path / "absent")
    assert "holds no tokenizer.json" in refused(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert f"did you mean {tmp_path / 'model'}?" in refused(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark(saved, encoding):
    ids = load_tokenizer(saved.parent).encode("to be")
    for path in saved.parent.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert load_tokenizer(saved.parent).encode("to be") == ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\x80\x00", "is not UTF-8"),
        (b"\xff\xfe\x00", "is not UTF-16-LE"),
        (b"[1, 2]", "a JSON object is expected, not list"),
        (b'{"version": "1.0"}', 'has no "model"'),
        (b"[" * 100_000, "not valid JSON (nested too deeply)"),
        (b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}', "cannot read it"),
        (b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}, "unk_token": "a"}}', "vocabulary is empty"),
    ],
)
def test_not_a_tokenizer(saved, content, message):
    saved.write_bytes(content)
    assert message in refused(saved)


def test_a_broken_neighbour_is_named_and_a_large_file_refused(saved, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files, "MAX_BYTES", 1000)
        assert "the most that is read" in refused(saved)
    saved.with_name("tokenizer_config.json").write_text("{")
    assert "tokenizer_config.json: not valid JSON" in refused(saved)


def test_damage_anywhere_gives_a_tokenizer_or_one_line(saved):
    """Cut short, and 300 seeded changes of single bytes in the part that is not the vocabulary."""
    whole = saved.read_text()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 3):
        saved.write_text(whole[:length])
        assert "not valid JSON (" in refused(saved)
    rng = random.Random(0)
    structure = whole.index('"vocab"')
    for _ in range(300):
        place = rng.randrange(structure)
        saved.write_text(whole[:place] + rng.choice('"0{}[]:,tfn-9é') + whole[place + 1 :])
        try:
            tokenizer = load_tokenizer(saved)
            tokenizer.encode("a <|endoftext|> b")
        except GlassformerError as error:
            assert "\n" not in str(error)


def test_a_typed_control_piece_is_spelled_even_by_unigram():
    """A Unigram vocabulary lists `</s>` among its pieces and would find it in the text."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("<", -2.0), ("/", -2.0), ("s", -2.0), (">", -2.0)]
    library = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    library.add_special_tokens(["<unk>", "</s>"])
    assert library.encode("a</s>a").ids == [2, 1, 2]
    tokenizer = Tokenizer(library, end_of_text="</s>")
    assert tokenizer.encode("a</s>a") == [2, 3, 4, 5, 6, 2] == tokenizer.encode_to_array("a</s>a").tolist()
    assert tokenizer.kind == "sentencepiece" and tokenizer.end_of_text == 1


def test_kinds_are_read_off_the_structure():
    words = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert Tokenizer(words).kind == "huggingface"
    folded = tokenizers.Tokenizer.from_str(TOKENIZERS["bpe"](["hello hello"], vocab_size=260)._library.to_str())
    folded.normalizer = normalizers.NFC()
    tokenizer = Tokenizer(folded)
    assert tokenizer.kind == "bpe" and tokenizer.encode_to_array("e\u0301").tolist() == tokenizer.encode("é")


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean characters"):
        build_tokenizer("character", ["text"])
    assert build_tokenizer("characters", ["text"]).vocab_size == 3
    plain = {"characters", "bytes", "bpe", "words", "plain-words", "smiles"}
    assert set(TOKENIZERS) == plain | {"gpt2", "sentencepiece", "wordpiece"}


def test_a_config_written_by_others(saved):
    end = {"__type": "AddedToken", "content": "<|endoftext|>"}
    config = {"eos_token": end, "tokenizer_class": "GPT2Tokenizer", "model_max_length": 1e30}
    saved.with_name("tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(saved.parent)
    assert tokenizer.end_of_text == tokenizer.vocab_size - 1
    assert tokenizer.settings == {"eos_token": "<|endoftext|>", "model_max_length": 1e30}
