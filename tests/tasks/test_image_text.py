"""Images and texts by contrast: the loss by hand, equal captions, the temperature, retrieval by hand; a run learns,
resumes to the bit and comes back from its folder; the command ranks labels for a picture and pictures for a text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from toys import shaken, toy_ids

import glassformer as gf
from glassformer import recipes
from glassformer.errors import UsageError
from glassformer.evaluation.retrieval import retrieval_scores
from glassformer.generation.image_text import image_vectors, similarities, text_vectors
from glassformer.models import DualEncoderConfig, build_model, make_config
from glassformer.processors.image import ImageProcessor
from glassformer.processors.image_text import ImageTextProcessor, load_image_text_processor
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.processors.tokenizers.special_tokens import END
from glassformer.tasks import ImageText

Image = pytest.importorskip("PIL.Image", reason="needs the package pillow")
SIZES = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "image_size": 8, "patch_size": 4,
         "end_token": 3}  # fmt: skip
SMALL = ["model.n_layer=1", "model.n_text_layer=1", "model.n_head=2", "model.n_embd=32", "tokenizer.kind=words",
         "training.batch_size=12", "training.warmup_steps=2", "training.sample_every=0",
         "training.dropout=0"]  # fmt: skip
COLOURS = {"red": (230, 20, 20), "green": (20, 210, 40), "blue": (30, 60, 240), "yellow": (240, 220, 10)}
SIDES = {"left": (slice(None), slice(0, 4)), "right": (slice(None), slice(4, 8)), "top": (slice(0, 4), slice(None))}


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
            lines.append(json.dumps({"file_name": f"{number}.png", "text": f"{colour.title()} {side}"}))
        (place / split / "metadata.jsonl").write_text("\n".join(lines))
    return place


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    words = [*SMALL, "training.steps=300", "training.eval_every=100", "training.checkpoint_every=300"]
    return recipes.train("emoji-names", words, data=str(folder), out=tmp_path_factory.mktemp("run") / "run").path


# ---- the model ----


@pytest.fixture(scope="module")
def model():
    return shaken(build_model(make_config("dual_encoder", **SIZES, n_text_layer=1, n_joint=7))).eval()


def test_vectors_have_length_one_and_what_is_padded_is_not_seen(model):
    images, ids = toy_ids(3, 3, 8, 8) / 61, toy_ids(4, 9)
    lengths = torch.tensor([9, 4, 1, 6])
    texts = model.text_vectors(ids, lengths)
    assert model.image_vectors(images).shape == (3, 7) and texts.shape == (4, 7)
    for vectors in (texts, model.image_vectors(images)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    for row, n in enumerate(lengths.tolist()):
        alone = model.text_vectors(ids[row : row + 1, :n], torch.tensor([n]))
        torch.testing.assert_close(alone[0], texts[row])
    ended = torch.where(ids == 3, 4, ids)
    ended[torch.arange(4), lengths - 1] = 3
    torch.testing.assert_close(model.text_vectors(ended), model.text_vectors(ended, lengths))
    with pytest.raises(UsageError, match="token 3"):
        model.text_vectors(torch.full((1, 5), 4))
    logits = model(images, ids, lengths)
    torch.testing.assert_close(logits, model.logit_scale.exp() * model.image_vectors(images) @ texts.T)


def test_the_temperature_has_an_end(model):
    one = torch.eye(7)[:1]
    with torch.no_grad():
        before = model.logit_scale.clone()
        model.logit_scale.fill_(20.0)
        assert float(model.compare(one, one)) == pytest.approx(100, rel=1e-5)
        model.logit_scale.copy_(before)


def test_the_configuration_of_both_and_changes():
    config = make_config("dual_encoder", **SIZES, n_text_layer=1, n_joint=7)
    assert (config.image.n_layer, config.text.n_layer, config.n_layer) == (2, 1, 3)
    assert config.image.block_size == 5 and config.text.block_size == config.block_size == 13
    assert make_config("dual_encoder", **config.model_dump()) == config
    wider = DualEncoderConfig.make(**{**config.model_dump(), "vocab_size": 67, "image_size": 12})
    assert wider.text.vocab_size == 67 and wider.image.block_size == 10 and wider.n_joint == 7
    for fields, words in (
        ({"image_size": 9}, "image_size=9"),
        ({"n_colours": 3}, "n_colours"),
        ({"n_layer": 0}, "n_layer=0"),
    ):
        with pytest.raises(UsageError, match=words) as error:
            make_config("dual_encoder", **{**SIZES, **fields})
        assert "\n" not in str(error.value)
    frames = {**config.image.model_dump(), "stem": "frames", "positions": "sinusoidal"}
    with pytest.raises(UsageError, match="stem=frames"):
        make_config("dual_encoder", image=frames, text=config.text.model_dump(), end_token=3)


# ---- the loss ----


def test_the_loss_is_the_mean_of_rows_and_columns(model):
    task = ImageText()
    rows = [
        (toy_ids(3, 8, 8, seed=i).numpy().astype(np.float32) / 61, toy_ids(1, 3 + i, seed=i)[0].tolist(), i)
        for i in range(4)
    ]
    batch = task.collate(rows)
    loss = task.loss(model, batch)
    logits = model(*batch[:3])
    expected = sum((torch.nn.functional.cross_entropy(l, torch.arange(4)) for l in (logits, logits.T)), torch.zeros(()))
    assert float(loss.sum / loss.count) == pytest.approx(float(expected) / 2, rel=1e-5)
    found = task.rows(model, batch)
    assert float(found.sums_B.sum()) == pytest.approx(float(loss.sum), rel=1e-5) and found.counts_B.tolist() == [1] * 4


def test_equal_captions_are_no_wrong_answers(model):
    task = ImageText()
    rows = [(toy_ids(3, 8, 8, seed=i).numpy().astype(np.float32) / 61, [5, 7, 9], 0) for i in range(3)]
    assert float(task.loss(model, task.collate(rows)).sum) == pytest.approx(0, abs=1e-5)
    others = [(*row[:2], i) for i, row in enumerate(rows)]  # as if they were different ones: three alike
    assert float(task.loss(model, task.collate(others)).sum) > 1


# ---- retrieval ----


def test_retrieval_by_hand():
    random = np.random.default_rng(0).normal(size=(40, 40))
    captions = [str(i // 2) for i in range(40)]  # each caption twice
    scores = retrieval_scores(random, captions)
    for name, matrix in (("caption of an image", random), ("image of a caption", random.T)):
        for k in (1, 5):
            right = [
                any(captions[j] == captions[i] for j in sorted(range(40), key=lambda j: -row[j])[:k])
                for i, row in enumerate(matrix)
            ]
            assert scores.found[name][k].value == pytest.approx(np.mean(right))
    assert scores.chance[1] == pytest.approx(2 / 40)
    assert scores.chance[5] == pytest.approx(1 - math.comb(38, 5) / math.comb(40, 5))
    perfect = retrieval_scores(np.eye(9), [str(i) for i in range(9)])
    assert all(share.value == 1 for row in perfect.found.values() for share in row.values())
    assert len(perfect.lines()) == 4


# ---- runs ----


def test_a_run_learns_which_caption_is_of_which_image(run, folder, glassformer):
    results = json.loads(glassformer("evaluate", run, "--split", "test", "--json").out)
    for row in results["retrieval"].values():
        assert row["1"]["value"] > 0.6 and row["5"]["value"] > 0.8
    assert results["retrieval_chance"]["1"] == pytest.approx(1 / 12)
    assert "by chance 8.3 %" in glassformer("evaluate", run).out
    bundle = gf.load(run)
    assert isinstance(bundle.processor, ImageTextProcessor) and bundle.tokenizer is None
    texts = ["red left", "RED left", "blue top"]
    vectors = text_vectors(bundle.model, bundle.processor, texts)
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])
    images = [picture("red", "left", 999), picture("blue", "top", 998)]
    assert similarities(bundle.model, bundle.processor, images, texts[1:]).argmax(dim=1).tolist() == [0, 1]


def test_the_command_ranks_labels_and_pictures(run, folder, glassformer, refused, tmp_path):
    file = tmp_path / "here.png"
    Image.fromarray(picture("green", "right", 7)).save(file)
    result = json.loads(glassformer("classify", run, file, "--labels", "red left, green right, blue top", "--json").out)
    assert result[0]["label"] == "green right" and sum(result[0]["probabilities"].values()) == pytest.approx(1)
    assert "green right" in glassformer("classify", run, file, "--labels", "red left, green right").out.splitlines()[0]
    for number, (colour, side) in enumerate((("red", "left"), ("blue", "top"), ("yellow", "right"))):
        Image.fromarray(picture(colour, side, number)).save(tmp_path / f"{colour}.png")
    found = json.loads(glassformer("classify", run, "Blue top", "--pictures", tmp_path, "--json").out)
    assert found[0]["picture"] == "blue.png" and set(found[0]["probabilities"]) >= {"red.png", "here.png"}
    refused("classify", run, file, code=2, names=["--labels", "--pictures"])
    refused("classify", run, file, "--labels", "one", code=2, names=["two"])
    refused("classify", run, "blue", "--pictures", folder, code=1, names=["no pictures"])
    refused("classify", run, file, "--labels", "a, red left red left red left red left", code=2, names=["tokens"])
    refused("classify", run, tmp_path / "none.png", "--labels", "red left, blue top", code=1, names=["none.png"])
    refused("classify", run, file, "--labels", "a, b", "--image-size", "9", code=2, names=["--image-size"])
    refused("generate", run, code=2, names=["DualEncoder", "classify"])


def test_a_run_resumes_to_the_bit(folder, tmp_path):
    words = [*SMALL, "training.steps=6", "training.eval_every=3", "training.checkpoint_every=3"]
    whole, cut = (recipes.train("emoji-names", words, data=str(folder), out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000006").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000006/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()


def test_a_run_starts_from_another(run, folder, tmp_path):
    words = [*SMALL[:4], *SMALL[5:], f"training.start_from={run}", "training.steps=1"]
    again = recipes.train("emoji-names", words, data=str(folder), out=tmp_path / "again")
    assert gf.load(again.path).processor == gf.load(run).processor


def test_the_processor_comes_back_from_its_folder(tmp_path):
    tokenizer = TOKENIZERS["words"](["red left blue"], specials=[END])
    processor = ImageTextProcessor(ImageProcessor(size=(8, 8)), tokenizer)
    processor.save(tmp_path)
    again = load_image_text_processor(tmp_path)
    assert again == processor
    assert again.encode_text("RED blue") == [*tokenizer.encode("red blue"), tokenizer.special_tokens[END]]
    vectors = image_vectors(
        build_model(make_config("dual_encoder", **{**SIZES, "vocab_size": 9})), again, [picture("red", "left", 0)]
    )
    assert vectors.shape == (1, 18)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["task.rotate=3"], ["rotate", "rotation"]),
        (["task.image_size=6"], ["image_size=6", "patch_size=4"]),
        (["model.block_size=9"], ["block_size"]),
        (["model.kind=encoder"], ["encoder", "dual_encoder"]),
        (["tokenizer.source_kind=words"], ["source_kind"]),
        (["data.max_tokens=9"], ["max_tokens"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, folder, words, names):
    refused("train", "emoji-names", *words, "--data", folder, code=2, names=names)
