"""What people said of words, out of an archive of the real kind, and out of the real one where it can be had."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from published import published

from glassformer.errors import DataError
from glassformer.history.word_tests import Likeness, Question, load_word_tests, read_word_tests

FILES = {
    "wordsim353.tsv": "# a head\n# Word 1\tWord 2\tHuman (mean)\nlove\tsex\t6.77\ntiger\tcat\t7.35\n",
    "simlex999.txt": "# a head\nold\tnew\t1.58\n",
    "questions-words.txt": ": family\nboy girl king queen\nking queen boy girl\n: gram8-plural\ncat cats dog dogs\n",
}


def sdist(path: Path, files: dict[str, str]) -> Path:
    """A source archive with these files among the data of its tests."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {"setup.py": "raise SystemExit", **files}.items():
            where = f"gensim-4.4.0/gensim/test/test_data/{name}" if name in FILES else f"gensim-4.4.0/{name}"
            info = tarfile.TarInfo(where)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_three_lists_are_read(tmp_path):
    tests = read_word_tests(sdist(tmp_path / "gensim.tar.gz", FILES))
    assert tests.likeness == {
        "wordsim-353": [Likeness("love", "sex", 6.77), Likeness("tiger", "cat", 7.35)],
        "simlex-999": [Likeness("old", "new", 1.58)],
    }
    assert tests.analogies == {
        "family": [Question("boy", "girl", "king", "queen"), Question("king", "queen", "boy", "girl")],
        "gram8-plural": [Question("cat", "cats", "dog", "dogs")],
    }


def test_what_is_missing_or_damaged_is_one_line(tmp_path):
    without = {name: text for name, text in FILES.items() if name != "simlex999.txt"}
    with pytest.raises(DataError, match=r"gensim\.tar\.gz: has no test_data/simlex999\.txt inside"):
        read_word_tests(sdist(tmp_path / "gensim.tar.gz", without))
    for name, text in (("simlex999.txt", "old\tnew\n"), ("questions-words.txt", ": family\nboy girl king\n")):
        with pytest.raises(DataError, match="is not of the form that is read here"):
            read_word_tests(sdist(tmp_path / "gensim.tar.gz", {**FILES, name: text}))


def test_the_real_lists(tmp_path_factory):
    with published(tmp_path_factory):
        tests = load_word_tests(quiet=True)
    assert {name: len(pairs) for name, pairs in tests.likeness.items()} == {"wordsim-353": 353, "simlex-999": 999}
    assert len(tests.analogies) == 14 and sum(map(len, tests.analogies.values())) == 19_544
    assert sum(len(q) for name, q in tests.analogies.items() if name.startswith("gram")) == 10_675
    assert Question("boy", "girl", "king", "queen") in tests.analogies["family"]
