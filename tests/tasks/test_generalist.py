"""One model for all: ranges of tokens, rows of each kind, mixed batches, and the commands on one folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import glassformer as gf
from glassformer import recipes
from glassformer.cli import app
from glassformer.data.trajectories import Trajectories, Trajectory
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.generation import classify
from glassformer.generation.generalist import CaptionClassifier, TokenPlayer, drawing_part, painter, write_captions
from glassformer.generation.image_tokens import draw_images
from glassformer.generation.play import play
from glassformer.generation.settings import Sampling
from glassformer.processors.generalist import Bins, GeneralistProcessor, caption_of, specials_of
from glassformer.recipes.opening import open_run
from glassformer.tasks.generalist import KINDS

gymnasium = pytest.importorskip("gymnasium", reason="needs the package gymnasium")
WORDS = [
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "model.block_size=40",
    "training.batch_size=8",
    "training.eval_every=4",
    "training.checkpoint_every=4",
    "training.sample_every=4",
    "training.steps=8",
    "task.levels=4",
    "task.bins=6",
    "task.play=1",
    "task.episodes=3",
]


def cartpole_like(n: int = 40) -> Trajectories:
    random, rows = np.random.default_rng(0), []
    for number in range(n):
        T = 4 + number % 9
        states = random.normal(size=(T, 4)).astype(np.float32)
        rows.append(Trajectory(states, np.full(T, int(T > 8)), np.ones(T, dtype=np.float32)))
    return Trajectories(rows, "CartPole-v1")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A text, images of 5 x 5 pixels of the digits 3 and 7, and episodes."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "a.txt").write_text("seven or three sheep are here, and nothing is there.\n" * 60)
    random = np.random.default_rng(0)
    for label, level in (("3", 40), ("7", 200)):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(40):
            pixels = (level + random.integers(-30, 30, size=(5, 5))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
    cartpole_like().save(folder / "a.npz")
    return folder


def words(sources) -> list[str]:
    return [*WORDS, f"task.images={sources / 'images'}", f"task.trajectories={sources / 'a.npz'}"]


@pytest.fixture(scope="module")
def run(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    return recipes.train("one-model", words(sources), data=str(sources / "a.txt"), out=out).path


@pytest.fixture(scope="module")
def opened(run):
    model, task = open_run(run)
    return model.eval(), task


def test_bins_are_narrow_near_0_and_come_back():
    bins = Bins(32, 5.0)
    x = np.linspace(-4.9, 4.9, 1001)
    near, back = bins.encode(x), bins.decode(bins.encode(x))
    assert (np.diff(near) >= 0).all() and near.min() == 0 and near.max() == 31
    assert np.array_equal(bins.encode(back), near)
    assert np.abs(back - x).max() < 0.8 and np.abs(back - x)[np.abs(x) < 0.1].max() < 0.04
    assert bins.encode([-1e9, 1e9]).tolist() == [0, 31]
    assert Bins(8, 5.0).encode(1.0) != Bins(8, 1.0).encode(1.0)


def test_the_ranges_lie_one_after_the_other_and_text_never_enters_them(opened):
    p = opened[1].processor
    ids = [p.tokenizer.special_tokens[token] for token in specials_of(p.images, p.trajectories, p.bins)]
    assert ids == list(range(p.image_ids.start, p.tokenizer.vocab_size))
    assert p.image_ids.stop == p.first_return and p.action_ids.stop == p.tokenizer.vocab_size
    assert p.first_return + 5 * 6 == p.action_ids.start and len(p.action_ids) == 2
    with pytest.warns(UserWarning, match="not in the vocabulary"):
        assert max(p.text("<image:00> seven")) < p.image_ids.start
    assert p.tokenizer.token_text(p.image(Image.new("L", (5, 5)), "7")[0]) == "<image:class:7>"
    assert caption_of("7") == "seven\n" and p.tokenizer.decode(p.caption("7")) == "seven\n"


def test_what_is_only_seen_is_no_target(opened):
    """Pixels before a caption, returns and states; everything else is asked for at the place before it."""
    _, task = opened
    p = task.processor
    (image, caption), *_ = task.source.pictures("train")
    draw, named = task.source.image_row("draw", image, caption), task.source.image_row("caption", image, caption)
    assert len(draw.targets) == 25 and np.array_equal(draw.targets, image[1:]) and draw.inputs[0] == image[0]
    assert np.array_equal(named.inputs[:25], image[1:]) and (named.targets[:24] == -100).all()
    assert p.tokenizer.decode(named.targets[24:].tolist()) in ("seven\n", "three\n")
    steps = task.source.steps("train")[0]
    row = task.source.play_row(steps)
    kept = row.targets != -100
    assert kept.sum() == len(steps) and np.array_equal(row.targets[kept], steps[:, -1])
    assert np.flatnonzero(kept).tolist() == list(range(4, 6 * len(steps), 6))
    assert np.array_equal(row.inputs[5::6], steps[:-1, -1])  # an action is read behind the place that asks for it


def test_a_batch_has_the_kinds_in_proportion(opened):
    _, task = opened
    p, seen = task.processor, []
    batches = task.batches("train")
    for _ in range(50):
        inputs_BT, targets_BT = next(batches)
        for inputs, targets in zip(inputs_BT, targets_BT, strict=True):
            first, wanted = int(inputs[0]), targets[targets != -100]
            if first < p.image_ids.start:
                seen.append("text")
            elif first >= p.first_return:
                seen.append("play")
                assert all(int(t) in p.action_ids for t in wanted)
            else:
                seen.append("caption" if wanted.max() < p.image_ids.start else "draw")
    assert {kind: seen.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 100)


def test_two_ranks_read_what_one_reads(opened):
    _, task = opened
    whole = task.batches("train").batch(3)
    halves = [task.batches("train", rank, 2).batch(3) for rank in range(2)]
    for part, (a, b) in zip(whole, zip(*halves, strict=True), strict=True):
        width = part.shape[1]
        both = [
            torch.nn.functional.pad(x, (0, width - x.shape[1]), value=0 if part is whole[0] else -100) for x in (a, b)
        ]
        assert torch.equal(torch.cat(both), part)


def test_a_specialist_reads_its_own_kind_alone(run, sources, tmp_path):
    others = [f"task.{kind}=0" for kind in KINDS if kind != "caption"]
    other = recipes.train("one-model", [*words(sources), *others], data=str(sources / "a.txt"), out=tmp_path / "c").path
    model, task = open_run(other)
    assert set(task.evaluate(model).values) == {"loss", "caption_loss"}
    assert set(task.extra_scores(model, "test").to_dict()) == {"captions_right"}
    inputs_BT, targets_BT = next(task.batches("train"))
    assert inputs_BT.shape == targets_BT.shape == (8, 25 + len("seven\n") - 1)


def test_the_part_that_draws_is_the_whole_given_an_image(opened):
    model, task = opened
    p = task.processor
    part = drawing_part(model, p)
    levels = torch.tensor([[*p.images.encode(Image.new("L", (5, 5), 90), "7")]])
    own = model(levels + p.image_ids.start)[..., p.image_ids.start : p.image_ids.stop]
    torch.testing.assert_close(part(levels), own)
    drawn = draw_images(part, p.images, ["3", "7"], sampling=Sampling(seed=1))
    assert drawn.shape == (2, 5, 5) and drawn.max() < 4


def test_captions_are_classified_by_their_probability(opened):
    model, task = opened
    p = task.processor
    levels_ND, _ = task.source.levels("test")
    images = [p.images.picture(levels) for levels in levels_ND[:3]]
    probabilities = classify(CaptionClassifier(model, p), p.images.pixels, images)
    assert probabilities.shape == (3, 2) and torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    row = torch.tensor([[*(levels_ND[0] + p.image_ids.start), *p.caption("7")]])
    by_hand = model(row[:, :-1]).log_softmax(dim=-1)[0, 24:].gather(1, row[0, 25:, None]).sum()
    pixels = torch.from_numpy(p.images.pixels.encode_batch(images[:1]))
    torch.testing.assert_close(CaptionClassifier(model, p)(pixels)[0, 1], by_hand)
    assert len(write_captions(model, p, levels_ND[:3])) == 3


def test_playing_by_tokens_reads_what_training_read(opened, monkeypatch):
    """The tokens of an episode are those that the processor makes of it, with the cache and after it was full."""
    model, task = opened
    p, seen = task.processor, []

    class Watched(TokenPlayer):
        def forward(self, returns, states, actions, times, *, cache):
            begin, out = cache.length, super().forward(returns, states, actions, times, cache=cache)
            seen.append((begin, cache.tokens[0, : cache.length].tolist()))
            return out

    (episode,) = play(Watched(model, p), p.trajectories, target_return=12.0)
    triples = p.trajectories.encode(
        Trajectory(np.array(episode.observations), np.array(episode.actions), np.array(episode.rewards))
    )
    made = p.steps(triples._replace(returns=p.trajectories.encode_returns(episode.returns_to_go)))
    first = 0
    for step, (_, tokens) in enumerate(seen):
        if step - first >= 40 // 6:
            first = step - 3
        assert tokens == made[first : step + 1].ravel()[:-1].tolist()
    assert len(seen) == len(episode.rewards) > 7
    whole = model(torch.from_numpy(made[:6].ravel()[None, :-1]))[0, 4::6, p.action_ids.start :].softmax(dim=-1)
    torch.testing.assert_close(torch.tensor(episode.policy[:6]), whole, rtol=1e-3, atol=1e-4)


def glassformer(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_use_one_folder(run, sources):
    assert glassformer("generate", run, "--prompt", "sev", "-n", "5").startswith("sev")
    picture = next((sources / "images" / "7").iterdir())
    found = json.loads(glassformer("classify", run, picture, "--json"))
    assert found[0]["label"] in "37" and sum(found[0]["probabilities"].values()) == pytest.approx(1)
    refused = CliRunner().invoke(app, ["classify", str(run), str(picture), "--image-size", "10"])
    assert isinstance(refused.exception, UsageError) and "leave image_size out" in str(refused.exception)
    drawn = json.loads(glassformer("draw", run, "7", "--seed", "1", "--json"))
    assert np.array(drawn[0]["pixels"]).shape == (5, 5)
    played = json.loads(glassformer("play", run, "--return", "10", "--json"))
    assert played[0]["asked"] == 10 and played[0]["got"] > 5
    shown = glassformer("evaluate", run, "--split", "test")
    assert all(name in shown for name in ("bits per character", "bits per pixel", "captions right", "asked 12"))


def test_a_run_resumes_to_the_bit(run, sources, tmp_path):
    cut = recipes.train("one-model", words(sources), data=str(sources / "a.txt"), out=tmp_path / "cut").path
    (cut / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut / "summary.json").unlink()
    recipes.resume(cut)
    for kept in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (run / kept).read_bytes() == (cut / kept).read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["tokenizer.kind=bpe"], ["tokenizer"]),
        ([f"task.{kind}=0" for kind in KINDS], ["nothing to learn"]),
        (["model.block_size=20"], ["31 tokens", "block_size=31"]),
        (["task.bins=2"], ["bins"]),
        (["task.images=nowhere"], ["nowhere"]),
        (["task.trajectories=nowhere.npz"], ["nowhere.npz"]),
        (["task.trajectories=pendulum.npz"], ["continuous"]),
    ],
)
def test_what_does_not_fit_is_refused(change, named, sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    episodes = [Trajectory(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), np.ones(4, np.float32))] * 30
    Trajectories(episodes, "Pendulum-v1").save(tmp_path / "pendulum.npz")
    with pytest.raises((UsageError, DataError)) as refused:
        recipes.train("one-model", [*words(sources), *change], data=str(sources / "a.txt"), out=tmp_path / "x")
    assert all(name in str(refused.value) for name in named)


def test_a_damaged_folder_is_refused(run, tmp_path):
    import shutil

    for name, content in (
        ("generalist.json", "{}"),
        ("images/preprocessor_config.json", "{}"),
        ("generalist.json", None),
    ):
        folder = tmp_path / name.replace("/", "-") / str(content)
        shutil.copytree(run / "model", folder)
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
        with pytest.raises(ModelFolderError):
            GeneralistProcessor.load(folder)
        with pytest.raises(UsageError if content is None else ModelFolderError):
            painter(gf.load(folder))
