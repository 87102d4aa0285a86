"""A hub dataset streams: listed by the hub's API, read by ranges, on a hub that is this very process."""

from __future__ import annotations

import json
import re
import sys

import pytest
from data_standins import ByteTokenizer, server

from glassformer.data import read_documents
from glassformer.data.hub import hub_documents
from glassformer.data.prepare import prepare
from glassformer.errors import DataError, MissingExtraError

parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("huggingface_hub")
import pyarrow  # noqa: E402

ROWS = [f"page {i} of the web " + "x" * (i % 13) for i in range(100)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`owner/pages`: two parquet files that train and one that tests. Yields what was asked: (path, range)."""
    files = {}
    for name, rows in (
        ("data/train-00000-of-00002.parquet", ROWS[:60]),
        ("data/train-00001-of-00002.parquet", ROWS[60:]),
        ("data/test-00000-of-00001.parquet", ["never"]),
    ):
        path = tmp_path / name.replace("/", "_")
        parquet.write_table(pyarrow.table({"id": list(range(len(rows))), "text": rows}), path, row_group_size=7)
        files[name] = path.read_bytes()
    asked: list[tuple[str, str]] = []

    def answer(path, headers):
        asked.append((path, headers.get("Range", headers.get("range", ""))))
        if path.startswith("/api/datasets/owner/pages/tree/main"):
            tree = [{"type": "file", "oid": "0", "path": name, "size": len(data)} for name, data in files.items()]
            tree.append({"type": "file", "oid": "0", "path": "README.md", "size": 3})
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        if path.startswith("/api/datasets/owner/pages/revision/main"):
            return 200, {"Content-Type": "application/json"}, b'{"id": "owner/pages"}'
        name = path.removeprefix("/datasets/owner/pages/resolve/main/").split("?")[0]
        if name in files:
            start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", asked[-1][1]).groups())
            return 206, {}, files[name][start : stop + 1]
        return 404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "not found"}'

    with server(answer) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield asked


def test_the_text_column_of_the_training_files_streams_in_order(hub):
    assert [piece.text for piece in read_documents("owner/pages")] == ROWS


def test_stopping_early_leaves_the_second_file_alone(hub):
    documents = hub_documents("owner/pages")
    assert [next(documents) for _ in range(5)] == ROWS[:5]
    documents.close()
    assert not any("train-00001" in path for path, _ in hub)


def test_a_dataset_is_prepared_with_a_mark_after_each_document(hub):
    store = prepare("owner/pages", ByteTokenizer())
    counts = {name: store.split(name) for name in ("train", "validation")}
    assert sum(view.documents for view in counts.values()) == 100
    assert sum(view.bytes for view in counts.values()) == sum(map(len, ROWS))
    assert counts["validation"].documents == pytest.approx(10, abs=1)
    assert len(prepare("owner/pages", ByteTokenizer(), max_tokens=50).split("train")) <= 50


def test_a_folder_inside_the_dataset_narrows_it(hub):
    assert [*hub_documents("owner/pages/data/test-00000")] == ["never"]


def test_what_is_wrong_is_reported_in_one_line(hub, monkeypatch):
    for source, field, message in [
        ("owner/pages", "body", r"data/train.* has no column 'body'.*known: id, text.*--text-field"),
        ("owner/pages", "id", "column 'id' holds int, not text"),
        ("owner/absent", "text", "the hub has no dataset of this name"),
        ("owner/pages/sample", "text", "no parquet files in this dataset"),
    ]:
        with pytest.raises(DataError, match=message) as shown:
            list(hub_documents(source, field))
        assert "\n" not in str(shown.value)

    def offline(*args, **options):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_tree", offline)  # the real client tries for half a minute
    with pytest.raises(DataError, match="the dataset hub cannot be reached"):
        list(hub_documents("owner/pages"))


def test_without_the_extra_the_pip_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[hub\]'"):
        list(hub_documents("owner/pages"))
