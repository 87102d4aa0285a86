"""Captions: what a batch holds, scores by hand, a run that learns to say what it sees, its commands, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from every_use import USES

import glassformer as gf
from glassformer import recipes
from glassformer.data.captions import CAPTIONED_SETS
from glassformer.data.digit_scenes import caption as caption_of
from glassformer.data.digit_scenes import described, scenes
from glassformer.errors import UsageError
from glassformer.evaluation.captions import baselines, caption_scores
from glassformer.generation.caption import caption
from glassformer.models import make_config
from glassformer.recipes.opening import open_run, open_task
from glassformer.recipes.schema import Recipe
from glassformer.tasks.losses import IGNORED

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
COLOURS = {"red": (230, 20, 20), "green": (20, 210, 40), "blue": (30, 60, 240)}
SIDES = {"left": (slice(None), slice(0, 4)), "right": (slice(None), slice(4, 8))}
SMALL = ["model.n_layer=1", "model.n_decoder_layer=1", "model.n_head=2", "model.n_embd=32", "model.patch_size=4",
         "model.block_size=16", "training.batch_size=12", "training.warmup_steps=2", "training.sample_every=0",
         "training.dropout=0", "training.eval_batches=0"]  # fmt: skip


def picture(colour: str, side: str, number: int) -> np.ndarray:
    """8 x 8 pixels, one half in a colour, with noise."""
    pixels = np.random.default_rng(number).integers(0, 60, (8, 8, 3), dtype=np.uint8)
    pixels[SIDES[side]] = np.array(COLOURS[colour]) - pixels[SIDES[side]] // 5
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs") / "halves"
    pairs = [(colour, side) for colour in COLOURS for side in SIDES]
    for split, first, n in (("train", 0, 96), ("validation", 200, 12), ("test", 300, 12)):
        (place / split).mkdir(parents=True)
        lines = []
        for number in range(first, first + n):
            colour, side = pairs[number % len(pairs)]
            Image.fromarray(picture(colour, side, number)).save(place / split / f"{number}.png")
            lines.append(json.dumps({"file_name": f"{number}.png", "text": f"{colour} on the {side}"}))
        (place / split / "metadata.jsonl").write_text("\n".join(lines))
    return str(place)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    words = [*SMALL, "training.steps=150", "training.eval_every=50", "training.checkpoint_every=150"]
    return recipes.train("captions", words, data=folder, out=tmp_path_factory.mktemp("run") / "run").path


# ---- scores and baselines ----


def test_what_a_caption_says_is_found_in_all_of_its_forms():
    for scene in scenes()[::37]:
        for form in range(4):
            said = described(caption_of(scene, form))
            assert (said["colour"], said["size"], said["place"]) == scene[1:], (scene, form)
            assert caption_of(scene, 0).split(",")[0].endswith(said["digit"])
    assert described("an eight, top right") == {"digit": "eight", "place": "top right"}
    assert CAPTIONED_SETS["digit-scenes"].described is described


def test_scores_count_each_part_and_the_whole_and_what_was_not_said():
    known = ["a large red seven, top left", "a small blue two, bottom right"]
    written = {"model": ["top left: a large red seven", "a blue two, bottom left"], "other": [known[0]] * 2}
    found = caption_scores(written, known, described).right
    assert {what: share.value for what, share in found["model"].items()} == {
        "caption": 0.5, "digit": 1.0, "colour": 1.0, "size": 0.5, "place": 0.5
    }  # fmt: skip
    assert [found["other"][what].value for what in ("caption", "digit")] == [0.5, 0.5]
    words = caption_scores({"model": ["Red apple!", "cat"]}, ["red apple", "dog"])
    assert words.right["model"]["caption"].value == 0.5 and "50.0 %" in words.lines()[0]


def test_baselines_are_the_most_frequent_caption_and_that_of_the_nearest_image():
    train = [np.full((1, 2, 2), level, dtype=np.float32) for level in (0.0, 1.0, 2.0)]
    asked = [np.full((1, 2, 2), level, dtype=np.float32) for level in (1.4, 9.0)]
    assert baselines(train, ["a", "b", "a"], asked) == {"most frequent": ["a", "a"], "nearest image": ["b", "a"]}


# ---- a run ----


def test_a_batch_holds_images_and_the_caption_from_start_to_end(folder):
    task, _ = open_task(Recipe.model_validate({"data": {"source": folder}, "task": {"kind": "captions"}}))
    rows = task.encoded("validation", 30)
    images, target_in, target_out = task.collate(rows[:3])
    assert images.shape == (3, 3, 8, 8) and images.dtype == torch.float32
    for (ids, pixels), image, given, wanted in zip(rows, images, target_in, target_out, strict=False):
        n = len(ids)
        assert torch.equal(image, torch.from_numpy(pixels))
        assert given[: n + 1].tolist() == [task.start_token, *ids] and wanted[: n + 1].tolist() == [
            *ids,
            task.end_token,
        ]
        assert (wanted[n + 1 :] == IGNORED).all()


def test_captions_of_new_pictures_are_right_and_beside_baselines(run):
    model, task = open_run(run)
    scored = task.score_answers(model, split="test")
    assert scored.scores.n == 12 and scored.scores.right["model"]["caption"].value == 1.0
    assert scored.scores.right["most frequent"]["caption"].value == pytest.approx(1 / 6)
    assert {row["answer"] for row in scored.rows()} == {f"{c} on the {s}" for c in COLOURS for s in SIDES}


def test_it_is_resumed_to_the_bit_with_images_that_change(folder, tmp_path):
    words = [*SMALL, "task.translation=0.1", "training.steps=8", "training.eval_every=4", "training.checkpoint_every=4"]
    whole, cut = (recipes.train("captions", words, data=folder, out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()


def test_a_run_begins_from_another_one(run, folder, tmp_path):
    words = ["task.kind=captions", f"training.start_from={run}", "training.steps=2", "training.eval_every=2"]
    again = recipes.train(None, words, data=folder, out=tmp_path / "again")
    assert open_run(again.path)[0].config == open_run(run)[0].config
    with pytest.raises(UsageError, match="the model reads 8"):
        recipes.train(None, [*words, "task.image_size=12"], data=folder, out=tmp_path / "larger")


def test_the_command_writes_what_it_sees_and_looks_where_the_words_look(run, glassformer, tmp_path):
    for name, colour, side in (("a", "red", "left"), ("b", "blue", "right")):
        Image.fromarray(picture(colour, side, 500)).resize((40, 40)).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert glassformer("caption", run, files[0]).out == "red on the left\n"
    assert glassformer("caption", run, *files).out.splitlines()[1] == f"{files[1]}: blue on the right"
    best = json.loads(glassformer("caption", run, files[0], "--beam", 3, "--n-best", 3, "--json").out)[0]["caption"]
    assert best["text"] == "red on the left" and len(best["alternatives"]) == 2
    seen = json.loads(glassformer("look", "image-attention", run, files[0], "--json").out)
    assert np.shape(seen["heads"])[1:] == (2, 2) and len(seen["words"]) == len(seen["heads"])
    assert "".join(seen["words"][:-1]).strip() == "red on the left" and seen["words"][-1] == "<end>"
    assert np.sum(seen["heads"], axis=(1, 2)) == pytest.approx(1, abs=1e-5)
    shown = glassformer("look", "attention", run, files[0], "--kind", "cross", "--layer", 0)
    assert shown.code == 0 and "cross-attention" in shown.out
    scores = json.loads(glassformer("evaluate", run, "--split", "test", "--answers", "--json").out)
    assert (
        scores["right"]["model"]["caption"]["value"] == 1.0 and scores["right"]["most frequent"]["caption"]["n"] == 12
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["caption", "RUN", "none.png"], ["none.png"]),
        (["caption", "RUN", "TEXT"], ["not an image"]),
        (["caption", "RUN", "PICTURE", "--n-best", "3"], ["n_best=3"]),
        (["caption", "DECODER", "PICTURE"], ["does not caption", "glassformer generate"]),
        (["translate", "RUN", "hello"], ["does not translate", "glassformer caption"]),
        (["look", "image-attention", "RUN", "PICTURE", "--query", "99"], ["query=99"]),
        (["look", "rollout", "RUN", "PICTURE"], ["EncoderDecoder"]),
    ],
)
def test_mistakes_are_one_line(words, named, run, glassformer, tmp_path):
    Image.fromarray(picture("red", "left", 1)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("no image")
    USES["text"].save(tmp_path / "text")
    known = {"RUN": run, "PICTURE": tmp_path / "a.png", "TEXT": tmp_path / "a.txt", "DECODER": tmp_path / "text"}
    found = glassformer(*(known.get(word, word) for word in words))
    assert found.code and found.err.count("\n") == 1 and all(name in found.err for name in named), found.err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer": {"source_kind": "bytes"}}, "an image is"),
        ({"model": {"image_size": 9}}, "image_size"),
        ({"task": {"kind": "captions", "rotation": 200}}, "rotation=200"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, named, folder):
    with pytest.raises(UsageError, match=named):
        recipes.train(None, [f"{s}.{k}={v}" for s, row in {"task": {"kind": "captions"}, **changes}.items()
                             for k, v in row.items()] + SMALL, data=folder, out=folder + "-none")  # fmt: skip


def test_fields_of_images_need_an_image():
    with pytest.raises(UsageError, match=r"patch_size is of images"):
        make_config("encoder_decoder", vocab_size=9, block_size=8, n_layer=1, n_head=1, n_embd=8, patch_size=4,
                    start_token=1, end_token=2)  # fmt: skip


def test_a_model_of_texts_writes_no_captions(tmp_path):
    USES["translation"].save(tmp_path)
    bundle = gf.load(tmp_path)
    with pytest.raises(UsageError, match="glassformer train captions"):
        caption(bundle.model, bundle.tokenizer, None, [])
