"""Byte order marks, UTF-16 and Windows line ends are read; whatever is wrong with a JSON text is one kind of error."""

from __future__ import annotations

import sys

import pytest

from glassformer import text_files
from glassformer.errors import DataError, TokenizerError
from glassformer.text_files import JsonError, decode, open_utf8, parse_json, read_json, utf8_bytes

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]  # Python writes the mark, in this machine's byte order
LINE = "prüfen, ☃ 🎉\r\n"
TEXT = LINE * 31


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_in_any_marked_encoding_is_the_same_text(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert decode((tmp_path / "a.txt").read_bytes()) == TEXT
    file, _ = open_utf8(tmp_path / "a.txt")
    with file:
        assert file.read().decode() == TEXT
    file, _ = open_utf8(tmp_path / "a.txt")
    with file:
        assert [file.readline() for _ in range(31)] == [LINE.encode()] * 31


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
def test_bytes_of_text_are_those_of_utf8_with_one_byte_a_line_end(tmp_path, monkeypatch, encoding, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    (tmp_path / "a.txt").write_bytes((TEXT + "\rx\r").encode(encoding))
    assert utf8_bytes(tmp_path / "a.txt") == len((TEXT.replace("\r\n", "\n") + "\rx\r").encode())


def test_both_byte_orders_are_read():
    big, little = b"\xfe\xff" + "ox".encode("utf-16-be"), b"\xff\xfe" + "ox".encode("utf-16-le")
    assert decode(big) == decode(little) == "ox"


def test_damaged_utf_16_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("abc".encode("utf-16") + b"\x00\xdc")
    file, _ = open_utf8(tmp_path / "a.txt")
    with file, pytest.raises(DataError, match=r"a\.txt: damaged UTF-16.*save it again as UTF-8"):
        file.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"a": }', "column 7"),
        ('{\n"a": }', "line 2, column 6"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("9" * 5_000, "too many digits"),
    ],
)
def test_what_is_wrong_with_json(text, reason):
    if "digits" in reason and not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("this Python reads integers of any length")
    with pytest.raises(JsonError, match=reason) as shown:
        parse_json(text)
    assert "\n" not in str(shown.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "missing"), (b"[1]", "not list"), (b"\xff", "not UTF-8"), (b"{", "not valid JSON"), (b" " * 99, "larger")],
)
def test_a_file_that_is_no_json_object_is_one_line_of_the_given_error(tmp_path, content, named):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenizerError, match=named) as error:
        read_json(path, TokenizerError, most=50)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
