"""The picture of attention: its cells are the weights, its labels the tokens, and it is whole XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from glassformer.errors import UsageError
from glassformer.training.attention_picture import attention_svg, write_attention_picture
from glassformer.training.heat_maps import colour

SVG = "{http://www.w3.org/2000/svg}"
SOURCE, TARGET = ["the", " black", " cat", " <&>", "</s>"], ["le", " chat", "\x00noir"]


def weights(L=2, H=3, T=3, S=5) -> np.ndarray:
    raw = np.random.default_rng(0).random((L, H, T, S))
    return raw / raw.sum(axis=-1, keepdims=True)


def test_the_large_map_is_the_mean_over_the_heads_of_the_last_layer():
    """Every cell tells its row, its column and its weight, and is as bright as it."""
    w = weights()
    root = ElementTree.fromstring(attention_svg(w, SOURCE, TARGET, title="a <b> & c\x0c"))
    told = {r.find(f"{SVG}title").text: r for r in root.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None}
    mean = w[-1].mean(axis=0)
    rows, columns = ["le", "␣chat", "\ufffdnoir"], ["the", "␣black", "␣cat", "␣<&>", "</s>"]
    assert len(told) == 15
    for t, row in enumerate(rows):
        for s, column in enumerate(columns):
            cell = told[f"{row} ← {column}: {mean[t, s]:.3f}"]
            assert cell.get("fill") == colour(mean[t, s] / mean.max())
            right_of = told[f"{row} ← {columns[0]}: {mean[t, 0]:.3f}"]
            assert float(cell.get("x")) == pytest.approx(
                float(right_of.get("x")) + s * float(cell.get("width")), abs=0.1
            )
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "a <b> & c\ufffd" in texts and set(rows) < set(texts) and set(columns) < set(texts)
    assert [text for text in texts if text.startswith("layer")] == [
        f"layer {i}, head {h}" for i in (1, 2) for h in (1, 2, 3)
    ]


def test_the_small_maps_cover_every_cell_once():
    """The areas of all runs of one map add up to T x S cells, whatever the shades."""
    root = ElementTree.fromstring(attention_svg(weights(), SOURCE, TARGET))
    maps = list(root.iter(f"{SVG}g"))
    assert len(maps) == 6
    for one in maps:
        boxes = [re.findall(r"h([\d.]+)v([\d.]+)", path.get("d")) for path in one]
        area = sum(float(w) * float(h) for found in boxes for w, h in found)
        assert area == pytest.approx(15 * 13 * 13, rel=0.01)


def test_one_head_needs_no_small_maps():
    root = ElementTree.fromstring(attention_svg(weights(1, 1), SOURCE, TARGET))
    assert not list(root.iter(f"{SVG}g"))


def test_a_long_sentence_makes_a_wide_picture():
    w = weights(1, 2, 3, 131)
    root = ElementTree.fromstring(attention_svg(w, ["word"] * 131, TARGET))
    edges = [float(r.get("x")) + float(r.get("width")) for r in root.iter(f"{SVG}rect") if r.get("x")]
    assert 860 < max(edges) <= float(root.get("width"))


def test_it_is_written_as_a_picture_or_a_page(tmp_path):
    for name in ("a.svg", "a.html"):
        write_attention_picture(tmp_path / name, weights(), SOURCE, TARGET, title="x & y")
    svg, page = (tmp_path / "a.svg").read_text(), (tmp_path / "a.html").read_text()
    assert svg in page and page.startswith("<!doctype html>") and "<title>x &amp; y</title>" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"a\.png: a picture of attention is an \.svg or an \.html; name it a\.svg$"):
        write_attention_picture(tmp_path / "a.png", weights(), SOURCE, TARGET)
    with pytest.raises(UsageError, match=r"^3 x 5 weights for 3 x 4 tokens; give one label for each$"):
        attention_svg(weights(), SOURCE[1:], TARGET)
