"""The demo, cut short: what it prints at the end, and where its text comes from on a machine with packages only."""

from __future__ import annotations

import dataclasses
import re

import pytest

from glassformer.data.corpora import CORPORA, first_reachable
from glassformer.errors import DataError

SHORT = ["training.steps=5", "training.eval_every=0", "training.sample_every=0"]


class Unreachable:
    """A corpus that nobody can fetch from here."""

    def file(self, *, quiet: bool = False):
        raise DataError("somewhere: no connection; check the network and run again")


def test_the_demo_tells_loss_sample_folder_and_three_things_to_try(shakespeare, glassformer):
    done = glassformer("demo", *SHORT)
    assert done.code == 0, done.err
    sample, rest = done.out.split("validation loss", 1)
    assert len(sample.strip("\n")) >= 450
    assert re.match(r" \d\.\d{4} \(a blind guess: 4\.1744\) after \d+ s of training", rest)
    assert "the run lies in runs/demo-1" in rest
    assert len([line for line in rest.splitlines() if line.startswith("  glassformer ")]) == 3


def test_the_first_corpus_that_can_be_had_is_taken(shakespeare, monkeypatch):
    assert first_reachable("tinyshakespeare", "shakespeare") == "tinyshakespeare"
    monkeypatch.setitem(CORPORA, "gone", Unreachable())
    why: list[str] = []
    assert first_reachable("gone", "tinyshakespeare", tell=why.append) == "tinyshakespeare"
    assert why == ["somewhere: no connection; check the network and run again"]
    with pytest.raises(DataError, match="somewhere: no connection"):
        first_reachable("gone", "gone")


def test_the_demo_says_when_it_takes_another_text(shakespeare, glassformer, monkeypatch):
    tiny = CORPORA["tinyshakespeare"]
    monkeypatch.setitem(CORPORA, "shakespeare", dataclasses.replace(tiny))
    monkeypatch.setitem(CORPORA, "tinyshakespeare", Unreachable())
    done = glassformer("demo", *SHORT)
    assert done.code == 0, done.err
    assert "note: somewhere: no connection; check the network and run again\n" in done.err
    assert "Tiny Shakespeare cannot be reached from here; all of his plays come as a package instead" in done.err
