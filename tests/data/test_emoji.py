"""Emoji out of their packages: pictures from the sheet, words, and splits that tear no group."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest

from glassformer.data import emoji as emoji_data
from glassformer.data import images as image_data
from glassformer.data.emoji import Emoji, load_emoji, read_emoji
from glassformer.data.images import load_images
from glassformer.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
N = 7  # rows and columns of the sheet
HANDS = [f"1F4{number}" for number in range(10, 30)]


def entry(number: int, code: str, category: str, **more: Any) -> dict[str, Any]:
    place = {"sheet_x": number % N, "sheet_y": number // N, "unified": code}
    names = {"name": f"EMOJI {code}", "short_names": [code.lower()], "subcategory": "any"}
    return {**place, **names, "category": category, **more}


def entries() -> list[dict[str, Any]]:
    """20 hands, the first with two skin tones; 20 fruit; a man and a woman who run."""
    tones = {tone: entry(40 + i, f"{HANDS[0]}-{tone}", "") for i, tone in enumerate(("1F3FB", "1F3FF"))}
    hands = [entry(i, code, "hands") for i, code in enumerate(HANDS)]
    hands[0]["skin_variations"] = tones
    fruit = [entry(20 + i, f"1F5{i + 10}", "fruit") for i in range(20)]
    runners = [entry(42 + i, f"1F3C3-200D-{sign}-FE0F", "hands") for i, sign in enumerate(("2640", "2642"))]
    persons = [entry(44 + i, f"{code}-200D-1F692", "fruit") for i, code in enumerate(("1F468", "1F469", "1F9D1"))]
    return [*hands, *fruit, *runners, *persons]


def sheet() -> bytes:
    """Every cell of 34 x 34 in a colour of its own, half of it transparent, its border black."""
    pixels = np.zeros((N, 34, N, 34, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    for number in range(N * N):
        row, column = divmod(number, N)
        pixels[row, 1:-1, column, 1:-1] = number * 5, 10, 200, 255
        pixels[row, 17:-1, column, 1:-1, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels.reshape(N * 34, N * 34, 4)).save(file, "png")
    return file.getvalue()


def tgz(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archives(tmp_path, monkeypatch):
    pictures = {"emoji.json": json.dumps(entries()).encode(), "img/google/sheets/32.png": sheet()}
    words = {"dist/emoji-en-US.json": json.dumps({chr(0x1F410): ["hello", "wave"]}).encode()}
    found = tgz(tmp_path / "pictures.tgz", pictures), tgz(tmp_path / "words.tgz", words)
    monkeypatch.setattr(emoji_data, "fetch", lambda source, quiet=False: found[source is emoji_data.KEYWORDS])
    monkeypatch.setattr(image_data, "fetch", lambda source, quiet=False: found[0])
    return found


def test_an_emoji_has_its_picture_and_its_words(archives):
    first, light, dark, *others = read_emoji(*archives)
    assert len(others) + 3 == 47 and isinstance(first, Emoji)
    assert first.pixels.shape == (32, 32, 3) and first.pixels.dtype == np.uint8
    assert first.pixels[0, 0].tolist() == [0, 10, 200] and first.pixels[31, 31].tolist() == [255, 255, 255]
    assert light.pixels[0, 0].tolist() == [200, 10, 200] and others[0].pixels[0, 0].tolist() == [5, 10, 200]
    assert (first.skin_tones, light.skin_tones, dark.skin_tones) == ((), ("light skin tone",), ("dark skin tone",))
    assert first.name == "emoji 1f410" and first.short_names == ("1f410",) and first.text == chr(0x1F410)
    assert first.keywords == dark.keywords == ("hello", "wave") and not others[0].keywords
    assert dark.text == chr(0x1F410) + chr(0x1F3FF)


def test_variants_of_skin_tone_and_gender_are_one_group(archives):
    groups = [e.group for e in read_emoji(archives[0])]
    assert len(set(groups[:3])) == 1 and groups[3] != groups[0]
    assert groups[-5] == groups[-4] == "1F3C3" and set(groups[-3:]) == {"1F9D1-200D-1F692"}


@pytest.mark.parametrize("fold", [0, 3])
def test_splits_hold_their_part_of_each_category_and_tear_no_group(archives, fold):
    splits = load_emoji(fold=fold)
    groups = {split: {e.group for e in rows} for split, rows in splits.items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 42
    for rows, least in ((splits["test"], 4), (splits["validation"], 2)):
        counts = [sum(e.category == name for e in rows) for name in ("hands", "fruit")]
        assert all(least <= count <= least + 3 for count in counts), counts
    images, known = load_images("emoji", fold=fold)
    assert known is not None and known.size == (32, 32)
    for split, rows in splits.items():
        assert [(i.label, i.image.tolist()) for i in images[split]] == [(e.category, e.pixels.tolist()) for e in rows]
    tested = [{e.group for e in load_emoji(fold=fold)["test"]} for fold in range(5)]
    assert len(set().union(*tested)) == 42 and len(tested[1] & tested[2]) <= 2  # a group of each category at the seam


@pytest.mark.parametrize("content", [b"[{}]", b"{", b"[]", b'{"a": 1}', b'[{"sheet_x": "a"}]'])
def test_other_content_than_expected_is_one_line(tmp_path, content):
    archive = tgz(tmp_path / "p.tgz", {"emoji.json": content, "img/google/sheets/32.png": sheet()})
    with pytest.raises(DataError) as error:
        read_emoji(archive)
    assert str(archive) in str(error.value) and "\n" not in str(error.value)
