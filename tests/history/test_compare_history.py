"""The two experiments at a tiny size: that they measure what they say, and that the page tells what was measured."""

from __future__ import annotations

import json
import math
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from small_history import COPYING, FEW, LANGUAGE, RECALLING

from glassformer.errors import UsageError
from glassformer.figures import Curves, Table, to_html, to_svg
from glassformer.generation.beam import beam_search
from glassformer.history import build_history
from glassformer.history.bottleneck import CopyBatches, bottleneck
from glassformer.history.comparison import compare_history
from glassformer.history.figures import history_figures
from glassformer.history.loss_against_compute import loss_against_compute
from glassformer.history.small_loop import training
from glassformer.tasks import NextToken, Translate


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """A text in which the last letter decides the next: a b c d e f g a b ..."""
    path = tmp_path_factory.mktemp("texts") / "ring.txt"
    path.write_text("abcdefg" * 120, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def small(ring):
    """Both results, made once."""
    loss = loss_against_compute(
        ring, steps=40, batch_size=4, block_size=9, longest_n_gram=3, shapes=LANGUAGE, device="cpu"
    )
    return {"loss": loss, "bottleneck": bottleneck(**FEW, shapes=COPYING, device="cpu")}


def test_every_model_learns_a_ring_of_letters_and_single_letters_know_nothing(small):
    n_grams, *trained = small["loss"]["curves"]
    assert [p["n"] for p in n_grams["points"]] == [1, 2, 3]
    assert n_grams["points"][0]["loss"] == pytest.approx(math.log(7), abs=0.01)
    assert n_grams["points"][1]["loss"] < 0.01
    assert [curve["kind"] for curve in trained] == list(LANGUAGE)
    for curve in trained:
        assert curve["points"][-1]["loss"] < 0.3 * math.log(7), curve["name"]
        assert curve["points"][0]["loss"] > curve["points"][-1]["loss"]


def test_what_is_paid_is_counted(small):
    """Tokens are steps x batch x block; operations are tokens times what the model says of one; seconds add up."""
    n_grams, *trained = small["loss"]["curves"]
    for curve in trained:
        assert [p["step"] for p in curve["points"]] == [2, 5, 10, 20, 40]
        assert [p["tokens"] for p in curve["points"]] == [4 * 9 * step for step in (2, 5, 10, 20, 40)]
        assert all(p["flops"] == p["tokens"] * curve["flops_per_token"] > 0 for p in curve["points"])
        seconds = [p["seconds"] for p in curve["points"]]
        assert seconds == sorted(seconds)
    gru = build_history("gru", vocab_size=7, block_size=9, n_embd=5, n_hidden=11)
    shown = next(curve for curve in trained if curve["kind"] == "gru")
    assert (shown["parameters"], shown["flops_per_token"]) == (gru.parameter_count(), gru.flops_per_token().training)
    train = small["loss"]["text"]["train_tokens"]
    assert [p["tokens"] for p in n_grams["points"]] == [train] * 3
    assert train + small["loss"]["text"]["validation_tokens"] == 840


def test_the_same_seed_gives_the_same_figures(ring):
    def losses(seed: int) -> list[float]:
        shown = loss_against_compute(
            ring, steps=3, batch_size=2, block_size=5, longest_n_gram=1, shapes={"gru": LANGUAGE["gru"]}, seed=seed
        )
        return [p["loss"] for p in shown["curves"][1]["points"]]

    assert losses(0) == losses(0) != losses(1)


def test_time_of_the_listener_is_not_counted():
    """A fifth of a second is burnt at each stop; all time together holds what is told and what was burnt."""
    model = build_history("bigram", vocab_size=7, block_size=5)
    batches = iter(lambda: (torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)), None)
    started, shown = time.process_time(), 0.0
    for at in training(model, NextToken(), batches, steps=4, learning_rate=0.1, stops=[2, 4]):
        until, shown = time.process_time() + 0.2, at.seconds
        while time.process_time() < until:
            pass
        assert at.targets == 10 * at.step
    assert 0 < shown <= time.process_time() - started - 2 * 0.2


def test_copying_is_learned_where_it_is_easy(small):
    for curve in small["bottleneck"]["curves"]:
        one, three = curve["points"]
        assert (one["length"], three["length"], one["n"]) == (1, 3, 40)
        assert one["exact"] > 0.9, curve["name"]
        assert three["exact"] <= three["tokens"] and one["interval"] > 0


def test_a_string_is_copied_exactly_if_greedy_decoding_does():
    """What the experiment reads off one forward pass is what saying the most likely token again and again gives."""
    torch.manual_seed(0)
    objective = Translate(start_token=3, end_token=4, label_smoothing=0.0)
    model = build_history(
        "seq2seq-attention", vocab_size=5, block_size=9, start_token=3, end_token=4, n_embd=7, n_hidden=11
    )
    batches = CopyBatches(objective, letters=3, lengths=(1, 3), batch_size=16, seed=0)
    for _ in training(model, objective, batches, steps=60, learning_rate=0.02, stops=[60]):
        pass
    asked = next(CopyBatches(objective, letters=3, lengths=(3, 3), batch_size=40, seed=9))
    model.eval()
    with torch.no_grad():
        rows = objective.rows(model, asked)
    exact = (rows.correct_B == rows.counts_B).tolist()
    text = [found[0].tokens for found in beam_search(model, asked[0], beam=1, max_new_tokens=8)]
    expected = [(*string, 4) for string in asked[0].tolist()]
    assert exact == [tokens == string for tokens, string in zip(text, expected, strict=True)]
    assert 0 < sum(exact) < 40  # some and not all, or this shows nothing


def test_strings_are_a_function_of_seed_and_step():
    objective = Translate(start_token=5, end_token=6, label_smoothing=0.0)
    a, b = (CopyBatches(objective, letters=5, lengths=(2, 9), batch_size=3, seed=1) for _ in range(2))
    first, second = next(a), next(a)
    assert torch.equal(first[0], next(b)[0])
    assert first[0].shape != second[0].shape or not torch.equal(first[0], second[0])
    assert torch.equal(first[2][:, 1:], first[0])
    assert torch.equal(first[3], torch.cat((first[0], torch.full((3, 1), 6)), dim=1))
    drawn = [next(a)[0] for _ in range(200)]
    assert {x.shape[1] for x in drawn} == set(range(2, 10))  # each is missing once in 8 * (7/8)^200 = 2e-11
    assert {int(x.max()) for x in drawn} <= set(range(5))


def test_results_are_plain_and_the_figures_are_drawn(small):
    assert json.loads(json.dumps(small)) == small
    for name, n_lines in (("loss", [6, 7]), ("bottleneck", [3, 3])):
        charts = [figure for figure in history_figures(small)[name] if isinstance(figure, Curves)]
        assert [len(chart.lines) for chart in charts] == n_lines
        lines = ElementTree.fromstring(to_svg(charts)).findall(".//{*}polyline")
        assert len(lines) == sum(n_lines)
        for line in lines:
            for place in line.get("points").split():
                x, y = map(float, place.split(","))
                assert 0 <= x <= 760 and 0 <= y <= 400


def test_one_experiment_is_a_page_too_and_names_are_escaped(small):
    only = {"loss": {**small["loss"], "text": {**small["loss"]["text"], "source": "<b>.txt"}}}
    assert list(history_figures(only)) == ["loss"] and list(history_figures({"bottleneck": small["bottleneck"]})) == [
        "bottleneck"
    ]
    page = to_html(history_figures(only)["loss"], "")
    assert "&lt;b&gt;.txt" in page and "<b>.txt" not in page and "nan" not in page.lower().replace("nanogpt", "")


def test_everything_is_written(ring, tmp_path):
    lines: list[str] = []
    result = compare_history(
        tmp_path / "a" / "b",
        quick=True,
        source=ring,
        device="cpu",
        settings={
            "loss": {"steps": 2, "batch_size": 2, "block_size": 5, "longest_n_gram": 2, "shapes": LANGUAGE},
            "bottleneck": {**FEW, "steps": 2, "shapes": COPYING},
            "recall": {"steps": 2, "distances": (2, 5), "examples": 9, "shapes": RECALLING},
        },
        log=lines.append,
    )
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == ["bottleneck.svg", "index.html", "loss.svg", "recall.svg", "results.json"]
    assert json.loads((tmp_path / "a" / "b" / "results.json").read_text()) == result
    assert result["loss"]["text"]["source"] == ring
    assert lines[0].startswith("1-grams: counted in ") and lines[-1].startswith(
        "Transformer, rate 0.003: step 2 of 2, "
    )


@pytest.mark.parametrize(
    ("experiment", "arguments", "line"),
    [
        (loss_against_compute, {"shapes": {"ltsm": {}}}, "'ltsm' takes no part in this comparison; did you mean lstm?"),
        (loss_against_compute, {"steps": 0}, "steps=0 and longest_n_gram=6 must be 1 or more; try steps=50"),
        (bottleneck, {"shapes": {"gru": {}}}, "'gru' takes no part in this comparison; known: seq2seq, seq2seq-att"),
        (bottleneck, {"shortest": 9, "longest": 8}, "shortest=9 and longest=8 are no lengths; try shortest=4 and lo"),
    ],
)
def test_mistakes_are_one_line(experiment, arguments, line: str):
    with pytest.raises(UsageError) as caught:
        experiment(**arguments)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_the_snippet_of_the_page_about_history_runs():
    text = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    torch.manual_seed(0)
    exec(compile(snippet, "docs/history.md", "exec"), {})


def test_tables_hold_the_last_figures_of_every_model(small):
    loss, bottleneck = (
        next(figure for figure in figures if isinstance(figure, Table)) for figures in history_figures(small).values()
    )
    last = {row[0]: row[1:] for row in loss.rows}
    for curve in small["loss"]["curves"][1:]:
        p = curve["points"][-1]
        expected = (curve["parameters"], f"{p['flops']:.1e}", p["seconds"], p["loss"], p["interval"])
        assert last[curve["name"]] == expected
    for curve, row in zip(small["bottleneck"]["curves"], bottleneck.rows, strict=True):
        assert row == (curve["name"], curve["parameters"], curve["seconds"], *(p["exact"] for p in curve["points"]))
