"""Sounds with their words: files of lines, splits, and what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glassformer.data.recordings import RECORDING_SETS, load_recordings
from glassformer.errors import DataError

soundfile = pytest.importorskip("soundfile", reason="needs the package soundfile")


def write(folder, rows):
    for row in rows:
        if name := row.get("file"):
            soundfile.write(folder / name, np.zeros(800), 8000)
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_lines_become_splits_the_same_each_time(tmp_path):
    rows = [{"file": f"{n}.wav", "text": f" number {n} "} for n in range(40)]
    first, again = load_recordings(write(tmp_path, rows)), load_recordings(str(tmp_path / "lines.jsonl"))
    assert first == again and {split: len(clips) for split, clips in first.items()} == {
        "train": 36, "validation": 2, "test": 2
    }  # fmt: skip
    clips = [clip for split in first.values() for clip in split]
    assert {clip.text for clip in clips} == {f"number {n}" for n in range(40)}
    assert all(clip.sound == str(tmp_path / f"{clip.text.split()[1]}.wav") for clip in clips)


def test_own_splits_and_the_names_of_hugging_face(tmp_path):
    rows = [{"file": f"{n}.wav", "text": "a", "split": split} for n, split in enumerate(("train", "validation"))]
    path = write(tmp_path, rows)
    with open(path, "a") as file:
        file.write(json.dumps({"file_name": "0.wav", "transcription": "b", "split": "test"}) + "\n")
    found = load_recordings(path)
    assert {split: [clip.text for clip in clips] for split, clips in found.items()} == {
        "train": ["a"], "validation": ["a"], "test": ["b"]
    }  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), [
    ({"text": "a"}, "'file' is missing"), ({"file": "a.wav"}, "'text' is missing"),
    ({"file": "a.wav", "text": " "}, "'text' is missing or empty"), ({"file": "a.wav", "text": 3}, "'text'"),
    ({"file_name": "none.wav", "text": "a"}, "there is no such file"),
    ({"file": "a.wav", "text": "a", "split": "dev"}, "split 'dev' is unknown"),
    ({"file": "a.wav", "text": "a", "split": "train"}, "no line has split 'validation'"),
])  # fmt: skip
def test_lines_that_cannot_be_read(tmp_path, row, reason):
    with pytest.raises(DataError, match=reason):
        load_recordings(write(tmp_path, [row]))


@pytest.mark.parametrize("name", ["promts", "nothing.jsonl", "."])
def test_no_such_set(name):
    with pytest.raises(DataError, match="no set of recordings"):
        load_recordings(name)


def test_every_set_says_what_it_is():
    for name, found in RECORDING_SETS.items():
        assert found.name == name and found.origin and found.license and found.count > 0
