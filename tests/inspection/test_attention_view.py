"""Where heads look: patterns against a computation from the weights alone, summaries against loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from heads_by_hand import ANSWERS, CASES, TEXT, TOKENIZER, case
from stacks import patches
from toys import shaken, toy_model

from glassformer.errors import UsageError
from glassformer.history import Seq2Seq, Seq2SeqConfig
from glassformer.inspection import HeatMap, Table, attention
from glassformer.inspection.heads import after_earlier

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.mark.parametrize("name", CASES)
def test_patterns_are_what_the_weights_give(name: str):
    at = case(name)
    view = attention(at.model, TOKENIZER, TEXT, **at.asked)
    L = at.stack.config.n_layer
    theirs = [at.by_hand(layer).parts for layer in range(L)]
    np.testing.assert_allclose(view.patterns, np.stack([x["weights"].numpy() for x in theirs]), **CLOSE)
    assert view.visible.tolist() == [x["may"].tolist() for x in theirs]
    assert view.patterns.dtype == np.float32
    source, target = list(TEXT), ["<start>", *ANSWERS]
    assert view.queries == (target if at.asked.get("target") and at.kind != "encoder" else source)
    assert view.keys == (target if at.asked.get("target") and at.kind == "self" else source)


def by_loops(patterns, visible, ids, sinks):
    """Each summary of each head, one query after the other."""
    L, H, T, S = patterns.shape
    found: dict[str, np.ndarray] = {}
    for i in range(L):
        for h in range(H):
            shares: dict[str, list[float]] = {}
            for t in range(T):
                row = patterns[i, h, t].astype(np.float64)
                if visible[i, t].sum() < 2:
                    continue  # no choice
                rest = max(1 - row.sum(), 0.0)
                places = [*row, *([rest] if sinks else [])]
                shares_of = {"first": row[0], "entropy": -sum(p * math.log2(p) for p in places if p > 0)}
                shares_of["sink"], shares_of["last"] = rest, row[-1]
                if t < S:
                    shares_of["same"] = row[t]
                if t:
                    shares_of["previous"] = row[t - 1]
                if t + 1 < S:
                    shares_of["next"] = row[t + 1]
                if ids is not None:
                    after = {s + 1 for s in range(t) if ids[s] == ids[t] and s + 1 < t}
                    if after:
                        shares_of["induction"] = sum(row[s] for s in after)
                for name, share in shares_of.items():
                    shares.setdefault(name, []).append(share)
            for name, values in shares.items():
                found.setdefault(name, np.full((L, H), np.nan))[i, h] = np.mean(values)
    return found


NAMES = {
    "classic": "previous same first induction entropy",
    "gemma 3": "previous same first induction entropy",
    "capped, sinks": "previous same first induction sink entropy",
    "window": "previous same first induction entropy",
    "encoder": "previous next same first last entropy",
    "T5: self": "previous same first induction entropy",
    "T5: encoder": "previous next same first last entropy",
    "grouped pair: cross": "first last entropy",
}


@pytest.mark.parametrize("name", NAMES)
def test_summaries_are_what_loops_over_the_queries_give(name: str):
    at = case(name)
    view = attention(at.model, TOKENIZER, TEXT, **at.asked)
    assert list(view.summaries) == NAMES[name].split()
    ids = TOKENIZER.encode(TEXT) if view.keys == list(TEXT) else [-1, *TOKENIZER.encode(ANSWERS)]
    has_sinks = "sink" in view.summaries
    theirs = by_loops(view.patterns, view.visible, ids, has_sinks)
    even = view.visible / view.visible.sum(axis=-1, keepdims=True)
    evenly = by_loops(np.repeat(even[:, None], 2, axis=1), view.visible, ids, False)
    for summary, values in view.summaries.items():
        np.testing.assert_allclose(values, theirs[summary], atol=2e-5, rtol=1e-5, err_msg=summary)
        if summary != "sink":
            assert view.even[summary] == pytest.approx(evenly[summary][:, 0].mean(), abs=1e-5)
    assert view.patterns.sum(axis=-1).max() < 1 + 1e-5
    if not has_sinks:
        np.testing.assert_allclose(view.patterns.sum(axis=-1), 1, atol=1e-5)


def test_repeats_are_counted_and_a_token_is_no_successor_of_itself():
    assert after_earlier([1, 1, 2, 1]).nonzero()[0].tolist() == [3, 3]  # the second 1 could only look at itself
    assert after_earlier([1, 1, 2, 1]).nonzero()[1].tolist() == [1, 2]
    view = attention(toy_model(), TOKENIZER, "abab")
    assert view.n_repeats == 2 and "before: 2 of 4" in str(view)
    view = attention(toy_model(), TOKENIZER, "abcd")
    assert view.n_repeats == 0 and np.isnan(view.summaries["induction"]).all()
    assert "look induction" in " ".join(str(view).split())
    json.dumps(view.to_dict(), allow_nan=False)


def test_a_single_token_has_no_choice():
    view = attention(toy_model(), TOKENIZER, "a")
    assert view.patterns.shape == (2, 3, 1, 1) and (view.patterns == 1).all()
    assert all(np.isnan(values).all() for values in view.summaries.values())
    json.dumps(view.to_dict(), allow_nan=False)
    assert str(view)


def drawn_map(view) -> HeatMap:
    return next(figure for figure in view.figures() if isinstance(figure, HeatMap))


def test_keys_as_rows_turns_the_drawing_and_not_the_numbers():
    model = toy_model()
    code = attention(model, TOKENIZER, TEXT, layer=1, head=2)
    lecture = attention(model, TOKENIZER, TEXT, layer=1, head=2, keys_as_rows=True)
    np.testing.assert_array_equal(code.patterns, lecture.patterns)
    rows, columns = drawn_map(code), drawn_map(lecture)
    np.testing.assert_array_equal(rows.values.T, columns.values)
    np.testing.assert_allclose(np.nansum(rows.values, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.nansum(columns.values, axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(rows.values[code.visible[1]], code.patterns[1, 2][code.visible[1]])
    assert np.isnan(rows.values[~code.visible[1]]).all()
    assert "row adds up to 1" in rows.title and "column adds up to 1" in columns.title
    assert rows.row_axis.startswith("queries") and columns.row_axis.startswith("keys")


def test_across_rows_and_columns_keep_their_labels():
    at = case("T5: cross")
    view = attention(at.model, TOKENIZER, TEXT, layer=0, head=0, keys_as_rows=True, **at.asked)
    assert drawn_map(view).rows == list(TEXT) and drawn_map(view).columns == ["<start>", *ANSWERS]
    assert drawn_map(view).values.shape == (len(TEXT), 1 + len(ANSWERS))


def tables(view) -> list[Table]:
    return [figure for figure in view.figures() if isinstance(figure, Table)]


def test_what_is_drawn_depends_on_what_was_asked_for():
    model = toy_model()
    everything, layer = attention(model, TOKENIZER, TEXT), attention(model, TOKENIZER, TEXT, layer=-1)
    one = attention(model, TOKENIZER, TEXT, layer=-2, head=-1)
    assert [row[0] for row in tables(everything)[0].rows] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "even"]
    assert [row[0] for row in tables(layer)[0].rows] == ["1.0", "1.1", "1.2", "even"]
    assert [row[0] for row in tables(one)[0].rows] == ["0.2", "even"]
    np.testing.assert_array_equal(np.nan_to_num(drawn_map(everything).values), everything.patterns[1].mean(axis=0))
    assert tables(one)[0].rows[0][1] == one.summaries["previous"][0, 2]
    assert (one.layer, one.head, layer.layer, layer.head) == (0, 2, 1, None)


def test_of_many_heads_the_strongest_are_drawn():
    model = toy_model("modern", n_layer=5)
    view = attention(model, TOKENIZER, TEXT)
    first = {table.title.split(":")[0]: table for table in tables(view)}
    assert list(first) == ["Previous", "Same", "First", "Induction", "Entropy"]
    shares = np.sort(view.summaries["previous"].ravel())[::-1]
    assert [row[1] for row in first["Previous"].rows[:4]] == pytest.approx([*shares[:3], shares.mean()])
    layer, head = np.unravel_index(view.summaries["previous"].argmax(), (5, 6))
    assert first["Previous"].rows[0][0] == f"layer {layer}, head {head}"
    narrow = np.unravel_index(view.summaries["entropy"].argmin(), (5, 6))
    assert first["Entropy"].rows[3][0] == "layer {}, head {}".format(*narrow)


def test_a_long_text_is_drawn_from_its_end():
    view = attention(toy_model(block_size=80), TOKENIZER, "ab Z" * 18, layer=0, head=1)
    assert drawn_map(view).values.shape == (64, 64)
    np.testing.assert_array_equal(np.nan_to_num(drawn_map(view).values), view.patterns[0, 1, 8:, 8:])
    assert "the last 64 of 72 queries" in str(view) and view.patterns.shape[-2:] == (72, 72)
    assert max(map(len, str(view).splitlines())) <= 80


def test_images_are_looked_at_by_patches():
    view = attention(patches(), None, torch.linspace(-1, 1, 72).view(2, 6, 6))
    assert view.patterns.shape == (2, 3, 5, 5) and view.keys[:2] == ["<class>", "0,0"]
    assert "induction" not in view.summaries


def test_additive_attention_of_a_recurrent_model_is_cross_attention():
    config = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_embd": 14, "n_hidden": 17}
    model = shaken(Seq2Seq(Seq2SeqConfig.make(**config, start_token=1, end_token=2, kind="seq2seq-attention"))).eval()
    held: list[torch.Tensor] = []
    hook = model.attention.register_forward_pre_hook(lambda _, args: held.append(args))
    view = attention(model, TOKENIZER, TEXT, target=ANSWERS, kind="cross")
    hook.remove()
    assert view.patterns.shape == (1, 1, 1 + len(ANSWERS), len(TEXT))
    for t, (query, keys, _, _) in enumerate(held):
        with torch.no_grad():
            part = model.attention
            scores = part.score((part.query(query)[:, :, None] + keys[:, None]).tanh())[0, 0, :, 0]
        np.testing.assert_allclose(view.patterns[0, 0, t], scores.softmax(0), **CLOSE)
    with pytest.raises(UsageError, match="kind=cross"):
        attention(model, TOKENIZER, TEXT, target=ANSWERS)
