"""Recall at a distance at a tiny size: what the texts hold, what is learned, and what is measured."""

from __future__ import annotations

import pytest
import torch
from small_history import RECALLING

from glassformer.errors import UsageError
from glassformer.history.figures import history_figures
from glassformer.history.recall import FILLERS, GREW, PLACES, PREFIX, SPEAK, RecallBatches, recall
from glassformer.tasks.losses import IGNORED


@pytest.fixture(scope="module")
def found():
    return recall(
        steps=500,
        batch_size=32,
        distances=(2, 5),
        examples=200,
        learning_rates=(0.003,),
        shapes=RECALLING,
        device="cpu",
    )


def test_the_answer_is_the_language_of_the_place_after_grew():
    batches = RecallBatches((2, 9, 40), batch_size=50, seed=3)
    lengths = set()
    for _ in range(40):
        inputs_BT, targets_BT = next(batches)
        assert (targets_BT[:, :-1] == IGNORED).all() and (inputs_BT[:, -1] == SPEAK).all()
        rows, places = (inputs_BT == GREW).nonzero(as_tuple=True)
        assert rows.tolist() == list(range(50)) and len(set(places.tolist())) == 1  # once a text
        distance = inputs_BT.shape[1] - places[0] - 1
        assert distance in (2, 9, 40) and places[0] <= PREFIX
        told_B = inputs_BT[torch.arange(50), places + 1]
        assert (told_B < PLACES).all() and torch.equal(targets_BT[:, -1], told_B + PLACES)
        lengths.add(int(distance))
        if distance == 40:  # other places come up too, or the model need not read `grew`
            others = (inputs_BT < PLACES).sum(-1) - 1
            assert 0.05 < float(others.float().mean()) / 40 < 0.15
        between = inputs_BT[inputs_BT >= PLACES]
        assert ((between >= 2 * PLACES) & (between < 2 * PLACES + FILLERS + 2)).all()  # no language is given away
    assert lengths == {2, 9, 40}


def test_texts_are_a_function_of_seed_and_step():
    one, same, other = (RecallBatches((3, 8), batch_size=4, seed=seed) for seed in (1, 1, 2))
    first = next(one)
    assert all(torch.equal(a, b) for a, b in zip(first, next(same), strict=True))
    assert not torch.equal(first[0], next(other)[0])


def test_the_better_rate_is_kept():
    shapes = {"lstm": RECALLING["lstm"]}
    (curve,) = recall(steps=40, distances=(2,), examples=9, learning_rates=(0.01, 1e-5), shapes=shapes, device="cpu")[
        "curves"
    ]
    fast, slow = curve["tried"]
    assert curve["learning_rate"] == 0.01 and fast["loss"] < slow["loss"]
    assert curve["points"][0]["loss"] == fast["loss"]


def test_every_model_recalls_what_is_near(found):
    assert [curve["kind"] for curve in found["curves"]] == list(RECALLING)
    for curve in found["curves"]:
        assert [p["distance"] for p in curve["points"]] == [2, 5]
        assert curve["points"][0]["right"] > 0.9, curve["name"]
        assert all(p["gradient"] > 0 and p["seconds"] > 0 for p in curve["points"])


def test_the_gradient_fades_with_distance_in_an_lstm_and_less_with_attention():
    far = recall(
        steps=1, distances=(2, 150), examples=4, learning_rates=(0.001,), shapes=RECALLING, device="cpu", batch_size=2
    )
    lasting = {}
    for curve in far["curves"]:
        near, distant = (p["gradient_before"] for p in curve["points"])
        lasting[curve["kind"]] = distant / near
    assert lasting["lstm"] < 1e-4 < lasting["lstm-attention"] < lasting["transformer"]


def test_the_figures_show_each_distance(found):
    figures = history_figures({"recall": found})["recall"]
    table = figures[-1]
    assert [column.name for column in table.columns][-2:] == ["2", "5"]
    assert [row[-2:] for row in table.rows] == [tuple(p["right"] for p in c["points"]) for c in found["curves"]]


@pytest.mark.parametrize("wrong", [{"distances": (1, 8)}, {"distances": ()}, {"steps": 0}, {"learning_rates": ()}])
def test_mistakes_are_one_line(wrong):
    with pytest.raises(UsageError, match="distances of 2 and more, a step and a learning rate are needed"):
        recall(**wrong)
    with pytest.raises(UsageError, match="did you mean lstm"):
        recall(shapes={"ltsm": {}})
