"""BLEU and chrF are sacrebleu's, with an interval; word and phoneme error rates, by hand and against all edits."""

from __future__ import annotations

import json
import math
import random
import sys

import pytest
import sacrebleu

from glassformer.errors import DataError, MissingExtraError
from glassformer.evaluation.phonemes import pronunciation_errors
from glassformer.evaluation.translation import CorpusScore, translation_scores

REFERENCES = [
    "Le chat dort sur le tapis .",
    "Ouvrez le fichier que vous voulez lire .",
    "Il pleut depuis trois jours .",
]
ANSWERS = ["Le chat dort sur le tapis .", "Ouvrez le fichier que tu veux lire .", "Il pleut ."]


def test_the_scores_are_sacrebleus():
    shown = translation_scores(ANSWERS, REFERENCES)
    assert shown.bleu.score == sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score
    assert shown.chrf.score == sacrebleu.corpus_chrf(ANSWERS, [REFERENCES]).score
    assert shown.n == 3 and 0 < shown.bleu.score < 100 and shown.bleu.interval > 0
    assert "tok:13a" in shown.bleu.signature and f"version:{sacrebleu.__version__}" in shown.bleu.signature
    assert str(CorpusScore(25.449, 1.02, "")) == "25.4 ± 1.0" and str(CorpusScore(25.449, math.inf, "")) == "25.4"


def test_bleu_by_hand():
    """The first five words of eight: precisions 1, brevity exp(1 - 8/5)."""
    shown = translation_scores(["a b c d e"], ["a b c d e f g h"])
    assert shown.bleu.score == pytest.approx(100 * math.exp(1 - 8 / 5))
    assert shown.bleu.interval == math.inf  # one sentence shows no spread
    assert json.loads(json.dumps(shown.to_dict(), allow_nan=False))["bleu"]["interval"] is None
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


def test_a_translator_that_is_seldom_right_has_a_score():
    """Some draws then score 0, which sacrebleu's mean of the draws cannot take; the score has no interval."""
    text = ["a b c d e f", *["no word is right"] * 7]
    scores = translation_scores(text, ["a b c d e f", *[f"x{i} y z" for i in range(7)]])
    assert 0 < scores.bleu.score < 100 and scores.n == 8


def test_pronunciations_by_hand():
    """read: nearest is R EH D, 1 edit of 3. cat: right. axe: K too little, 1 of 3. to: T UW is known, 0 of 2."""
    shown = pronunciation_errors(
        ["R EH T", "K AE T", "AE S", "T UW"],
        [["R IY D", "R EH D"], ["K AE T"], ["AE K S"], ["T AH", "T UW", "T IH"]],
    )
    assert shown.word_error_rate == 2 / 4 and shown.phoneme_error_rate == 2 / 11 and shown.n == 4
    # residuals of the words: 1, 0, 1, 0 minus 2/11 of 3, 3, 3, 2
    residuals = [1 - 6 / 11, -6 / 11, 1 - 6 / 11, -4 / 11]
    expected = 1.96 * math.sqrt(sum(r * r for r in residuals) / 3 * 4) / 11
    assert shown.phoneme_interval == pytest.approx(expected)
    assert shown.word_interval == pytest.approx((0.15, 0.85), abs=0.001)  # Wilson's


@pytest.mark.parametrize(("answer", "known", "rate"), [("AA1", "AO1", 1), ("", "K AE T", 1), ("T UW T UW", "T UW", 1)])
def test_sounds_are_whole_symbols_and_a_long_answer_has_many_errors(answer: str, known: str, rate: float):
    shown = pronunciation_errors([answer], [[known]])
    assert shown.phoneme_error_rate == rate and shown.phoneme_interval == math.inf
    assert json.loads(json.dumps(shown.to_dict(), allow_nan=False))["phoneme_interval"] is None


def edits(a: list[str], b: list[str]) -> int:
    """Wagner and Fischer 1974: the whole table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
    return table[-1][-1]


def test_it_is_the_table_of_all_edits():
    draw = random.Random(0)
    words = [[" ".join(draw.choices("ABCD", k=draw.randint(1, 7))) for _ in range(4)] for _ in range(50)]
    shown = pronunciation_errors([ways[0] for ways in words], [ways[1:] for ways in words])
    nearest = [
        min(((edits(ways[0].split(), way.split()), way.split()) for way in ways[1:]), key=lambda pair: pair[0])
        for ways in words
    ]
    assert shown.phoneme_error_rate == sum(n for n, _ in nearest) / sum(len(way) for _, way in nearest)
    assert shown.word_error_rate == sum(n > 0 for n, _ in nearest) / 50


@pytest.mark.parametrize(
    ("measure", "answers", "references", "named"),
    [
        (pronunciation_errors, ["A", "B"], [["A"]], "2 pronunciations"),
        (pronunciation_errors, ["A", "B"], [["A"], []], "word 1 has no reference"),
        (pronunciation_errors, [], [], "no pronunciations"),
        (translation_scores, ANSWERS, REFERENCES[:2], "3 translations and 2 references"),
        (translation_scores, [], [], "no translations"),
    ],
)
def test_bad_input_is_one_line(measure, answers, references, named: str):
    with pytest.raises(DataError, match=f"^{named}.*(give|leave)") as error:
        measure(answers, references)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("measure", "library"), [(pronunciation_errors, "rapidfuzz.distance"), (translation_scores, "sacrebleu.metrics")]
)
def test_without_the_library_the_pip_line_is_given(measure, library: str, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[translate\]'"):
        measure(["A"], ["A"])
