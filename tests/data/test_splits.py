"""Nine tenths train and one tenth validates, wherever the documents end."""

from __future__ import annotations

import pytest

from glassformer.data.readers import Piece, open_source
from glassformer.data.splits import Plan, plan_split


def sides(plan: Plan, pieces: list[Piece]) -> dict[str, str]:
    out = {"train": "", "validation": ""}
    for part in plan.split(iter(pieces)):
        assert part.bytes == len(part.text.encode())
        out[part.split] += part.text
    return out


def test_the_lecture_cuts_at_nine_tenths_of_the_characters():
    plan = Plan("lecture", 0.1, 1, None)
    assert sides(plan, [Piece("abcdefghijklmno", True)]) == {"train": "abcdefghijklm", "validation": "no"}  # int(13.5)


def test_one_document_is_cut_at_the_nearest_line_end():
    text = "".join(f"{i:02d} line\n" for i in range(20))  # 160 bytes; 144 is where line 18 begins
    assert sides(Plan("lines", 0.1, 1, 160), [Piece(text, True)])["validation"] == "18 line\n19 line\n"
    assert sides(Plan("lines", 0.13, 1, 160), [Piece(text, True)])["validation"] == "17 line\n18 line\n19 line\n"


def test_the_cut_does_not_depend_on_the_pieces():
    text = "".join(f"{i:02d} line\n" for i in range(20))
    for size in (8, 16, 24, 40, 80):
        parts = [text[at : at + size] for at in range(0, 160, size)]
        pieces = [Piece(part, i == len(parts) - 1) for i, part in enumerate(parts)]
        assert sides(Plan("lines", 0.1, 1, 160), pieces)["validation"] == "18 line\n19 line\n"


def test_a_text_without_lines_is_cut_at_a_space_or_anywhere():
    words = " ".join(["word"] * 20)
    cut = sides(Plan("lines", 0.1, 1, len(words)), [Piece(words, True)])
    assert cut["train"].endswith(" ") and cut["train"] + cut["validation"] == words
    assert sides(Plan("lines", 0.1, 1, 10), [Piece("0123456789", True)]) == {"train": "012345678", "validation": "9"}


def test_of_ten_equal_documents_the_fifth_validates():
    pieces = [Piece(f"{i:02d}", True) for i in range(30)]
    chosen = [part.text for part in Plan("documents", 0.1, 30, None).split(iter(pieces)) if part.split == "validation"]
    assert chosen == ["04", "14", "24"]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3])
def test_whole_documents_come_near_the_fraction_and_later_text_moves_nothing(fraction):
    pieces = [Piece("x" * (1 + (i * 37) % 101), True) for i in range(400)]
    parts = list(Plan("documents", fraction, None, None).split(iter(pieces)))
    held = sum(part.bytes for part in parts if part.split == "validation")
    assert held / sum(part.bytes for part in parts) == pytest.approx(fraction, abs=0.01)
    prefix = list(Plan("documents", fraction, None, None).split(iter(pieces[:150])))
    assert parts[:150] == prefix


def test_a_fraction_of_zero_trains_on_everything():
    pieces = [Piece("a\n", True), Piece("b\n", True)]
    for rule in ("lines", "documents"):
        assert sides(Plan(rule, 0.0, 2, 4), pieces) == {"train": "a\nb\n", "validation": ""}


def test_a_cut_between_two_documents_makes_no_empty_document():
    parts = list(Plan("lines", 0.5, 2, 8).split(iter([Piece("one\n", True), Piece("two\n", True)])))
    assert [(part.split, part.text, part.last) for part in parts] == [
        ("train", "one\n", True),
        ("validation", "two\n", True),
    ]


def test_the_rule_follows_the_number_and_size_of_documents(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text("text\n" * 10)
    assert plan_split(open_source(tmp_path), 0.1).rule == "documents"
    (tmp_path / "giant.txt").write_text("text\n" * 10_000)  # one document larger than all of validation
    assert plan_split(open_source(tmp_path), 0.1).rule == "lines"
    assert plan_split(open_source(tmp_path / "00.txt"), 0.1) == Plan("lines", 0.1, 1, 50)
    lines = tmp_path / "many.jsonl"
    lines.write_text('{"text": "four"}\n' * 40)
    assert plan_split(open_source(lines), 0.1) == Plan("documents", 0.1, 40, 160)
