"""English-French pairs: aligned paragraph by paragraph, cleaned, each once, split by page."""

from __future__ import annotations

import pytest
from package_standins import deb
from published import published

from glassformer.data.english_french import (
    MANUALS,
    english_french,
    even_out,
    is_translation,
    paragraph_pairs,
    sentence_pairs,
    without_near_copies,
)
from glassformer.data.example_sets import EXAMPLE_SETS
from glassformer.data.examples import Example
from glassformer.data.manual_blocks import Block
from glassformer.errors import DataError
from glassformer.fetch import PackageSource, fetch

BY_NAME = {manual.name: manual for manual in MANUALS}


def test_pages_of_one_structure_are_paired_in_order_and_others_by_what_occurs_once():
    english = [Block("SH", "NAME"), Block("P", "one"), Block("P", "two")]
    french = [Block("SH", "NOM"), Block("P", "un"), Block("P", "deux")]
    assert paragraph_pairs(english, french) == [("NAME", "NOM"), ("one", "un"), ("two", "deux")]
    sorted_otherwise = [Block("id_2", "deux"), Block("p", "?"), Block("id_1", "un"), Block("p", "!")]
    listed = [Block("id_1", "one"), Block("id_2", "two"), Block("p", "?"), Block("p", "!"), Block("id_3", "three")]
    sorted_otherwise += [Block("h2", "une fois")]
    listed += [Block("h2", "once"), Block("h2", "twice")]
    assert paragraph_pairs(listed, sorted_otherwise) == [("one", "un"), ("two", "deux")]


def test_typography_is_one():
    assert (
        even_out("l’«\u00a0onglet\u00a0» “A”…\u202f: co\u00adopération\u2011x")
        == 'l\'« onglet » "A"... : coopération-x'
    )


@pytest.mark.parametrize(
    ("english", "french", "count"),
    [
        ("See close(2). It fails.", "Consultez close(2). Elle échoue.", 2),
        ('Say "yes." Then go. (Or not.) Stop!', "Dites « oui. » Puis partez. (Ou pas.) Arrêtez !", 4),
        ("Use tools, e.g. Writer. Now.", "Utilisez des outils, p. ex. Writer. Maintenant.", 2),
        ("As the U.S. Government said.", "Comme l'a dit le gouvernement.", 1),
        ("One. Two. Three.", "Un. Deux et trois.", 1),  # the numbers of sentences differ
        ("No. Then a very long sentence, which says a lot.", "Une très longue phrase, qui en dit long. Non.", 1),
    ],
)
def test_paragraphs_become_sentences_where_both_sides_agree(english, french, count):
    pairs = sentence_pairs(english, french)
    assert len(pairs) == count
    assert (" ".join(e for e, _ in pairs), " ".join(f for _, f in pairs)) == (english, french)


@pytest.mark.parametrize(
    ("english", "french", "right"),
    [
        ("The file is closed.", "Le fichier est fermé.", True),
        ("O_CREAT", "O_CREAT", False),  # the same
        ("If no tablet is there, plug it in.", "If no tablet is there, plug it in now.", False),  # untranslated
        ("Set it to 255 or 16.", "Réglez sur 16 ou 255.", True),
        ("Set it to 255.", "Réglez sur 256.", False),  # other numbers: another paragraph
        ("=ISPMT(1%;18;24;120000) = -300", "=TAUX(1%;18;24;120000) = -300 unités", False),  # code
        ("12 34", "12 34.", False),  # no word
        ("Click OK.", "Pour fermer, cliquez sur le bouton OK en bas à droite.", False),  # lengths
        ("word " * 90, "mot " * 90, False),  # too long
        ("See complex255 here.", "Voir [text/scalc/ful_func.xhp#complex255 not found].", False),
    ],
)
def test_what_counts_as_a_translation(english, french, right):
    assert is_translation(english, french) is right


def man(name: str, *paragraphs: str) -> str:
    return f".TH {name} 2\n.SH NAME\n{name} \\- " + "\n.PP\n".join(paragraphs) + "\n"


@pytest.fixture
def archives(tmp_path):
    """Two pages and one that only English has; the French one ends with what translators add."""
    english = {
        "usr/share/man/man2/open.2.gz": man("open", "open a file", "It returns 0.  On error, it fails."),
        "usr/share/man/man2/close.2.gz": man("close", "close a file", "On error, it fails.", "Not translated at all."),
        "usr/share/man/man2/only.2.gz": man("only", "a page of its own"),
    }
    french = {
        "usr/share/man/fr/man2/open.2.gz": man(
            "open", "ouvrir un fichier", "Elle renvoie 0. En cas d'erreur, elle échoue."
        ),
        "usr/share/man/fr/man2/close.2.gz": man(
            "close", "fermer un fichier", "En cas d'erreur, elle échoue.", "Not translated at all."
        )
        + ".SH TRADUCTION\nLa traduction est d'une personne.\n",
    }
    return {"manpages-dev": deb(tmp_path / "en.deb", english), "manpages-fr-dev": deb(tmp_path / "fr.deb", french)}


def test_packages_become_pairs_each_sentence_once(archives):
    pairs = list(english_french(archives, [BY_NAME["manpages-dev"]]))
    assert [(p.english, p.french, p.page) for p in pairs] == [
        ("close - close a file", "close - fermer un fichier", "manpages-dev/man2/close.2"),
        ("On error, it fails.", "En cas d'erreur, elle échoue.", "manpages-dev/man2/close.2"),
        ("open - open a file", "open - ouvrir un fichier", "manpages-dev/man2/open.2"),
        ("It returns 0.", "Elle renvoie 0.", "manpages-dev/man2/open.2"),
    ]


def test_a_package_without_its_pages_and_a_damaged_page_are_one_line(archives, tmp_path):
    with pytest.raises(DataError, match=r"empty\.deb: no pages under usr/share/man/fr/"):
        empty = deb(tmp_path / "empty.deb", {"usr/share/doc/README": "nothing"})
        list(english_french(archives | {"manpages-fr-dev": empty}, [BY_NAME["manpages-dev"]]))
    with pytest.raises(DataError, match=r"bad\.deb: usr/share/man/man2/open\.2\.gz inside is damaged"):
        bad = deb(tmp_path / "bad.deb", {"usr/share/man/man2/open.2.gz": b"\x1f\x8b no gzip"})
        list(english_french(archives | {"manpages-dev": bad}, [BY_NAME["manpages-dev"]]))


def test_held_out_sentences_that_training_nearly_has_are_left_out():
    kept = without_near_copies(
        {
            "train": [Example("Row 1 is red.", "La ligne 1 est rouge."), Example("Go.", "Allez.")],
            "validation": [Example("Row 2 is red!", "Ligne 2."), Example("Blue.", "Bleu."), Example("Run.", "Allez !")],
            "test": [Example("blue", "bleue"), Example("Green.", "Vert.")],
        }
    )
    assert {split: [e.source for e in rows] for split, rows in kept.items()} == {
        "train": ["Row 1 is red.", "Go."],
        "validation": ["Blue."],
        "test": ["Green."],
    }


def test_the_handbook_for_administrators_gives_thousands_of_clean_pairs(tmp_path_factory):
    """The smallest of the real manuals: 4,319 pairs in Debian 12 that the other manuals do not have."""
    with published(tmp_path_factory):
        names = ("debian-reference-en", "debian-reference-fr")
        archives = {n: fetch(PackageSource(n, None, None, "GPL-2+", client="apt"), quiet=True) for n in names}
    pairs = list(english_french(archives, [BY_NAME["debian-reference"]]))
    assert len(pairs) > 3500
    for p in pairs:
        assert p.english and p.french and p.english != p.french and "\n" not in p.english + p.french
    sides = [side.casefold() for p in pairs for side in (p.english, p.french)]
    assert len(sides) - len(set(sides)) < 5  # a word may be English in one pair and French in another
    assert sum(" le " in f" {p.french} " or " de " in f" {p.french} " for p in pairs) > len(pairs) / 3
    assert not any(mark in p.english + p.french for p in pairs for mark in ("<p", "</", "&nbsp", "\u00a0", "’"))


@pytest.mark.slow
def test_all_manuals_give_sixty_thousand_pairs_and_no_held_out_sentence_is_trained_on(tmp_path_factory):
    with published(tmp_path_factory):
        examples = EXAMPLE_SETS["en-fr"].load(quiet=True)
        assert EXAMPLE_SETS["en-fr"].load(quiet=True) == examples
    assert sum(map(len, examples.values())) >= 60_000
    assert min(len(examples["validation"]), len(examples["test"])) >= 1_500
    sides = {split: {side.casefold() for e in rows for side in e} for split, rows in examples.items()}
    assert not sides["train"] & (sides["validation"] | sides["test"])
    assert not sides["validation"] & sides["test"]
