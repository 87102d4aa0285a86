"""Stop strings: the text ends before the first one that is complete, wherever the tokens cut it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from glassformer.generation import StopStrings


def pushed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopStrings(stops)
    text = "".join([stop.push(piece) for piece in pieces] + [stop.finish()])
    return text, stop.found


def by_looking_at_the_whole(text: str, stops: list[str]) -> tuple[str, bool]:
    """The readable twin: read on until the text ends with a stop string; the longest, if with several."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if hits:
            return text[: end - max(map(len, hits))], True
    return text, False


SHORT = st.text(alphabet="ab", max_size=3)


@given(pieces=st.lists(SHORT, max_size=8), stops=st.lists(st.text(alphabet="ab", max_size=4), max_size=3))
@example(pieces=["abcd"], stops=["abcd", "bc"])  # bc is complete first
@example(pieces=["aab"], stops=["b", "ab", "aab"])  # all at once: the longest
@example(pieces=["aa", "ab"], stops=["aab"])  # a false start inside
def test_where_the_pieces_are_cut_does_not_matter(pieces: list[str], stops: list[str]):
    whole = by_looking_at_the_whole("".join(pieces), stops)
    assert pushed(pieces, stops) == whole
    assert pushed(["".join(pieces)], stops) == whole
    assert pushed(list("".join(pieces)), stops) == whole


def test_text_is_shown_as_soon_as_no_stop_string_can_begin_in_it():
    stop = StopStrings(["\n\nUser:", "END"])
    shown = [stop.push(piece) for piece in ("Well", "\n", "\nUs", "ury", " E", "NT", "\n\nUser", ":", "x")]
    assert shown == ["Well", "", "", "\n\nUsury", " ", "ENT", "", "", ""]
    assert stop.found and stop.finish() == ""


def test_what_was_held_back_comes_out_at_the_end():
    stop = StopStrings(["END"])
    assert stop.push("the EN") == "the " and stop.finish() == "EN" and not stop.found


def test_an_empty_stop_string_stops_nothing():
    assert pushed(["a", "b"], [""]) == ("ab", False)
