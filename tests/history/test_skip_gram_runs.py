"""Word vectors from a text of one's own: trained, loaded, scored, and exactly resumed."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from glassformer import recipes
from glassformer.cli import app
from glassformer.errors import DataError, UsageError
from glassformer.history import skip_gram_task, word_tests
from glassformer.history.word_tests import Likeness, Question, WordTests
from glassformer.hub import load, load_model
from glassformer.inspection.geometry import neighbours
from glassformer.inspection.vectors import vectors_of
from glassformer.recipes.opening import open_run

SMALL = ["model.n_embd=7", "model.block_size=13", "task.noise=5", "task.subsample=0.1"]
STEPS = ["training.steps=6", "training.batch_size=4", "training.eval_every=3", "training.sample_every=6"]
THINGS = {"cat": "purrs", "dog": "barks", "bird": "sings", "king": "rules"}


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Each thing stands beside what it does, and beside nothing else of the kind."""
    draw = random.Random(0)
    lines = [f"The {thing} {THINGS[thing]}, {draw.choice(['Now', 'THEN', 'here'])}!" for thing in [*THINGS] * 150]
    draw.shuffle(lines)
    path = tmp_path / "things.txt"
    path.write_text("\n".join(lines))
    return str(path)


def trained(text: str, out: Path, *settings: str):
    return recipes.train("word-vectors", [*SMALL, *STEPS, *settings], data=text, out=out)


def test_a_run_is_a_folder_that_loads(text, tmp_path):
    run = trained(text, tmp_path / "run")
    assert json.loads((run.path / "model" / "config.json").read_text())["model_type"] == "glassformer"
    model, tokenizer = load(run.path)
    assert (
        tokenizer.kind == "plain-words" and tokenizer.decode(tokenizer.encode("The CAT, purrs; 7")) == "the cat purrs"
    )
    assert model.embedding.weight.shape == (tokenizer.vocab_size, 7) == (13, 7)  # 12 words and <unk>
    derived = (run.path / "recipe.toml").read_text()
    assert "words = 12" in derived and "n_answers = 64" in derived
    sample = json.loads((run.path / "samples.jsonl").read_text().splitlines()[0])["text"]
    assert sample.startswith("king: ")
    assert run.loss.n > 50 and 0 <= run.loss.accuracy <= 1


def test_it_learns_what_stands_together(text, tmp_path):
    """Words that never meet but have the same neighbours come to lie close: now, then, here."""
    settings = ["training.steps=300", "training.batch_size=16", "training.accumulator_start=1e-6"]
    run = trained(text, tmp_path / "run", *settings, "task.window=2", "training.eval_every=300")
    vectors = vectors_of(*load(run.path))
    assert run.loss.loss < 3.4  # 6 ln 2 = 4.16 at the start
    assert {"then", "here"} <= set(neighbours(vectors, "now", n=4).words)


def test_resumed_it_is_as_if_it_had_never_stopped(text, tmp_path):
    whole = trained(text, tmp_path / "whole", "training.steps=8", "training.checkpoint_every=4")
    part = trained(text, tmp_path / "part", "training.steps=8", "training.checkpoint_every=4")
    (part.path / "summary.json").unlink()
    for path in (part.path / "checkpoints").glob("step-*8"):
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir()
    again = recipes.resume(part.path)
    assert again.loss == whole.loss and again.tokens == whole.tokens
    a, b = load_model(whole.path / "model").state_dict(), load_model(part.path / "model").state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluate_compares_with_peoples_judgements(text, tmp_path, monkeypatch):
    tests = WordTests(
        {"some": [Likeness("cat", "dog", 7.0), Likeness("cat", "purrs", 3.0), Likeness("cat", "zebra", 1.0)]},
        {"family": [Question("cat", "purrs", "dog", "barks")], "gram": [Question("cat", "cats", "dog", "dogs")]},
    )
    monkeypatch.setattr(skip_gram_task, "load_word_tests", lambda: tests)
    run = trained(text, tmp_path / "run")
    shown = CliRunner().invoke(app, ["evaluate", str(run.path)])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"some           -?1\.000  \(Spearman's rho; 2 of 3 pairs known\)", shown.stdout)
    assert re.search(r"analogies, meaning  .* \(1 of 1 known\)", shown.stdout) and "form" not in shown.stdout
    as_json = json.loads(CliRunner().invoke(app, ["evaluate", str(run.path), "--json"]).stdout)
    assert as_json["likeness"]["some"]["n"] == 2 and as_json["analogies"]["form"]["n_all"] == 1
    model, task = open_run(run.path)
    assert task.extra_scores(model).to_dict() == {key: as_json[key] for key in ("likeness", "analogies")}


def test_without_the_lists_evaluate_gives_the_reason(text, tmp_path, monkeypatch):
    def refuse(source, quiet):
        raise DataError("pip package gensim 4.4.0: the package index cannot be reached; check the network")

    monkeypatch.setattr(word_tests, "fetch", refuse)
    shown = CliRunner().invoke(app, ["evaluate", str(trained(text, tmp_path / "run").path)])
    assert shown.exit_code == 0 and "loss  " in shown.stdout and "the package index cannot be reached" in shown.output


def test_what_does_not_fit_is_one_line(text, tmp_path):
    with pytest.raises(UsageError, match=r"model\.kind=decoder cannot do task\.kind=skip_gram"):
        trained(text, tmp_path / "a", "model.kind=decoder")
    with pytest.raises(DataError, match=r"rows of 13 words, and a step reads 4000"):
        trained(text, tmp_path / "b", "training.batch_size=4000")
    run = trained(text, tmp_path / "c")
    for command in (["generate", str(run.path), "--prompt", "the"], ["evaluate", str(run.path), "--split", "test"]):
        shown = CliRunner().invoke(app, command)
        assert isinstance(shown.exception, UsageError) and len(str(shown.exception).splitlines()) == 1
