"""The vocabulary of molecules: atoms with their brackets, bonds, branches and rings, and everything comes back."""

from __future__ import annotations

import pytest

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer

MOLECULES = ["C[C@H](Cl)N", "c1cc(Br)ccc1C(=O)[O-].[Na+]", r"F/C=C\F", "C%12CC%12", "c1cc[nH]c1", "CS(=O)C#N"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TOKENIZERS["smiles"](MOLECULES)


def test_an_atom_with_its_brackets_is_one_token(tokenizer):
    pieces = [tokenizer.token_text(i) for i in tokenizer.encode("C[C@H](Cl)N")]
    assert pieces == ["C", "[C@H]", "(", "Cl", ")", "N"]
    assert [tokenizer.token_text(i) for i in tokenizer.encode("C%12CC%12Br")] == ["C", "%12", "C", "C", "%12", "Br"]
    assert tokenizer.kind == "smiles" and tokenizer.token_text(tokenizer.end_of_text) == "<|endoftext|>"


@pytest.mark.parametrize("smiles", MOLECULES)
def test_molecules_come_back(tokenizer, smiles):
    assert tokenizer.decode(tokenizer.encode(smiles)) == smiles
    assert tokenizer.encode_documents([smiles])[0].tolist() == tokenizer.encode(smiles)


def test_what_was_not_learned_is_unknown_and_a_mark_in_a_text_is_text(tokenizer):
    shown = [tokenizer.token_text(i) for i in tokenizer.encode("C[Fe]hello C<|endoftext|>")]
    assert shown[:2] == ["C", "<unk>"] and "<|endoftext|>" not in shown


def test_a_size_keeps_the_most_frequent():
    tokenizer = TOKENIZERS["smiles"](["CCCCNNO"], vocab_size=4)
    assert [tokenizer.token_text(i) for i in range(4)] == ["C", "N", "<unk>", "<|endoftext|>"]
    with pytest.raises(UsageError, match="at least 3"):
        TOKENIZERS["smiles"](["CCCCNNO"], vocab_size=2)


def test_it_is_saved_and_loaded_here_and_elsewhere(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again == tokenizer and again.kind == "smiles"
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert all(theirs.encode(s, add_special_tokens=False) == tokenizer.encode(s) for s in MOLECULES)
    assert theirs.decode(tokenizer.encode(MOLECULES[0])).replace(" ", "") == MOLECULES[0]
    again._library.pre_tokenizer = TOKENIZERS["words"](["a"])._library.pre_tokenizer  # another cut is another kind
    assert Tokenizer(again._library).kind in ("words", "huggingface")


def test_no_text_is_one_line():
    with pytest.raises(TokenizerError, match="there is no text to take atoms from"):
        TOKENIZERS["smiles"]([""])
