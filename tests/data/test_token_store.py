"""What is written is read back, across shards, and a damaged store is never taken for a whole one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_standins import ByteTokenizer

from glassformer.data import TokenStore, TokenStoreWriter
from glassformer.errors import DataError, GlassformerError


@pytest.fixture
def store(tmp_path):
    """13 + 2 tokens in shards of 5, written in stretches of odd sizes."""
    with TokenStoreWriter(tmp_path / "store", ByteTokenizer(), shard_tokens=5, source="a test") as writer:
        writer.append("train", np.arange(7, dtype=np.uint16), bytes=7, end_of_document=False)
        writer.append("validation", np.array([70, 71], dtype=np.uint16), bytes=3, end_of_document=True)
        writer.append("train", np.arange(7, 9, dtype=np.uint16), bytes=2, end_of_document=True)
        writer.append("train", np.arange(9, 13, dtype=np.uint16), bytes=5, end_of_document=True)
    return TokenStore.open(tmp_path / "store", verify=True)


def test_counts_and_document_starts(store):
    train, validation = store.split("train"), store.split("validation")
    assert (len(train), train.bytes, train.documents, train.document_starts.tolist()) == (13, 14, 2, [0, 9])
    assert (len(validation), validation.bytes, validation.documents) == (2, 3, 1)
    assert sorted(path.name for path in store.folder.glob("train-0*")) == [f"train-{i:05d}.bin" for i in range(3)]
    assert (store.folder / "train-00000.bin").read_bytes() == bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0])  # little-endian


def test_reading_crosses_shards(store):
    view = store.split("train")
    for start in range(13):
        for length in range(14 - start):
            ids = view.read(start, length)
            assert ids.dtype == np.int64 and ids.tolist() == list(range(start, start + length))
    assert view.gather(np.array([0, 3, 9]), 4).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [9, 10, 11, 12]]
    for start, length in [(-1, 2), (12, 2), (0, 14)]:
        with pytest.raises(IndexError):
            view.read(start, length)


def test_large_vocabularies_take_four_bytes(tmp_path):
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = (1 << 16) + 1
    with TokenStoreWriter(tmp_path / "s", tokenizer) as writer:
        writer.append("train", np.array([1 << 16, 3], dtype=np.uint32), bytes=2, end_of_document=True)
    assert TokenStore.open(tmp_path / "s").split("train").read(0, 2).tolist() == [1 << 16, 3]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), TokenStoreWriter(tmp_path / "store", ByteTokenizer()) as writer:
        writer.append("train", np.arange(9, dtype=np.uint16), bytes=9, end_of_document=True)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    import errno

    with pytest.raises(GlassformerError, match="no space left"), TokenStoreWriter(tmp_path / "s", ByteTokenizer()):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def damage_truncate(folder):
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])


def damage_flip(folder):
    path = folder / "train-00001.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def damage_meta(change):
    def damage(folder):
        meta = json.loads((folder / "meta.json").read_text())
        change(meta)
        (folder / "meta.json").write_text(json.dumps(meta))

    return damage


DAMAGES = {
    "truncated shard": (damage_truncate, r"train-00001\.bin: truncated \(8 bytes of 10\); run prepare again"),
    "missing shard": (lambda f: (f / "train-00002.bin").unlink(), r"train-00002\.bin: truncated \(no bytes of 6\)"),
    "missing starts": (lambda f: (f / "train-documents.bin").unlink(), r"train-documents\.bin: truncated"),
    "flipped bit": (damage_flip, r"train-00001\.bin: damaged \(its SHA-256"),
    "half a meta": (lambda f: (f / "meta.json").write_text('{"dtype": '), r"meta\.json: damaged .*run prepare again"),
    "no meta": (lambda f: (f / "meta.json").unlink(), "no meta.json, so not a token store"),
    "foreign meta": (lambda f: (f / "meta.json").write_text('{"a": 1}'), "not a token store's"),
    "list as meta": (lambda f: (f / "meta.json").write_text("[]"), "not a token store's"),
    "newer format": (damage_meta(lambda m: m.update(glassformer_token_store=9)), "format 9, and this program reads 1"),
    "no dtype": (damage_meta(lambda m: m.pop("dtype")), r"meta\.json: damaged"),
    "odd dtype": (damage_meta(lambda m: m.update(dtype="object")), r"meta\.json: damaged"),
    "splits gone": (damage_meta(lambda m: m.update(splits=3)), r"meta\.json: damaged"),
    "path outside": (
        damage_meta(lambda m: m["splits"]["train"]["shards"][0].update(file="../x")),
        "damaged .the file name '../x'",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_reported_in_one_line(store, case):
    damage, message = DAMAGES[case]
    damage(store.folder)
    with pytest.raises(DataError, match=message) as shown:
        TokenStore.open(store.folder, verify=True)
    assert "\n" not in str(shown.value)


def test_an_unknown_split_is_refused(store):
    with pytest.raises(DataError, match="no split 'valid'; did you mean validation"):
        store.split("valid")
