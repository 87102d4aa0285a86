"""Images with captions: scenes of digits and what is held out, folders, palettes, captions as words; a run draws what a
caption asks for, and a wrong caption costs bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import toy_model

from glassformer import recipes
from glassformer.data import captions as captions_module
from glassformer.data.captions import CAPTIONED_SETS, load_captioned
from glassformer.data.digit_scenes import (
    CANVAS,
    COLOURS,
    PLACES,
    SIZES,
    Scene,
    compose,
    draw_scene,
    scenes,
    unseen,
)
from glassformer.data.images import LabelledImage
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.generation import Sampling
from glassformer.generation.guidance import sample_guided
from glassformer.generation.image_tokens import draw_images
from glassformer.processors import patch_codes
from glassformer.processors.image_tokens import ImageTokenProcessor, grid, palette_of, words_in
from glassformer.processors.patch_codes import PatchCodes, codes_of

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)
P = ImageTokenProcessor.make(
    size=(2, 3), labels=("red left",), palette=(BLACK, BLUE, RED), words=("blue", "left", "red", "right"), n_words=3
)
IN_PATCHES = ImageTokenProcessor.make(
    size=(4, 6),
    labels=("red left",),
    palette=(BLACK, BLUE, RED),
    words=("blue", "left", "red", "right"),
    n_words=3,
    patch_size=2,
    codes=((0, 0, 0, 0), (0, 2, 0, 2), (1, 1, 1, 1), (2, 2, 2, 2)),
    drops_captions=True,
)
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=32", "task.colours=3", "training.batch_size=16",
         "training.warmup_steps=2", "training.eval_batches=0", "training.sample_every=0"]  # fmt: skip
SIDES = {"left": slice(0, 2), "right": slice(2, 4)}


def digits(n: int) -> list[LabelledImage]:
    """A bar for each class, of the class's own thickness, with noise around it."""
    random, found = np.random.default_rng(n), []
    for number in range(n):
        pixels = random.integers(0, 40, (28, 28), dtype=np.uint8)
        pixels[6:22, 8 : 12 + number % 10] = 255
        found.append(LabelledImage(pixels, str(number % 10), str(number)))
    return found


# ---- scenes ----


def test_scenes_are_made_alike_each_time_and_held_out_ones_are_in_no_training_image():
    counts = {"train": 400, "validation": 30, "test": 60}
    parts = {split: digits(20) for split in counts}
    made, again = (compose(parts, counts) for _ in range(2))
    assert [len(made[split]) for split in counts] == [400, 30, 60]
    for a, b in zip(made["train"], again["train"], strict=True):
        assert a.label == b.label and np.array_equal(a.image, b.image)
    held_out = {(s.digit, s.colour, s.size, s.place) for s in scenes() if unseen(s)}
    assert 0.2 < len(held_out) / len(scenes()) < 0.35
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for split in ("train", "validation", "test"):
        for image in made[split]:
            words = image.label.replace(",", "").replace(":", "")
            digit = next(i for i, name in enumerate(names) if name in words.split())
            colour, size, place = (next((w for w in known if w in words), "") for known in (COLOURS, SIZES, PLACES))
            if split == "train" and not (colour and size and place):
                continue
            assert ((digit, colour, size, place) in held_out) == (split == "test"), image.label


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_a_digit_stands_where_and_how_it_should(place, size):
    image = draw_scene(digits(10)[3].image, Scene(3, "blue", size, place), (0, 0))
    rows, columns = np.nonzero(image.any(axis=2))
    assert image.shape == (CANVAS, CANVAS, 3) and rows.max() - rows.min() + 1 == SIZES[size]
    assert {tuple(p) for p in image.reshape(-1, 3).tolist()} <= {
        tuple(np.rint(np.array(COLOURS["blue"]) * level / 3).astype(int).tolist()) for level in range(4)
    }
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    for found, share in zip(middle, PLACES[place], strict=True):
        assert (found < 6, found > 9) == (share == 0, share == 1)


# ---- folders ----


def write_folder(place, rows, name="metadata.jsonl"):
    place.mkdir(parents=True, exist_ok=True)
    for number, (_, pixels) in enumerate(rows):
        Image.fromarray(pixels).save(place / f"{number}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": caption}) for i, (caption, _) in enumerate(rows)]
    (place / name).write_text("\n".join(lines))


def half(colour: str, side: str) -> np.ndarray:
    """4 x 4 pixels, one half in a colour."""
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:, SIDES[side]] = {"red": RED, "blue": BLUE}[colour]
    return pixels


def test_a_folder_in_the_form_of_hugging_face(tmp_path):
    rows = [(f"picture {i}", half("red", "left")) for i in range(60)]
    write_folder(tmp_path / "one", rows)
    images, known = load_captioned(str(tmp_path / "one"))
    assert known is None and sum(map(len, images.values())) == 60 and min(map(len, images.values())) >= 1
    for split in ("train", "test"):
        write_folder(tmp_path / "two" / split, rows[:20])
    images, _ = load_captioned(str(tmp_path / "two"))
    assert len(images["test"]) == 20 and len(images["train"]) + len(images["validation"]) == 20
    assert images["train"][0].label.startswith("picture ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "0.png"}', ["metadata.jsonl:1", "text"]),
        ('{"file_name": "0.png", "text": " "}', ["metadata.jsonl:1", "text"]),
        ('{"file_name": "9.png", "text": "a"}', ["metadata.jsonl:1", "9.png"]),
        ('{"file_name": "../0.png", "text": "a"}', ["metadata.jsonl:1", "../0.png"]),
        ("[1]", ["metadata.jsonl:1", "list"]),
        ("{", ["metadata.jsonl:1", "JSON"]),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, words):
    write_folder(tmp_path / "here", [("a", half("red", "left"))])
    Image.fromarray(half("red", "left")).save(tmp_path / "0.png")
    (tmp_path / "here" / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError) as error:
        load_captioned(str(tmp_path / "here"))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_no_such_folder_or_set(tmp_path):
    with pytest.raises(DataError, match="digit-scenes"):
        load_captioned("digit-scene")
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        load_captioned(str(tmp_path))


# ---- palettes and captions ----


def test_a_palette_is_exact_where_there_are_few_colours_and_near_where_there_are_many():
    few = palette_of([half("red", "left"), half("blue", "left")], (4, 4), 8)
    assert few == (BLACK, BLUE, RED)  # from dark to light
    random = np.random.default_rng(0)
    middles = np.array([[20, 20, 20], [200, 30, 40], [60, 220, 90], [240, 240, 200]])
    image = (middles[random.integers(0, 4, (24, 24))] + random.integers(-8, 9, (24, 24, 3))).astype(np.uint8)
    found = np.array(palette_of([image], (24, 24), 4))
    assert np.abs(found[:, None] - middles[None]).max(axis=2).min(axis=1).max() <= 8  # each is one of the four


def test_captions_and_colours_are_ids_and_come_back():
    image = np.array([[BLACK, RED, (250, 10, 0)], [BLUE, (0, 9, 200), (3, 0, 0)]], dtype=np.uint8)
    ids = P.encode(image, "Red, LEFT!")
    assert P.tokenizer.decode(ids.tolist()) == "word: word:red word:left 00 02 02 01 01 00"
    again = np.asarray(P.decode(ids))
    assert again.tolist() == [[[*BLACK], [*RED], [*RED]], [[*BLUE], [*BLUE], [*BLACK]]]
    assert P.condition("red left") == P.condition("Red - left.") != P.condition("left red")
    assert words_in("It's a T-shirt, No 7!") == ["it's", "a", "t-shirt", "no", "7"]
    for caption, words in (("green left", "'green'"), ("", "1 to 3"), ("red left red left", "4 words")):
        with pytest.raises(UsageError, match=words):
            P.condition(caption)
    assert P.condition("green left", known_only=True) == P.condition("left")
    assert grid([[np.asarray(P.decode(ids))] * 2]).shape == (2, 7, 3)


def test_a_folder_keeps_palette_and_words(tmp_path):
    P.save(tmp_path)
    assert ImageTokenProcessor.load(tmp_path) == P
    file = tmp_path / "preprocessor_config.json"
    whole = json.loads(file.read_text())
    for changes in ({"palette": [[0, 0]]}, {"palette": [[0, 0, 300]] * 3}, {"palette": 3}, {"words": [1]},
                    {"n_words": 0}, {"n_words": "3"}, {"words": ["red"]}, {"n_words": 10**9}):  # fmt: skip
        file.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(ModelFolderError) as error:
            ImageTokenProcessor.load(tmp_path)
        assert "\n" not in str(error.value)


# ---- patches ----


def test_patches_are_codes_and_come_back():
    random = np.random.default_rng(0)
    levels_NHW = random.integers(0, 3, (5, 6, 9))
    codes = codes_of(levels_NHW, 3)
    book = PatchCodes(codes, np.array([BLACK, BLUE, RED]))
    numbers = np.stack([book.encode(levels_HW) for levels_HW in levels_NHW])
    assert numbers.shape == (5, 2, 3) and np.array_equal(book.decode(numbers), levels_NHW)
    assert codes[numbers[1, 1, 2]] == tuple(levels_NHW[1, 3:, 6:].ravel().tolist())
    assert list(codes) == sorted(set(codes))


def test_a_patch_that_is_not_in_the_book_becomes_the_nearest_one():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:2, :2] = RED
    image[0, 1] = BLACK  # three of four pixels red
    image[2:, 4:] = BLUE
    image[3, 4] = BLACK
    image[:2, 3] = RED
    ids = IN_PATCHES.encode(image, "red left")
    assert IN_PATCHES.tokenizer.decode(ids.tolist()) == "word: word:red word:left 0003 0001 0000 0000 0000 0002"
    whole = np.zeros_like(image)
    whole[:2, :2], whole[:2, 3], whole[2:, 4:] = RED, RED, BLUE
    assert np.array_equal(np.asarray(IN_PATCHES.decode(ids)), whole)
    with pytest.raises(UsageError, match="24 ids: give 6 from 0 to 3"):
        IN_PATCHES.decode(np.zeros(24, dtype=np.int64))


def test_a_book_has_the_most_frequent_patches(monkeypatch):
    monkeypatch.setattr(patch_codes, "MAX_CODES", 2)
    levels_NHW = np.zeros((9, 2, 2), dtype=np.int64)
    levels_NHW[:3] = 2
    levels_NHW[3] = 1
    assert codes_of(levels_NHW, 2) == ((0, 0, 0, 0), (2, 2, 2, 2))


def test_a_folder_keeps_patches(tmp_path):
    IN_PATCHES.save(tmp_path)
    assert ImageTokenProcessor.load(tmp_path) == IN_PATCHES
    file = tmp_path / "preprocessor_config.json"
    whole = json.loads(file.read_text())
    for changes in ({"codes": [[0, 0, 0]]}, {"codes": [[0, 0, 0, 3]]}, {"codes": 3}, {"codes": []}, {"patch_size": 1},
                    {"codes": [[0] * 4] * 2}, {"patch_size": "2"}, {"patch_size": 3}, {"drops_captions": 1},
                    {"patch_size": 10**9}):  # fmt: skip
        file.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(ModelFolderError) as error:
            ImageTokenProcessor.load(tmp_path)
        assert "\n" not in str(error.value)


# ---- guidance ----


class TwoOpinions(torch.nn.Module):
    """Logits that depend on the first token alone: those of the row of a table."""

    def __init__(self, table_VV):
        super().__init__()
        self.table = torch.nn.Parameter(table_VV)
        self.first = None

    def new_cache(self, batch_size):
        self.first = None
        return object()

    def forward(self, ids_BT, cache=None):
        self.first = ids_BT[:, 0] if self.first is None else self.first
        return self.table[self.first][:, None].expand(-1, ids_BT.shape[1], -1)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_takes_what_the_condition_adds_several_times(guidance):
    table_VV = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    model, n = TwoOpinions(table_VV), 4000
    found = sample_guided(model, [[3]], [[4]], n, Sampling(seed=5), guidance=guidance, n_ids=3)
    shares = np.bincount(found[0], minlength=3) / n
    wanted = (table_VV[4] + guidance * (table_VV[3] - table_VV[4]))[:3].softmax(dim=0).numpy()
    assert np.abs(shares - wanted).max() < 5 * np.sqrt(0.25 / n)  # a false alarm in less than one of 10^5 runs


def test_guided_images_are_the_same_alone_and_together_and_need_empty_captions_in_training():
    model = toy_model("modern", vocab_size=IN_PATCHES.tokenizer.vocab_size, block_size=8)
    captions = ["red left", "blue right", "red right"]
    together = draw_images(model, IN_PATCHES, captions, sampling=Sampling(seed=7), guidance=2.5)
    assert together.shape == (3, 2, 3) and together.max() < 4
    alone = draw_images(model, IN_PATCHES, captions[2:], sampling=Sampling(seed=9), guidance=2.5)
    assert np.array_equal(together[2:], alone)
    given = np.array([3, 0, 2])
    kept = draw_images(model, IN_PATCHES, captions, given=given, sampling=Sampling(seed=7), guidance=2.5)
    assert np.array_equal(kept[:, 0], np.tile(given, (3, 1)))
    with pytest.raises(UsageError, match=r"task\.drop_captions"):
        draw_images(model, P, captions, guidance=2)
    with pytest.raises(UsageError, match="guidance=-1"):
        draw_images(model, IN_PATCHES, captions, guidance=-1)


# ---- runs ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A red or blue half, left or right; red on the right is in the test split alone."""
    place = tmp_path_factory.mktemp("halves") / "halves"
    known = [("red", "left"), ("blue", "left"), ("blue", "right")]
    for split, n in (("train", 60), ("validation", 12)):
        write_folder(place / split, [(f"{c} {s}" if i % 2 else f"{s} in {c}", half(c, s))
                                     for i in range(n) for c, s in [known[i % 3]]])  # fmt: skip
    write_folder(place / "test", [("red right", half("red", "right"))] * 20)
    return place


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    words = [*SMALL, "training.steps=120", "training.eval_every=40"]
    return recipes.train("text-to-image", words, data=str(folder), out=tmp_path_factory.mktemp("run") / "run").path


def test_a_run_draws_what_a_caption_asks_for(run, glassformer, tmp_path):
    for colour, side in (("red", "left"), ("blue", "right")):
        options = ["--samples", "4", "--seed", "1", "--temperature", "0.5", "--json"]
        drawn = json.loads(glassformer("draw", run, f"{colour} {side}", *options).out)
        assert [each["caption"] for each in drawn] == [f"{colour} {side}"] * 4
        right = [np.array_equal(np.array(each["pixels"]), half(colour, side)) for each in drawn]
        assert sum(right) >= 3
        drawn = json.loads(glassformer("draw", run, f"{colour} {side}", "--guidance", "2", *options).out)
        assert sum(np.array_equal(np.array(each["pixels"]), half(colour, side)) for each in drawn) >= 3
    out = tmp_path / "red.png"
    shown = glassformer("draw", run, "left in red", "--out", out, "--seed", "2").out
    assert "left in red at temperature 1" in shown
    with Image.open(out) as image:
        assert image.mode == "RGB" and image.size == (256, 256)
    assert "red" in glassformer("draw", run, "--seed", "3").out  # captions of the data


def test_the_scores_say_what_a_caption_is_worth(run, glassformer):
    results = json.loads(glassformer("evaluate", run, "--json").out)
    bits = {name: value for name, (value, n, interval) in results["bits_per_dimension"].items()}
    assert bits["model"] < 0.3 < bits["other_caption"] and bits["model"] < bits["previous_pixel"]
    shown = glassformer("evaluate", run, "--split", "test").out  # ten captions of one kind: any is its own
    assert "the caption of another image" in shown and "ten captions" in shown


def test_a_run_resumes_to_the_bit(folder, tmp_path):
    words = [*SMALL, "training.steps=6", "training.eval_every=3", "training.checkpoint_every=3"]
    whole, cut = (recipes.train("text-to-image", words, data=str(folder), out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000006").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000006/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()


def test_words_that_no_training_caption_has_are_reported(tmp_path, glassformer):
    place = tmp_path / "halves"
    for split in ("train", "validation"):
        write_folder(place / split, [(f"{'dark' if split != 'train' else ''} red left", half("red", "left"))] * 12)
    shown = glassformer(
        "train", "text-to-image", *SMALL, "training.steps=1", "--data", place, "--out", tmp_path / "run"
    )
    assert "12 captions of 12 (validation)" in shown.out + shown.err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["task.levels=8"], ["levels=8", "colours=3"]),
        (["task.colours=1"], ["colours"]),
        (["task.patch_size=3"], ["3 x 3", "4 x 4", "patch_size=4"]),
        (["task.patch_size=9"], ["patch_size"]),
        (["task.drop_captions=1"], ["drop_captions"]),
        (["task.condition=class"], ["drop_captions", "caption"]),
        (["task.condition=word"], ["condition", "caption"]),
        (["model.block_size=5"], ["block_size", "6"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, folder, words, names):
    refused("train", "text-to-image", "task.colours=3", *words, "--data", folder, code=2, names=names)


def test_the_command_refuses_what_does_not_fit(refused, run):
    refused("draw", run, "a green half", code=2, names=["'a'"])
    refused("draw", run, "red left in blue right", code=2, names=["5 words", "1 to 3"])
    refused("draw", run, "red left", "--guidance", "-1", code=2, names=["guidance=-1", "0 to"])


def test_the_named_set_has_what_it_says(monkeypatch, tmp_path):
    small = {"train": 24, "validation": 6, "test": 12}
    monkeypatch.setattr(captions_module, "fetch", lambda source, quiet=False: tmp_path)
    monkeypatch.setattr(captions_module, "compose", lambda digits: compose(digits, small))
    archive = {"mnist": digits(3000)}
    import dataclasses

    from glassformer.data.images import IMAGE_SETS

    monkeypatch.setitem(
        IMAGE_SETS, "mnist", dataclasses.replace(IMAGE_SETS["mnist"], read=lambda path: archive["mnist"])
    )
    images, known = load_captioned("digit-scenes")
    assert known is CAPTIONED_SETS["digit-scenes"] and {s: len(r) for s, r in images.items()} == small
    assert images["test"][0].image.shape == (16, 16, 3)
