"""BLEU and chrF: sacrebleu's figures, with the number of sentences and an interval."""

from __future__ import annotations

import builtins
import json
import math
import random

import pytest
import sacrebleu

from glassformer.errors import DataError, MissingExtraError
from glassformer.evaluation.translation import CorpusScore, translation_scores

REFERENCES = [
    "Le chat dort sur le tapis .",
    "Ouvrez le fichier que vous voulez lire .",
    "Il pleut depuis trois jours .",
]
ANSWERS = ["Le chat dort sur le tapis .", "Ouvrez le fichier que tu veux lire .", "Il pleut ."]


def test_the_figures_are_sacrebleus():
    shown = translation_scores(ANSWERS, REFERENCES)
    assert shown.bleu.score == sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score
    assert shown.chrf.score == sacrebleu.corpus_chrf(ANSWERS, [REFERENCES]).score
    assert shown.n == 3 and 0 < shown.bleu.score < 100 and shown.bleu.interval > 0
    assert "tok:13a" in shown.bleu.signature and f"version:{sacrebleu.__version__}" in shown.bleu.signature


def test_bleu_by_hand():
    """The first five words of eight: precisions 1, brevity exp(1 - 8/5)."""
    shown = translation_scores(["a b c d e"], ["a b c d e f g h"])
    assert shown.bleu.score == pytest.approx(100 * math.exp(1 - 8 / 5))
    assert shown.bleu.interval == math.inf  # one sentence shows no spread
    assert json.loads(json.dumps(shown.to_dict(), allow_nan=False))["bleu"]["interval"] is None


def test_the_worst_and_the_best():
    assert translation_scores(REFERENCES, REFERENCES).bleu.score == pytest.approx(100)
    nothing = translation_scores(["x", "y", "z"], REFERENCES)
    assert nothing.bleu.score < 1 and nothing.chrf.score == 0 and not math.isnan(nothing.chrf.interval)


def test_the_interval_shrinks_with_the_root_of_the_sentences_and_is_the_same_again():
    """Half the sentences right, half without a word in common, 25 and 400 of them: 16 times as many, a quarter as wide.
    The draws are sacrebleu's, with its own seed."""
    draw = random.Random(0)

    def scores(n: int) -> CorpusScore:
        references = [" ".join(draw.choices("abcdefgh", k=9)) for _ in range(n)]
        return translation_scores([r if i % 2 else "x y z w v" for i, r in enumerate(references)], references).bleu

    few, many = scores(25), scores(400)
    assert 3 < few.interval / many.interval < 5.3
    draw.seed(0)
    assert scores(25) == few


def test_it_reads_as_a_line():
    assert str(CorpusScore(25.449, 1.02, "")) == "25.4 ± 1.0" and str(CorpusScore(25.449, math.inf, "")) == "25.4"


def test_unequal_numbers_and_nothing_are_one_clear_line():
    with pytest.raises(DataError, match=r"^3 translations and 2 references; give one of each a sentence$"):
        translation_scores(ANSWERS, REFERENCES[:2])
    with pytest.raises(DataError, match=r"^no translations to score"):
        translation_scores([], [])


def test_without_sacrebleu_the_pip_line_is_given(monkeypatch):
    importing = builtins.__import__

    def without(name, *rest):
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[translate\]'"):
        translation_scores(ANSWERS, REFERENCES)


def test_a_translator_that_is_right_now_and_then_has_a_score():
    """Some draws then score 0, which sacrebleu's mean of the draws cannot take; the score has no interval."""
    text = ["a b c d e f", *["no word is right"] * 7]
    scores = translation_scores(text, ["a b c d e f", *[f"x{i} y z" for i in range(7)]])
    assert 0 < scores.bleu.score < 100 and scores.n == 8
