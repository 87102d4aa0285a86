"""What we save is what others load: `transformers.AutoTokenizer` gives the same ids and the same text."""

import json

import pytest
from tokenizer_texts import AWKWARD, SPOKEN, random_strings

from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")


def test_transformers_gives_the_same_ids_and_the_same_text(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path, model_max_length=64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.vocab_size, "no logit more than the model has"
    assert theirs.eos_token_id == tokenizer.end_of_text and theirs.model_max_length == 64
    for text in [*AWKWARD, SPOKEN, *random_strings(100, seed=3)]:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids, repr(text)
        assert theirs.decode(ids) == tokenizer.decode(ids), repr(text)


def test_saved_and_loaded_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded == tokenizer and loaded.kind == tokenizer.kind and loaded.hash == tokenizer.hash
    assert (loaded.vocab_size, loaded.end_of_text) == (tokenizer.vocab_size, tokenizer.end_of_text)
    assert loaded.encode(SPOKEN) == tokenizer.encode(SPOKEN)
    assert load_tokenizer(tmp_path / "tokenizer.json") == tokenizer
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "tokenizer.json", "tokenizer_config.json"]


def test_our_own_facts_stand_under_our_own_key(characters, tmp_path):
    characters.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["glassformer"] == {"kind": "characters", "hash": characters.hash}
    assert "unk_token" not in config, "transformers would give it an id of its own: a 66th logit"


def test_the_hash_distinguishes_vocabularies_and_nothing_else(bpe, tmp_path):
    padded = type(bpe._library).from_str(bpe.to_json())
    padded.enable_padding(length=9, pad_token="!")
    padded.enable_truncation(3)
    spec = json.loads(padded.to_str())  # both are switched off when it is read
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]  # the older spelling
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    same = load_tokenizer(tmp_path)
    assert same.hash == bpe.hash and same.encode(SPOKEN) == bpe.encode(SPOKEN)
    a, b = TOKENIZERS["characters"](["ab"]), TOKENIZERS["characters"](["ac"])
    assert a.hash != b.hash and a != b and a != "ab"
