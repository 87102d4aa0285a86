"""Sounds with what is said in them: a set by name, or a file of your own.

    spoken-digits  2,512 sounds of one to six digits, 16 voices                  synthesised by espeak-ng
    prompts        553 telephone prompts of one voice, 25 minutes, 8 kHz     Debian's asterisk-core-sounds-en(-wav)
    FILE.jsonl     {"file": "a.wav", "text": "Good morning."}                paths are relative to the file's folder
                   a field `split` (train, validation, test) is optional; `file_name`, `transcription` are read too

Without splits a twentieth of the lines validates and a twentieth tests, chosen by the hash of the path.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from glassformer.archives import read_members
from glassformer.data.example_splits import HELD_OUT, SPLITS, split_by_group
from glassformer.data.json_lines import JSON_SUFFIXES, json_rows
from glassformer.data.spoken_digits import load_spoken_digits
from glassformer.errors import DataError, did_you_mean, plural
from glassformer.fetch import PackageSource, fetch

FIELDS = (("file", "file_name", "audio"), ("text", "transcription"))
"""Names of a line's two fields; the second ones are those of Hugging Face's folders of sound."""


class Recording(NamedTuple):
    """A sound, as a path or the bytes of a file, and what is said in it."""

    sound: Any
    text: str
    key: str  # names it, and changes when the sound does


@dataclass(frozen=True)
class RecordingSet:
    """A named set of sounds."""

    name: str
    about: str
    license: str
    sources: tuple[PackageSource, ...]
    """what is fetched; () where the sounds are synthesised"""
    read: Callable[[], dict[str, list[Recording]]]
    """the sounds by split"""
    count: int

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return " and ".join(source.origin for source in self.sources) or "synthesised by espeak-ng (the extra speech)"


def load_recordings(name_or_path: str) -> dict[str, list[Recording]]:
    """The sounds of a set or a file by split.

    Raises:
        DataError: there is no such set or file; a line lacks a field, or names no file; a split would be empty.
    """
    if (known := RECORDING_SETS.get(name_or_path)) is not None:
        return known.read()
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() not in JSON_SUFFIXES or not path.is_file():
        near = did_you_mean(name_or_path, RECORDING_SETS)
        raise DataError(f'{name_or_path}: no set of recordings, and no .jsonl file of {{"file", "text"}} lines; {near}')
    clips, named = [], dict[str, list[Recording]]()
    for where, _, row in json_rows(path):
        clip, split = _line(where, row, path.parent), row.get("split")
        if split is None:
            clips.append(clip)
        elif split in SPLITS:
            named.setdefault(split, []).append(clip)
        else:
            raise DataError(f"{where}: split {split!r} is unknown; {did_you_mean(str(split), SPLITS)}")
    if clips and named:
        raise DataError(f"{path}: {plural(len(clips), 'line')} without a split, and others have one; give all one")
    found = named or split_by_group([(clip, clip.key) for clip in clips], validation=HELD_OUT, test=HELD_OUT)
    if missing := [split for split in ("train", "validation") if not found.get(split)]:
        raise DataError(f"{path}: no line has split {missing[0]!r}; give one at least")
    return found


def _line(where: str, row: dict[str, Any], folder: Path) -> Recording:
    values = []
    for names in FIELDS:
        value = next((row[name] for name in names if name in row), None)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: the field {names[0]!r} is missing or empty; it has: {', '.join(row) or 'none'}")
        values.append(value)
    file = folder / values[0]
    try:
        stat = file.stat()
    except OSError:
        raise DataError(f"{where}: {file}: there is no such file; check the path") from None
    return Recording(str(file), values[1].strip(), f"{values[0]} {stat.st_size} {stat.st_mtime_ns}")


# ---- the telephone prompts ----

_LICENSE = "CC-BY-SA-3.0"
_SOUNDS = PackageSource("asterisk-core-sounds-en-wav", None, None, _LICENSE, client="apt")
_TEXTS = PackageSource("asterisk-core-sounds-en", None, None, _LICENSE, client="apt")


def read_prompts() -> list[Recording]:
    """Each recording that has words, by name; those of tones and music have a text in brackets and are left out."""
    texts: dict[str, str] = {}
    for _, content in read_members(fetch(_TEXTS), lambda name: name.endswith("core-sounds-en.txt.gz")):
        for line in gzip.decompress(content).decode("utf-8", "replace").splitlines():
            name, colon, text = line.partition(":")
            if colon and not line.startswith(";") and not text.strip().startswith(("[", "(")):
                texts[name.strip()] = text.strip()
    found = []
    for member, content in read_members(fetch(_SOUNDS), lambda name: name.endswith(".wav")):
        name = member.partition("en_US_f_Allison/")[2].removesuffix(".wav")
        if texts.get(name):
            found.append(Recording(content, texts[name], name))
    return sorted(found, key=lambda clip: clip.key)


def _spoken_digits() -> dict[str, list[Recording]]:
    return {
        split: [Recording(each.samples_N.astype("float32") / 32768, each.text, each.key) for each in rows]
        for split, rows in load_spoken_digits().items()
    }


RECORDING_SETS: dict[str, RecordingSet] = {
    "prompts": RecordingSet(
        "prompts",
        "telephone prompts of one voice with their words; half of them test",
        _LICENSE,
        (_SOUNDS, _TEXTS),
        lambda: split_by_group([(clip, clip.key) for clip in read_prompts()], validation=0.05, test=0.5),
        553,
    ),
    "spoken-digits": RecordingSet(
        "spoken-digits",
        "one to six digits, spoken by espeak-ng; the four voices of the test split are in no other",
        "sounds made by a GPL-3.0-or-later program; the digits are in the public domain",
        (),
        _spoken_digits,
        2_512,
    ),
}
