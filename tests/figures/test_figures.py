"""Captures of the terminal at a fixed width, the numbers in HTML, SVG and JSON, the axes of a plot."""

from __future__ import annotations

import io
import json
import math
import re
import typing
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console, Group

import glassformer.figures as figures
from glassformer.errors import UsageError
from glassformer.figures import Column, Curves, HeatMap, Line, Note, Points, Table, Tokens
from glassformer.figures import json as json_renderer
from glassformer.figures.axes import limits, thin

COLUMNS = [
    Column("t", "token"),
    Column("p", "share"),
    Column("g", "signed"),
    Column("n", "count"),
    Column("x", "number"),
]
ROWS = [(" the", 0.5, -0.25, 1234, 0.1), ("a", 0.25, 0.5, 7, None)]
TABLE = Table("Next", COLUMNS, ROWS, footer=[("8 others", 0.25, None, None, None)])
MAP = HeatMap("map", np.array([[1.0, 0.0], [0.25, np.nan]]), ["to", " be"], ["to", " be"], "query", "key")
WIDE = HeatMap("wide", np.eye(3, 90), ["a", "b", "c"], [f"k{i}" for i in range(90)])
SIGNED = HeatMap("signed", np.linspace(-3, 3, 40).reshape(1, 40), ["r"], [str(i) for i in range(40)], signed=True)
TOKENS = Tokens("text", ["To", "\\n", " be"], [None, 1.0, 4.0], "bits")
CURVES = Curves.over("curves", ["0", "1", "2"], {"p": [0.0, 0.5, 1.0]}, "layer", "probability")
POINTS = Points("points", ["king", "queen"], np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), ("1", "2", "3"))
LOSS = Curves(
    "loss",
    [
        Line("training", [1, 2, 3, 4], [4.0, 9.0, math.nan, 2.0], faint=True),
        Line("validation", [2, 4], [3.0, 2.5], low=[2.9, 2.4], high=[3.1, 2.6], dots=True),
    ],
    "step",
    "nats",
    y_from_zero=False,
    y_max=5.0,
    levels=[("uniform", 4.17)],
    events=[("warning", 3)],
)
ALL = [Note("A note & more."), TABLE, MAP, WIDE, SIGNED, TOKENS, CURVES, POINTS, LOSS]


def captured(*drawn, **options) -> str:
    console = Console(width=80, **{"no_color": True, "file": io.StringIO(), **options})
    with console.capture() as capture:
        console.print(Group(*figures.to_terminal(drawn, console, console.options)))
    return capture.get()


def colored(*drawn) -> str:
    return captured(*drawn, no_color=False, force_terminal=True, color_system="truecolor")


class Values(HTMLParser):
    """Every data-value of a page, and its tags."""

    def __init__(self, page: str):
        super().__init__()
        self.values, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [value for name, value in attributes if name == "data-value"]


# terminal


def test_a_table_in_80_columns():
    lines = captured(TABLE).splitlines()
    assert re.search(r"␣the +50\.0 % +█+ +-0\.250 +█+│ +1,234 +0\.100", lines[2])
    assert re.search(r"a +25\.0 % +█+ +0\.500 +│█+ +7", lines[3])
    assert "8 others" in lines[4] and "█" not in lines[4] and lines[2].count("█") > lines[3].count("█")


def test_a_small_heat_map_is_a_grid_of_numbers():
    lines = captured(MAP).splitlines()
    assert lines[:2] == ["map", "down: query across: key"]
    assert [line.split() for line in lines[2:]] == [["to", "␣be"], ["to", "1.00", "0.00"], ["␣be", "0.25"]]


def test_a_wide_heat_map_comes_in_pieces_with_labels_to_be_read_downwards():
    text = captured(WIDE)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith(("a ", "b ", "c "))]
    assert len(rows) == 6 and rows[0][2] == "█" and rows[1][3] == "█" and rows[2][4] == "█"


def test_in_colour_two_rows_share_a_line_of_half_blocks():
    text = colored(WIDE)
    assert "▀" in text and "█" not in text and "38;2;128;128;128" in text  # the full colour of data


def test_without_colours_numbers_stand_beside_tokens_and_colours_never_leak():
    assert "To⏎(1.0)\n be(4.0)" in captured(TOKENS)
    assert "\x1b[3" not in captured(*ALL, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in colored(TOKENS)


def test_nothing_is_wider_than_the_terminal():
    assert all(len(line) <= 80 for line in captured(*ALL).splitlines())


def test_one_curve_is_a_chart_and_several_are_a_line_each():
    one = captured(Curves("", [Line("loss", [1, 2, 3], [4.0, 3.0, 2.0])], y_from_zero=False)).splitlines()
    assert len(one) == 6 and one[0] == " 4.00 ┤█" and one[-1] == " 2.00 ┤██▁"
    several = captured(LOSS).splitlines()
    assert re.fullmatch(r"training   ▆█ ▁ 4\.000 … 2\.000", several[2])  # 9 is above the picture
    assert re.fullmatch(r"validation  . . 3\.000 … 2\.500", several[3])


@pytest.mark.parametrize(("figure", "low", "high"), [(WIDE, "0", "1.000"), (SIGNED, "-3.000", "3.000")])
def test_heat_maps_have_a_legend_with_numbers(figure, low, high):
    last = colored(figure).splitlines()[-1]
    assert re.sub(r"\x1b\[[\d;]*m", "", last).split() == [low, high] and last.count("48;2;") == 9
    letters = "=- ·░▒▓█" if figure.signed else " ·░▒▓█"
    assert captured(figure).splitlines()[-1] == f"{low} {letters} {high}"
    drawn = figures.to_svg([figure])
    assert re.search(rf'class="dim low">{low}<', drawn) and re.search(rf'class="dim high">{high}<', drawn)


# HTML and SVG


def test_html_holds_the_numbers_and_needs_nothing_from_elsewhere():
    page = str(figures.to_html(ALL, "a <title>"))
    parsed = Values(page)
    assert {"0.5", "0.25", "-0.25", "1234.0", "1.0", "4.0", "0 0.5 1"} <= set(parsed.values)
    assert not {"link", "img", "iframe"} & set(parsed.tags) and parsed.tags.count("script") == 2
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "A note &amp; more." in page and "a &lt;title&gt;" in page


def test_a_readout_brings_the_numbers_as_json_and_no_titles():
    fragment = figures.html_fragment([WIDE, LOSS, TABLE], readout=True)
    data = [json.loads(text) for text in re.findall(r"(?s)<script type=\"application/json\">(.*?)</script>", fragment)]
    assert data == json.loads(json.dumps(figures.to_json([WIDE, LOSS])))
    assert fragment.count("data-frame") == 2 and "<rect data-value" not in fragment


def test_html_takes_text_for_text():
    evil = "<script>alert(1)</script>"
    hostile = [Note(evil), Note(evil, evil, True), Tokens(evil, [evil, "\x00"], [1.0, None])]
    hostile += [Table(evil, (Column(evil),), [(evil,)]), HeatMap(evil, np.ones((1, 1)), [evil], [evil], evil, evil)]
    hostile += [Curves(evil, [Line(evil, [1], [1])], evil, evil, levels=[(evil, 1)], events=[(evil, 1)])]
    for page in (figures.to_html(hostile, evil), figures.html_fragment(hostile, readout=True)):
        assert "<script>alert" not in page and "\x00" not in page


def test_a_page_keeps_every_space_and_sign_and_replaces_what_cannot_be_seen():
    """A French question, a soft hyphen, a family of emoji, a tab; then NUL, half a pair, a turned direction."""
    kept = "« Où\u00a0? »\u202f; co\u00adop 👩\u200d👧 a\tb"
    page = figures.to_html([Note(kept), Note("\x00"), Note("\ud800"), Note("\u202ecba")], "")
    assert f"<p>{kept}</p>" in page
    assert re.findall(r"<p>([^<]*\ufffd[^<]*)</p>", page) == ["\ufffd", "\ufffd", "\ufffdcba"]


def test_spaces_of_other_kinds_are_seen_in_tables():
    assert "⍽?" in captured(Table("", (Column("token", "token"),), [("\u00a0?",)]))


def test_an_svg_file_is_whole_xml_with_every_line_level_and_event():
    root = ElementTree.fromstring(figures.to_svg([LOSS, MAP, POINTS, Note("a\nb")], "All <of> it"))
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"All <of> it", "training", "validation", "uniform", "nats", "step", "king", "␣be", "a", "b"} <= texts
    assert "▲ 1 value is above the picture; the highest is 9, at 2." in texts
    lines = root.findall(".//{*}polyline")
    assert [line.get("data-value") for line in lines] == ["4 9", "2", "3 2.5"]  # the gap cuts the first line
    assert len(root.findall(".//{*}polygon")) == 1 and len(root.findall(".//{*}path[@class='event']")) == 1


def test_compact_maps_stand_beside_each_other_and_cover_every_cell():
    maps = [HeatMap(f"head {i}", np.full((3, 5), 0.5), (), (), highest=1.0, compact=True) for i in range(4)]
    root = ElementTree.fromstring(figures.to_svg(maps))
    places = [group.get("transform") for group in root.findall("./{*}g")]
    assert len({place.split()[1] for place in places}) == 1 and len(set(places)) == 4
    for path in root.findall(".//{*}path"):
        boxes = re.findall(r"h([\d.]+)v([\d.]+)", path.get("d"))
        assert sum(float(w) * float(h) for w, h in boxes) == pytest.approx(15 * 13 * 13)


def test_a_table_has_no_svg():
    with pytest.raises(UsageError, match=r"Table.*HTML"):
        figures.to_svg([TABLE])


# JSON


def test_json_holds_every_number_and_is_strict():
    data = json.loads(json.dumps(figures.to_json(ALL), allow_nan=False))
    kinds = [d["kind"] for d in data]
    assert kinds == ["note", "table", *["heat_map"] * 3, "tokens", "curves", "points", "curves"]
    table, heat, tokens, loss = (data[i] for i in (1, 2, 5, 8))
    assert table["rows"][0][1] == {"text": "50.0 %", "value": 0.5, "bar": 1.0}
    assert table["footer"][0][1] == {"text": "25.0 %", "value": 0.25}
    assert heat["values"] == [[1.0, 0.0], [0.25, None]] and heat["rows"] == ["to", " be"]
    assert tokens["values"] == [None, 1.0, 4.0] and tokens["highest"] == 4.0
    assert loss["lines"][0]["y"] == [4.0, 9.0, None, 2.0] and loss["lines"][1]["low"] == [2.9, 2.4]
    assert loss["levels"] == [{"name": "uniform", "y": 4.17}] and loss["events"] == [{"name": "warning", "x": 3.0}]


def test_figures_are_read_back_from_json():
    data = json.loads(json.dumps(figures.to_json(ALL), allow_nan=False))
    assert json.loads(json.dumps(figures.to_json(figures.from_json(data)))) == data
    for wrong in ([{"kind": "note"}], [{"kind": "heat_map", "values": 3}], ["note"], 3, [{"kind": "picture"}]):
        with pytest.raises(UsageError):
            figures.from_json(wrong)


def test_json_is_bounded_and_names_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(json_renderer, "MOST_ROWS", 2)
    monkeypatch.setattr(json_renderer, "MOST_TOKENS", 2)
    many = Table("", (Column("n", "count"),), [(i,) for i in range(5)], frozenset({1, 4}))
    values = np.zeros(100_000)
    values[70_001] = 7.0  # a spike of one step
    line = Curves("", [Line("", np.arange(100_000), values)])
    big = HeatMap("", np.zeros((600, 3)), ["r"] * 600, ["a", "b", "c"])
    table, tokens, curve, heat = figures.to_json([many, TOKENS, line, big])
    assert (len(table["rows"]), table["omitted"], table["marked"]) == (2, {"rows": 3}, [1])
    assert tokens["omitted"] == {"tokens": 1} and heat["omitted"] == {"rows": 88}
    assert len(curve["lines"][0]["y"]) <= 2000 and 7.0 in curve["lines"][0]["y"]


# files


@pytest.mark.parametrize("suffix", ["svg", "html", "json"])
def test_the_name_of_a_file_decides_its_form(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    figures.save([MAP, LOSS], path, "x & y")
    renderers = {"svg": figures.to_svg, "html": figures.to_html}
    if suffix in renderers:
        assert path.read_text() == renderers[suffix]([MAP, LOSS], "x & y")
    else:
        assert [d["kind"] for d in json.loads(path.read_text())] == ["heat_map", "curves"]


def test_another_name_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a\.png: .*name it a\.svg"):
        figures.save([MAP], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_cross_attention_is_a_large_map_of_the_last_layer_and_a_small_one_for_every_head():
    raw = np.random.default_rng(0).random((2, 3, 3, 5))
    weights, source, target = raw / raw.sum(-1, keepdims=True), ["the", " cat", " <&>", "x", "</s>"], ["le", " c", "y"]
    large, *rest = figures.cross_attention_figures(weights, source, target)
    small = [figure for figure in rest if isinstance(figure, HeatMap)]
    np.testing.assert_array_equal(large.values, weights[-1].mean(axis=0))
    assert (large.rows, large.columns) == (target, source)
    np.testing.assert_array_equal(np.stack([one.values for one in small]).reshape(weights.shape), weights)
    assert len(figures.cross_attention_figures(weights[:1, :1], source, target)) == 1
    with pytest.raises(UsageError, match="3 x 5 weights for 3 x 4 tokens"):
        figures.cross_attention_figures(weights, source[1:], target)


# matplotlib


def test_a_plot_has_axes_for_every_figure():
    pytest.importorskip("matplotlib")
    plot = figures.to_matplotlib(ALL)
    titles = [axes.get_title(loc="left") for axes in plot.axes]
    assert [t for t in titles if t] == [figure.title for figure in ALL if figure.title]
    image = next(axes for axes in plot.axes if axes.get_title(loc="left") == "map").images[0]
    np.testing.assert_array_equal(image.get_array(), MAP.values)
    assert plot.axes[-1].get_ylim()[1] == 5.0 and plot._repr_png_().startswith(b"\x89PNG")
    assert sum(axes.get_label() == "<colorbar>" for axes in plot.axes) == 4  # three maps, one text


# primitives and axes


def test_a_column_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match=r"kind 'shares'.*share, signed"):
        Column("p", "shares")


def test_lines_without_an_x_of_their_own_are_refused():
    with pytest.raises(UsageError, match=r"Curves\.over"):
        Curves("loss", ["0", "1"], {"a": [1.0, 2.0]})


def test_every_renderer_draws_every_primitive():
    """A new primitive needs a line in each of these tables, and no code outside the package."""
    from glassformer.figures import matplotlib as plots
    from glassformer.figures import terminal

    primitives = set(typing.get_args(figures.Figure))
    assert set(terminal.DRAWERS) == set(plots.DRAWERS) == set(json_renderer.WRITERS) == primitives
    assert {type(figure) for figure in ALL} == primitives  # so the HTML of all is tested, too


def test_a_logarithmic_heat_map_runs_from_its_smallest_number_to_its_largest():
    shares = HeatMap("", np.array([[1e-6, 1e-3, 1.0, 0.0, np.nan]]), ["r"], list("abcde"), log=True).shares()[0]
    assert 0 < shares[0] < 0.1 and shares[1] == pytest.approx((shares[0] + 1) / 2) and shares[2] == 1
    assert np.isnan(shares[3:]).all()


def test_limits_take_in_lines_bands_and_levels_but_not_what_is_above():
    low, high, bottom, top = limits(LOSS)
    assert (low, high) == (1, 4) and bottom < 2.0 and 5.0 < top < 5.2
    assert limits(Curves("", [Line("", [1], [math.nan])])) is None


def points_of(figure: Curves) -> list[tuple[float, float]]:
    """Where a chart's first line is drawn."""
    points = re.search(r'polyline points="(.*?)"', figures.to_svg([figure]))[1]
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_a_curve_is_where_its_values_are_on_linear_and_on_logarithmic_axes():
    """Steps 1, 2, 3 from the left margin 64 to 746; 0 at the foot, 2 twice as high as 1. Then equal factors."""
    (x0, y0), (x1, y1), (x2, y2) = points_of(Curves("", [Line("", [1, 2, 3], [0, 2, 1])]))
    assert (x0, x1, x2) == (64, 405, 746) and y0 > y2 > y1 and y2 == pytest.approx((y0 + y1) / 2, abs=0.1)
    line = Line("", [1, 10, 100], [1, 10, 100])
    (x0, y0), (x1, y1), (x2, y2) = points_of(Curves("", [line], x_log=True, y_log=True))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y1 - y0 == pytest.approx(y2 - y1, abs=0.11)


def test_a_thinned_curve_keeps_every_extreme_and_no_more_than_four_points_a_column():
    y = np.random.default_rng(0).normal(size=100_000)
    y[40_000] = 50.0
    kept = thin(np.arange(100_000.0), y, 300, 0, 100_000)
    assert 40_000 in kept and len(kept) <= 4 * 300 and kept[0] == 0 and kept[-1] == 99_999
    column = np.arange(100_000) * 300 // 100_000
    for c in range(300):
        assert {y[column == c].min(), y[column == c].max()} <= set(y[kept[column[kept] == c]])
