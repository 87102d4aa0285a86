"""Text comes in from many places, in pieces, and what is wrong with it is reported in one line."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import sys

import pytest

from glassformer.data import text_pieces as pieces
from glassformer.data.examples import load_examples
from glassformer.data.readers import LeftOutWarning, Piece, open_source, read_documents
from glassformer.errors import DataError, GlassformerError, UsageError


def texts(source) -> list[str]:
    """The documents of a source, pieces put together."""
    out, inside = [], False
    for piece in read_documents(source):
        out = [*out[:-1], out[-1] + piece.text] if inside else [*out, piece.text]
        inside = not piece.last
    assert not inside, "the last document has no end"
    return out


def test_jsonl_holds_one_document_a_line_and_a_folder_is_read_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.jsonl").write_text('{"text": "zwei"}\n\n{"text": ""}\n{"text": "zw\\u00f6lf"}\n')
    (tmp_path / "a.md").write_text("# one\n")
    (tmp_path / "c.txt").write_text("drei")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / ".hidden.txt").write_text("no")
    assert texts(tmp_path) == ["# one\n", "zwei", "zwölf", "drei"]
    assert list(read_documents(tmp_path / "a.md")) == [Piece("# one\n", True)]


def test_what_a_folder_holds_besides_is_named(tmp_path):
    (tmp_path / "A.TXT").write_text("one")
    (tmp_path / "b.NDJSON").write_text('{"text": "two"}\n')
    (tmp_path / "picture.png").write_bytes(b"\0\1\2")
    (tmp_path / "c.txt.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "d.csv").write_text("a,b")
    (tmp_path / "e.csv").write_text("a,b")
    (tmp_path / "Makefile").write_text("all:")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "elsewhere").symlink_to(tmp_path.parent)
    with pytest.warns(LeftOutWarning) as shown:
        assert texts(tmp_path) == ["one", "two"]
    message = str(shown[0].message)
    assert message.startswith(f"{tmp_path}: 7 files left out (.csv: 2, ")
    for part in ("linked folder: 1", "without an ending: 1", ".png: 1", ".gz: 1", ".txt: 1", "only .txt, .md, .jsonl"):
        assert part in message
    with pytest.raises(DataError, match=r"pipe\.txt: no file but a pipe .*give - and pipe it in"):
        open_source(tmp_path / "pipe.txt")


def test_each_line_of_a_smi_file_is_a_molecule_without_its_name(tmp_path):
    (tmp_path / "drugs.smi").write_text("CC(=O)O acetic acid\r\n\nCCO\tethanol\n  c1ccccc1\n")
    source = open_source(tmp_path / "drugs.smi")
    assert list(source.pieces()) == [Piece(smiles, True) for smiles in ("CC(=O)O", "CCO", "c1ccccc1")]
    assert list(source.document_sizes()) == [7, 3, 8] and texts(tmp_path) == ["CC(=O)O", "CCO", "c1ccccc1"]
    (tmp_path / "drugs.smi").write_text("C" * 70_000)
    with pytest.raises(DataError, match=r"drugs\.smi:1: longer than 65,536 bytes"):
        texts(tmp_path)


ROWS = [{"text": "eins ☃", "score": math.nan}, {"text": "zwei\nzeilen", "id": 2}, {"text": ""}]
LINES, ARRAY = "".join(f"{json.dumps(row)}\r\n" for row in ROWS), json.dumps(ROWS, indent=2, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", LINES), ("a.JSONL", LINES), ("a.ndjson", LINES), ("a.json", LINES), ("a.json", ARRAY),
     ("A.JSON", ARRAY), ("-", LINES), ("-", ARRAY)],
)  # fmt: skip
def test_rows_of_json_by_any_name_and_in_any_marked_encoding(tmp_path, monkeypatch, name, content, encoding):
    data = content.encode(encoding)
    if name == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    else:
        (tmp_path / name).write_bytes(data)
        name = str(tmp_path / name)
    source = open_source(name)
    assert [piece.text for piece in source.pieces()] == ["eins ☃", "zwei\nzeilen"]
    assert list(source.document_sizes()) == [8, 11]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_in_any_marked_encoding_is_split_alike(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    lines = [f"zeile {i} ☃" for i in range(100)]
    (tmp_path / "a.txt").write_bytes("\r\n".join(lines).encode(encoding))
    assert texts(tmp_path / "a.txt") == ["\n".join(lines)]
    assert list(open_source(tmp_path / "a.txt").document_sizes()) == [len("\n".join(lines).encode())]


def test_a_store_of_the_same_bytes_read_otherwise_is_not_taken(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "a.json").write_text('{"text": "x"}\n')
    (tmp_path / "a.txt").write_text('{"text": "x"}\n')
    identities = {open_source(tmp_path / name).identity() for name in ("a.jsonl", "a.json", "a.txt")}
    assert len(identities) == 3


OTHER_FORMS = [
    ({"messages": [{"role": "user", "content": "x"}]}, "a chat.*task.kind=sft"),
    ({"conversations": []}, "a chat.*task.kind=sft"),
    ({"prompt": "x", "chosen": "y", "rejected": "z"}, "a preference.*task.kind=dpo or task.kind=reward"),
    ({"prompt": "x", "completion": "y"}, "task.kind=sft"),
    ({"instruction": "x", "input": "", "output": "y"}, "task.kind=sft"),
    ({"prompt": "x", "answer": 7}, "task.kind=grpo"),
]


@pytest.mark.parametrize(("row", "advice"), OTHER_FORMS, ids=[" ".join(row) for row, _ in OTHER_FORMS])
def test_rows_for_other_trainings_are_named_with_what_to_do(tmp_path, row, advice):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    for read in (texts,) if "chosen" in row else (texts, load_examples):  # pairs are examples of task.kind=reward
        with pytest.raises(DataError, match=rf"a\.jsonl:1: '.*instead of 'text': .*{advice}"):
            read(tmp_path / "a.jsonl")


def test_a_large_file_comes_in_pieces_that_end_where_no_token_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    text = "".join(f"line {i} ü\n" + ("\n  " if i % 3 == 0 else "") for i in range(60))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = list(read_documents(tmp_path / "a.txt"))
    assert "".join(piece.text for piece in found) == text
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    for before, after in itertools.pairwise(found):
        assert before.text[-1] == "\n" and not before.text[-2].isspace() and not after.text[0].isspace()
    (tmp_path / "a.txt").write_text("€" * 1000, encoding="utf-8")  # no lines: cut between characters of three bytes
    found = list(read_documents(tmp_path / "a.txt"))
    assert len(found) > 10 and "".join(piece.text for piece in found) == "€" * 1000


def test_standard_input_can_be_read_twice(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"piped\ntext\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    source = open_source("-")
    assert [p.text for p in source.pieces()] == [p.text for p in source.pieces()] == ["piped\ntext\n"]


def test_standard_input_that_is_a_keyboard_is_refused(monkeypatch):
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Keyboard())
    with pytest.raises(UsageError, match="pipe a text"):
        open_source("-")


BAD = {
    "empty": ("a.txt", b"", "a.txt: empty"),
    "binary": ("a.txt", b"abc\0def", r"a.txt: binary \(a NUL byte at byte 3\)"),
    "latin-1": ("a.txt", "abcä\n".encode("latin-1"), r"a.txt: not UTF-8 at byte 3 \(0xe4\).*iconv"),
    "damaged utf-16": ("a.txt", "abc".encode("utf-16")[:-1], "a.txt: damaged UTF-16-LE .*save it again as UTF-8"),
    "utf-16 without a mark": ("a.txt", "abc".encode("utf-16-le"), "a.txt: .*UTF-16 without a byte order mark"),
    "compressed": ("a.txt", b"\x1f\x8b\x08\0", "a.txt: a compressed file; unpack"),
    "bad json": ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a.jsonl:2: not JSON"),
    "nested": ("a.jsonl", b'{"text": ' + b"[" * 100_000, r"a.jsonl:1: not JSON \(nested too deeply\)"),
    "digits": ("a.json", b'[{"text": "x", "id": ' + b"9" * 5000 + b"}]", r"a.json: not JSON \(a number of too many"),
    "an object": ("a.json", b'{\n "text": "x"\n}', r"a.json:1: not JSON .* a .json file holds an array of objects"),
    "an entry": ("a.json", b'[{"text": "x"}, "y"]', r"a.json, entry 2: a JSON str, not an object"),
    "not an object": ("a.jsonl", b"[1]\n", r"a.jsonl:1: a JSON list, not an object"),
    "other fields": (
        "a.jsonl",
        b'{"body": "x", "id": 1}\n',
        r"a.jsonl:1: the field 'text' is missing; it has: body, id; name another with data.text_field=NAME",
    ),
    "not text": ("a.jsonl", b'{"text": 3}\n', r"a.jsonl:1: the field 'text' is not text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_reported_in_one_line(tmp_path, case):
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as shown:
        texts(tmp_path / name)
    assert "\n" not in str(shown.value)


def test_the_byte_offset_counts_from_the_beginning_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    (tmp_path / "a.txt").write_bytes(b"good line\n" * 50 + b"bad \xff line\n")
    with pytest.raises(DataError, match="at byte 504"):
        texts(tmp_path / "a.txt")


def test_a_missing_file_gets_the_nearest_name(tmp_path):
    (tmp_path / "poems.txt").write_text("x")
    with pytest.raises(DataError, match=r"no such file, folder or corpus; did you mean .*poems\.txt"):
        open_source(str(tmp_path / "poem.txt"))
    with pytest.raises(DataError, match="did you mean tinyshakespeare"):
        open_source("tinyshakespear")


def test_a_folder_without_texts_or_without_permission(tmp_path):
    with pytest.raises(DataError, match=r"no \.txt, \.md, \.jsonl, \.ndjson, \.json or \.smi file"):
        open_source(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "a.txt").write_text("x")
    closed.chmod(0)
    try:
        next(closed.iterdir())
        pytest.skip("this user may read everything")
    except PermissionError:
        with pytest.raises(GlassformerError, match="closed: cannot be read"):
            open_source(tmp_path)
    finally:
        closed.chmod(0o700)


def test_owner_and_name_mean_a_hub_dataset_unless_such_a_file_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_source("owner/name").hub == "owner/name"
    (tmp_path / "owner").mkdir()
    with pytest.raises(DataError, match="no such file"):
        open_source("owner/name")
