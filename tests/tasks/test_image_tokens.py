"""Images as tokens: levels and back, what a run learns and draws, its baselines, completion; and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from toys import toy_model

import glassformer as gf
from glassformer import recipes
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.evaluation.images import logistic_costs, previous_pixel_costs, read_by_svm
from glassformer.generation import Sampling
from glassformer.generation.image_tokens import class_log_probabilities, draw_images
from glassformer.processors.image_tokens import ImageTokenProcessor, grid
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks import ImageTokens

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
P = ImageTokenProcessor.make(size=(3, 5), levels=4, labels=("dark left", "right"))
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "task.levels=4", "training.batch_size=8",
         "training.warmup_steps=2", "training.eval_every=4", "training.sample_every=4",
         "training.checkpoint_every=4"]  # fmt: skip


def picture(label: str, number: int) -> np.ndarray:
    """A bright left half, or a bright right half, 6 x 6, with noise."""
    pixels = np.random.default_rng(number).integers(0, 90, (6, 6), dtype=np.uint8)
    pixels[:, :3] += np.uint8(150 * (label == "left"))
    pixels[:, 3:] += np.uint8(150 * (label == "right"))
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images") / "sides"
    for split, first, n in (("train", 0, 60), ("validation", 100, 20), ("test", 200, 20)):
        for number in range(first, first + n):
            label = ("left", "right")[number % 2]
            (place / split / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(label, number)).save(place / split / label / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    words = [
        *SMALL,
        "model.n_embd=32",
        "training.batch_size=16",
        "training.steps=250",
        "training.eval_every=50",
        "training.sample_every=0",
    ]
    return recipes.train("digits-pixels", words, data=str(folder), out=tmp_path_factory.mktemp("run") / "run").path


def test_levels_are_the_nearest_and_come_back():
    pixels = np.array([[0, 42, 43, 127, 128], [212, 213, 255, 85, 170], [1, 2, 3, 4, 5]], dtype=np.uint8)
    ids = P.encode(pixels, "right")
    assert P.tokenizer.decode([int(ids[0])]) == "class:right" and len(ids) == 16
    assert ids[1:11].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 1, 2]
    again = np.asarray(P.decode(ids))
    assert again.tolist()[0] == [0, 0, 85, 85, 170] and np.array_equal(P.levels_of(again).ravel(), ids[1:])
    assert P.tokenizer.decode(ids.tolist()).startswith("class:right 00 00 01 01 02")
    assert (P.tokenizer.encode("00 03 class:dark_left")) == [0, 3, 4]
    sixteen = ImageTokenProcessor.make(size=(1, 1), levels=16, labels=("a", "b"))
    assert sixteen.tokenizer.encode("00 09 10 15") == [0, 9, 10, 15]


def test_pictures_in_a_grid():
    whole = grid([[np.full((2, 3), 9, np.uint8)] * 2, [np.full((2, 3), 7, np.uint8)]])
    assert whole.shape == (5, 7) and whole[0].tolist() == [9, 9, 9, 128, 9, 9, 9]
    assert whole[3].tolist() == [7, 7, 7, 128, 128, 128, 128]


def test_a_folder_keeps_the_processor_and_damage_is_one_line(tmp_path):
    P.save(tmp_path)
    assert ImageTokenProcessor.load(tmp_path) == P
    file = tmp_path / "preprocessor_config.json"
    whole = json.loads(file.read_text())
    for changes, words in (
        ({"levels": "4"}, "damaged"),
        ({"levels": 1000}, "levels=1000"),
        ({"size": [3]}, "damaged"),
        ({"size": [3, 10**9]}, "out of range"),
        ({"labels": ["a"]}, "belong"),
        ({"labels": None}, "damaged"),
        ({"processor_type": "ViTImageProcessor"}, "image_tokens"),
    ):
        file.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(ModelFolderError, match=words) as error:
            ImageTokenProcessor.load(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"levels": 1}, UsageError, "levels=1"),
        ({"size": (65, 2)}, UsageError, "size="),
        ({"labels": ("a b", "a_b")}, DataError, "class:a_b"),
    ],
)
def test_what_makes_no_processor(settings, error, words):
    with pytest.raises(error, match=words):
        ImageTokenProcessor.make(**{"size": (2, 2), "levels": 4, "labels": ("a", "b"), **settings})


# ---- drawing ----


@pytest.fixture(scope="module")
def model():
    return toy_model("modern", vocab_size=P.tokenizer.vocab_size, block_size=15)


def test_only_grey_levels_are_written_and_a_seed_belongs_to_an_image(model):
    drawn = draw_images(model, P, ["right"] * 40, sampling=Sampling(seed=3))
    assert drawn.shape == (40, 3, 5) and drawn.min() >= 0 and drawn.max() < 4
    alone = draw_images(model, P, ["right"], sampling=Sampling(seed=3 + 7))
    assert np.array_equal(alone[0], drawn[7]) and len({each.tobytes() for each in drawn}) > 30


def test_the_first_pixel_has_the_models_own_distribution(model):
    drawn = draw_images(model, P, ["right"] * 3000, sampling=Sampling(seed=0))[:, 0, 0]
    with torch.no_grad():
        p = model(torch.tensor([P.condition("right")]))[0, 0, :4].softmax(dim=-1).numpy()
    assert np.abs(np.bincount(drawn, minlength=4) / 3000 - p).max() < 4 * 0.5 / 3000**0.5  # four standard errors


def test_what_is_given_of_an_image_stays(model):
    given = np.array([3, 0, 1, 2, 3, 3, 1])
    drawn = draw_images(model, P, ["right", "dark left"], given=given)
    assert np.array_equal(drawn.reshape(2, 15)[:, :7], [given, given])
    assert np.array_equal(draw_images(model, P, ["right"], given=np.ones(15)).ravel(), np.ones(15))
    with pytest.raises(UsageError, match="16 ids"):
        draw_images(model, P, ["right"], given=np.ones(16))
    with pytest.raises(UsageError, match="did you mean right"):
        draw_images(model, P, ["rigth"])


def test_log_probabilities_of_the_classes_are_those_of_the_loss(model):
    levels = np.random.default_rng(0).integers(0, 4, (3, 15))
    found = class_log_probabilities(model, P, levels)
    task = ImageTokens()
    for number, label in enumerate(P.labels):
        rows = [np.concatenate([P.condition(label), each]) for each in levels]
        with torch.no_grad():
            costs = task.rows(model, task.collate(rows)).sums_B
        np.testing.assert_allclose(found[:, number], -costs.numpy(), rtol=1e-5)


# ---- baselines ----


def test_the_table_and_the_regressions_by_hand():
    """A pixel that repeats the one before it in 9 of 10 images, and one that copies the class."""
    random = np.random.default_rng(0)
    n = 4_000
    classes = random.integers(0, 2, n)
    first = random.integers(0, 2, n)
    levels = np.stack([first, np.where(random.random(n) < 0.9, first, 1 - first), classes], axis=1)
    split = (levels, classes)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    logistic = logistic_costs(split, split, split, 2).mean()
    assert logistic == pytest.approx(math.log(2) + entropy + 0.0, abs=0.03)  # the third pixel costs nearly nothing
    table = previous_pixel_costs(levels, levels, 2).mean()
    assert table > logistic + 0.4  # it does not know the class
    constant = np.zeros((50, 3), dtype=np.int64)
    assert previous_pixel_costs(constant, constant, 2).mean() < 0.03
    assert np.isfinite(logistic_costs((constant, classes[:50]), split, split, 2)).all()


def test_a_reader_reads_what_it_was_shown():
    levels = np.repeat(np.eye(6, dtype=np.int64) * 3, 5, axis=0)
    classes = np.repeat(np.arange(6), 5)
    assert (read_by_svm(levels, classes).predict(levels) == classes).all()


# ---- runs ----


def test_a_run_resumes_to_the_bit_and_its_folder_is_a_text_model(folder, tmp_path):
    words = [*SMALL, "training.steps=8"]
    whole, cut = (recipes.train("digits-pixels", words, data=str(folder), out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()
    bundle = gf.load(whole.path)
    assert isinstance(bundle.processor, Tokenizer) and bundle.model.config.block_size == 36
    text = gf.generate(bundle.model, bundle.tokenizer, "class:left 00", max_new_tokens=3, seed=1)[0].text
    assert len(text.split()) == 3
    images = [record for record in map(json.loads, (whole.path / "metrics.jsonl").open()) if "val_loss" in record]
    assert images[-1]["val_bits_per_dimension"] == pytest.approx(images[-1]["val_loss"] / math.log(2))


def test_a_run_draws_what_is_asked_for(run, folder, glassformer, tmp_path):
    results = json.loads(glassformer("evaluate", run, "--split", "test", "--json").out)
    bits = {name: value for name, (value, n, interval) in results["bits_per_dimension"].items()}
    assert bits["model"] < 0.9 * bits["previous_pixel"] and bits["model"] < 2 and bits["logistic"] < 2
    assert results["read_as_asked"]["1.0"]["low"] > 0.75 and results["reader_accuracy"]["value"] == 1
    assert results["bayes_accuracy"]["n"] == 20 and results["bayes_accuracy"]["value"] > 0.9
    assert "previous-pixel table" in glassformer("evaluate", run).out

    drawn = json.loads(glassformer("draw", run, "left", "right", "--samples", "3", "--seed", "1", "--json").out)
    assert [each["class"] for each in drawn] == ["left", "right"] * 3 and len({each["seed"] for each in drawn}) == 6
    right = sum((np.mean(np.array(each["pixels"])[:, :3]) > np.mean(np.array(each["pixels"])[:, 3:]))
                == (each["class"] == "left") for each in drawn)  # fmt: skip
    assert right >= 5
    out = tmp_path / "grid.png"
    shown = glassformer("draw", run, "--temperature", "0.5", "--temperature", "1", "--out", out, "--seed", "2").out
    assert "at temperature 0.5" in shown and "at temperature 1" in shown
    with Image.open(out) as image:
        assert image.size == (13 * 42, 13 * 42) and image.mode == "L"


def test_half_an_image_is_completed(run, folder, glassformer):
    file = next((folder / "test" / "left").glob("*.png"))
    result = glassformer("draw", run, "--complete", file, "--keep", "0.34", "--json", "--seed", "3")
    (only,) = json.loads(result.out)
    processor = ImageTokenProcessor.load(run / "model")
    assert "upper 2 rows are most probable as left" in result.err and only["class"] == "left"
    kept = processor.picture(processor.levels_of(file).ravel())[:2]
    assert np.array_equal(np.array(only["pixels"])[:2], kept)
    assert json.loads(glassformer("draw", run, "right", "--complete", file, "--json").out)[0]["class"] == "right"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["task.levels=1"], ["levels", "2"]),
        (["task.level=8"], ["levels"]),
        (["task.image_size=100"], ["image_size", "64"]),
        (["tokenizer.kind=bytes"], ["tokenizer"]),
        (["model.block_size=9"], ["block_size", "36"]),
        (["model.kind=encoder"], ["encoder", "decoder"]),
        (["data.max_tokens=9"], ["max_tokens"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, folder, words, names):
    refused("train", "digits-pixels", *words, "--data", folder, code=2, names=names)


def test_the_command_refuses_what_does_not_fit(refused, run, tmp_path):
    refused("draw", run, "up", code=2, names=["'up'", "left"])
    refused("draw", run, "--keep", "0.5", code=2, names=["--complete"])
    refused("draw", run, "--complete", tmp_path / "none.png", code=1, names=["none.png"])
    refused("draw", run, "--out", tmp_path / "a.doc", code=2, names=["a.doc", ".png"])
    refused("draw", run, "--temperature", "-1", code=2, names=["temperature=-1"])
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    refused("draw", run, "--complete", tmp_path / "bad.png", code=1, names=["bad.png", "damaged"])
