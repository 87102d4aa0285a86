"""How figures are drawn: fixed-width captures of the terminal, the numbers in HTML, the axes of a plot."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from glassformer.errors import UsageError
from glassformer.figures.primitives import Remark
from glassformer.inspection import Column, Curves, HeatMap, Note, Points, Table, Tokens, View

ROWS = [(" the", 0.5, -0.25, 1234, 0.1), ("a", 0.25, 0.5, 7, None), (Remark("8 others"), 0.25, None, None, None)]
TABLE = Table(
    "Next",
    (
        Column("token", "token"),
        Column("p", "share"),
        Column("gain", "signed"),
        Column("n", "count"),
        Column("x", "number"),
    ),
    ROWS,
)
MAP = HeatMap("map", np.array([[1.0, 0.0], [0.25, np.nan]]), ["to", " be"], ["to", " be"], "query", "key")
WIDE = HeatMap("wide", np.eye(3, 90), ["a", "b", "c"], [f"k{i}" for i in range(90)])
TOKENS = Tokens("text", ["To", "\\n", " be"], [None, 1.0, 4.0], "bits")
CURVES = Curves("curves", ["0", "1", "2"], {"p": [0.0, 0.5, 1.0]}, "layer", "probability")
POINTS = Points("points", ["king", "queen"], np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), ("1", "2", "3"))
ALL = [Note("A note & more."), TABLE, MAP, WIDE, TOKENS, CURVES, POINTS]


@dataclass
class Shown(View):
    numbers: np.ndarray

    def figures(self):
        return ALL


@pytest.fixture
def view():
    return Shown(np.array([1.0, np.nan]))


def captured(*figures, **options) -> str:
    @dataclass
    class Some(View):
        def figures(self):
            return list(figures)

    console = Console(width=80, **{"no_color": True, **options})
    with console.capture() as capture:
        console.print(Some())
    return capture.get()


def test_a_table_in_80_columns():
    lines = captured(TABLE).splitlines()
    assert re.search(r"␣the +50\.0 % +█+ +-0\.250 +█+│ +1,234 +0\.100", lines[2])
    assert re.search(r"a +25\.0 % +█+ +0\.500 +│█+ +7", lines[3])
    assert "█" not in lines[4] and lines[2].count("█") > lines[3].count("█")


def test_a_small_heat_map_is_a_grid_of_numbers():
    lines = captured(MAP).splitlines()  # the numbers say what a legend would
    assert lines[:2] == ["map", "down: query across: key"]
    assert [line.split() for line in lines[2:]] == [["to", "␣be"], ["to", "1.00", "0.00"], ["␣be", "0.25"]]


def test_a_wide_heat_map_comes_in_pieces_with_labels_to_be_read_downwards():
    text = captured(WIDE)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith(("a ", "b ", "c "))]
    assert len(rows) == 6 and rows[0][2] == "█" and rows[1][3] == "█" and rows[2][4] == "█"


def test_in_colour_two_rows_share_a_line_of_half_blocks():
    text = captured(WIDE, no_color=False, force_terminal=True, color_system="truecolor")
    assert "▀" in text and "█" not in text
    red, green, blue = (128, 128, 128)
    assert f"38;2;{red};{green};{blue}" in text  # the full colour of data


def test_without_colours_numbers_stand_beside_tokens_and_colours_never_leak():
    assert "To⏎(1.0)\n be(4.0)" in captured(TOKENS)
    assert "\x1b[3" not in captured(*ALL, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in captured(TOKENS, no_color=False, force_terminal=True, color_system="truecolor")


def test_nothing_is_wider_than_the_terminal():
    assert all(len(line) <= 80 for line in captured(*ALL).splitlines())


class Values(HTMLParser):
    """Every data-value of a page, and its tags."""

    def __init__(self):
        super().__init__()
        self.values, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [value for name, value in attributes if name == "data-value"]


def test_html_holds_the_numbers_and_needs_nothing_from_elsewhere(view):
    page = view.to_html()
    parser = Values()
    parser.feed(page)
    assert {"0.5", "0.25", "-0.25", "1234.0", "1.0", "4.0", "0 0.5 1"} <= set(parser.values)
    assert not {"script", "link", "img", "iframe"} & set(parser.tags)
    assert "http" not in page.replace("http-equiv", "") and "A note &amp; more." in page
    assert view._repr_html_() in page


def test_html_takes_text_for_text():
    @dataclass
    class Hostile(View):
        def figures(self):
            evil = "<script>alert(1)</script>"
            return [Note(evil), Tokens(evil, [evil, "\x00"], [1.0, None]), Table(evil, (Column(evil),), [(evil,)])]

    assert "<script" not in Hostile().to_html() and "\x00" not in Hostile().to_html()


def test_a_page_keeps_every_space_and_sign_and_replaces_what_none_can_see():
    """A French question, a soft hyphen, a family of emoji, a tab; then NUL, half a pair, a turned direction."""
    kept = "« Où\u00a0? »\u202f; co\u00adop 👩\u200d👧 a\tb"

    @dataclass
    class Text(View):
        def figures(self):
            return [Note(kept), Note("\x00"), Note("\ud800"), Note("\u202ecba")]

    page = Text().to_html()
    assert f"<p>{kept}</p>" in page
    assert re.findall(r"<p>([^<]*\ufffd[^<]*)</p>", page) == ["\ufffd", "\ufffd", "\ufffdcba"]


def test_spaces_of_other_kinds_are_seen_in_tables():
    assert "⍽?" in captured(Table("", (Column("token", "token"),), [("\u00a0?",)]))


SIGNED = HeatMap("signed", np.linspace(-3, 3, 40).reshape(1, 40), ["r"], [str(i) for i in range(40)], signed=True)


@pytest.mark.parametrize(
    ("figure", "low", "high", "middle"),
    [(WIDE, "0", "1.000", ""), (SIGNED, "-3.000", "3.000", "0"), (TOKENS, "0", "4.0 bits", "")],
)
def test_colours_have_a_legend_with_numbers(figure, low, high, middle):
    @dataclass
    class One(View):
        def figures(self):
            return [figure]

    strip = re.search(
        r"(\S+) <i class=\"scale\" style=\"background:linear-gradient\((.*?)\"\>(.*?)</i> ([\w. ]+)", One().to_html()
    )
    assert strip is not None and (strip[1].split(">")[-1], strip[4].strip(), strip[3]) == (low, high, middle)
    assert strip[2].count("rgba(") == (2 if middle else 1)
    last = captured(figure, no_color=False, force_terminal=True, color_system="truecolor").splitlines()[-1]
    words = re.sub(r"\x1b\[[\d;]*m", "", last).split()
    assert words == [low, *high.split()] and last.count("48;2;") == 9
    plot = One().plot() if pytest.importorskip("matplotlib") else None
    assert len(plot.axes) == 2 and plot.axes[1].get_label() == "<colorbar>"


def test_without_colours_the_legend_shows_the_letters():
    assert captured(WIDE).splitlines()[-1] == "0  ·░▒▓█ 1.000"
    assert captured(SIGNED).splitlines()[-1] == "-3.000 =- ·░▒▓█ 3.000"


def test_a_plot_has_axes_for_every_figure(view):
    pytest.importorskip("matplotlib")
    plot = view.plot()
    titles = [axes.get_title(loc="left") for axes in plot.axes]
    assert [t for t in titles if t] == ["Next", "map", "wide", "text", "curves", "points"]
    image = next(axes for axes in plot.axes if axes.get_title(loc="left") == "map").images[0]
    np.testing.assert_array_equal(image.get_array(), MAP.values)


def test_plain_data_is_json_with_none_for_what_is_no_number(view):
    assert json.dumps(view.to_dict(), allow_nan=False) == '{"numbers": [1.0, null]}'


def test_a_column_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="kind 'shares'"):
        Column("p", "shares")
