"""Decision Transformer: triples, the cache, sampling by return, a run on trajectories, and playing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import shaken

import glassformer as gf
from glassformer import recipes
from glassformer.data.trajectories import Trajectories, Trajectory
from glassformer.errors import ModelFolderError, UsageError
from glassformer.generation.play import play
from glassformer.models import build_model, make_config
from glassformer.models.parts import letters, pieces
from glassformer.processors.trajectory import TrajectoryProcessor, load_trajectory_processor
from glassformer.tasks import Decision
from glassformer.tasks.decision import shares_of
from glassformer.tasks.returns import AskedAndGot, asked_and_got, episode_figures, return_of

gymnasium = pytest.importorskip("gymnasium", reason="needs the package gymnasium")
SIZES = {"n_layer": 2, "n_head": 3, "n_embd": 15, "block_size": 21, "positions": "none"}
WORDS = [
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "model.block_size=15",
    "training.batch_size=8",
    "training.eval_every=4",
    "training.checkpoint_every=4",
    "training.sample_every=4",
    "training.steps=8",
    "task.episodes=3",
]


def cartpole_like(n: int = 40, seed: int = 0) -> Trajectories:
    """Episodes of CartPole's sizes: one that ends late went on choosing 1, one that ends early 0."""
    random, rows = np.random.default_rng(seed), []
    for number in range(n):
        T = 4 + number % 9
        states = random.normal(size=(T, 4)).astype(np.float32)
        rows.append(Trajectory(states, np.full(T, int(T > 8)), np.ones(T, dtype=np.float32)))
    return Trajectories(rows, "CartPole-v1")


@pytest.fixture
def file(tmp_path):
    cartpole_like().save(tmp_path / "a.npz")
    return tmp_path / "a.npz"


@pytest.fixture
def processor():
    return TrajectoryProcessor((0.0,) * 4, (1.0,) * 4, 10.0, n_actions=2, environment="CartPole-v1", best_return=12.0)


@pytest.fixture
def model():
    sizes = {"state_size": 4, "action_size": 2, "max_timestep": 500}
    return shaken(build_model(make_config("trajectory_decoder", **SIZES, **sizes))).eval()


def steps(B: int, K: int, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(B, K, *size, generator=g) for size in ((), (4,), (2,))]
    return [*numbers, torch.arange(3, 3 + K).expand(B, -1)]


def test_an_action_depends_on_all_before_it_and_on_nothing_after(model):
    """Return and state of its own step, and everything of the steps before; not its own action."""
    whole = model(*steps(1, 5))
    for part, first in ((0, 2), (1, 2), (2, 3)):  # a change at step 2 of return, state, action
        changed = [tensor.clone() for tensor in steps(1, 5)]
        changed[part][0, 2] += 1.0
        other = model(*changed)
        assert torch.equal(other[0, :first], whole[0, :first])
        assert not torch.isclose(other[0, first:], whole[0, first:]).all(dim=-1).any()
    later = [*steps(1, 5)[:3], steps(1, 5)[3] + 1]
    assert not torch.isclose(model(*later), whole).any()


def test_with_a_cache_it_answers_as_without(model):
    returns, states, actions, times = steps(3, 7)
    whole, cache, found = model(returns, states, actions, times), model.new_cache(3), []
    for k in range(7):  # the action before, then return and state
        part = slice(max(k - 1, 0), k + 1)
        found.append(model(returns[:, part], states[:, part], actions[:, part.start : k], times[:, part], cache=cache))
        assert cache.length == 3 * k + 2
    torch.testing.assert_close(torch.cat(found, dim=1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(returns, states, actions[:, :-1], times), whole)
    with pytest.raises(UsageError, match=r"24 tokens .* 7 steps"):
        model(*steps(1, 8))


def test_every_matrix_has_a_part(model):
    parts = {piece.name: (piece.part, piece.axes) for piece in pieces(model)}
    assert parts["embedding.timestep.weight"] == ("positions", ("timesteps", "C"))
    assert parts["embedding.read_state.weight"] == ("read-in", ("C", "state"))
    assert not [name for name, (part, _) in parts.items() if part == "other"]
    assert letters(model.config)["timesteps"] == 500


def test_a_processor_encodes_and_decodes(processor):
    for p, episode in (
        (
            TrajectoryProcessor((1.0, 2.0, 0.0, 0.0), (0.5, 3.0, 1.0, 1.0), 10.0, n_actions=2),
            cartpole_like().episodes[5],
        ),
        (
            TrajectoryProcessor((0.0,), (2.0,), 3.0, action_low=(-2.0, 0.0), action_high=(2.0, 1.0)),
            Trajectory(np.ones((3, 1), np.float32), np.array([[-2, 0.5], [0, 0], [2, 1]], np.float32), np.arange(3.0)),
        ),
    ):
        triples = p.encode(episode)
        assert triples.returns[0] == pytest.approx(episode.value / p.return_scale)
        assert triples.states[0, 0] == pytest.approx((episode.observations[0, 0] - p.state_mean[0]) / p.state_std[0])
        for ours, theirs in zip(p.decode(triples), episode, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert triples.actions.tolist() == [[-1, 0], [0, -1], [1, 1]]
    blind = TrajectoryProcessor((0.0,) * 4, (1.0,) * 4, 10.0, n_actions=2, reads_returns=False)
    assert not blind.encode(cartpole_like().episodes[0]).returns.any()


def test_a_processor_is_kept_and_what_is_wrong_with_it_is_one_line(processor, tmp_path):
    processor.save(tmp_path)
    assert load_trajectory_processor(tmp_path) == processor
    kept = json.loads((tmp_path / "preprocessor_config.json").read_text())
    changes = {"state_std": [0.0] * 4, "n_actions": -1, "processor_type": "Vector", "return_scale": 0, "a": 1,
               "state_mean": "abcd", "action_low": [1.0], "best_return": float("nan")}  # fmt: skip
    for change in ({name: value} for name, value in changes.items()):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**kept, **change}))
        with pytest.raises(ModelFolderError) as error:
            load_trajectory_processor(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="size 3"):
        processor.encode_states(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="0 to 1"):
        processor.encode_actions(np.array([2]))


def test_episodes_are_read_by_their_returns():
    returns, lengths = [10.0] * 98 + [500.0, 500.0], np.array([10] * 98 + [500, 500])
    by = {name: shares_of(returns, lengths, name)[98:].sum() for name in ("return", "episode", "step")}
    assert by["return"] == pytest.approx(0.5) and by["episode"] == pytest.approx(0.02)
    assert by["step"] == pytest.approx(1000 / 1980)
    assert shares_of([3.0, 3.0], np.array([1, 2]), "return").tolist() == [0.5, 0.5]


def test_the_loss_is_over_the_steps_that_there_are(model, processor):
    task = Decision()
    task.source = type("Source", (), {"processor": processor})()
    rows = [processor.encode(e) for e in cartpole_like(3).episodes]  # 4, 5 and 6 steps
    windows = [(r.returns, r.states, r.actions, np.arange(len(r.returns))) for r in rows]
    batch = task.collate(windows)
    loss = task.loss(model, batch)
    assert loss.count == 15 and batch[-1].shape == (3, 6)
    single = [task.loss(model, task.collate([w])) for w in windows]
    torch.testing.assert_close(loss.sum, sum(each.sum for each in single), rtol=1e-4, atol=1e-5)
    log_p = torch.log_softmax(model(*task.collate(windows[:1])[:4])[0], dim=-1)
    torch.testing.assert_close(single[0].sum, -log_p[range(4), batch[-1][0, :4]].sum(), rtol=1e-4, atol=1e-5)
    assert task.rows(model, batch).sums_B.sum().item() == pytest.approx(loss.sum.item(), rel=1e-5)


def test_a_run_resumes_to_the_bit_and_its_folder_holds_the_model(file, tmp_path):
    settings = [*WORDS, "training.dropout=0.1"]
    whole, cut = (recipes.train("cartpole", settings, data=str(file), out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for kept in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / kept).read_bytes() == (cut.path / kept).read_bytes()
    bundle = gf.load(whole.path)
    assert bundle.model.reads == "trajectory" and bundle.tokenizer is None
    assert bundle.processor.environment == "CartPole-v1" and bundle.processor.best_return == 12
    gf.save(tmp_path / "again", bundle)
    again = gf.load(tmp_path / "again")
    assert again.processor == bundle.processor and torch.equal(again.model(*steps(1, 3)), bundle.model(*steps(1, 3)))


def test_batches_are_the_same_for_any_number_of_processes(file):
    run = recipes.opening.open_task(recipes.read_recipe("cartpole", [f"data.source={file}"]))[0]
    from glassformer.tasks.settings import RunSettings

    task = run.with_run(RunSettings(seed=5, batch_size=6, sequence_length=15))
    one, ranks = task.batches("train"), [task.batches("train", rank, 2) for rank in range(2)]
    for _ in range(3):
        whole, parts = next(one), [next(batches) for batches in ranks]
        K = whole[0].shape[1]
        for w, p in zip(whole, zip(*parts, strict=True), strict=True):
            rows = [torch.cat([t, t.new_full((3, K - t.shape[1], *t.shape[2:]), -100)], dim=1) for t in p]
            assert torch.equal(w[whole[-1] != -100], torch.cat(rows)[whole[-1] != -100])


def test_a_model_learns_what_leads_to_which_return(file, tmp_path):
    """Asked for many steps it chooses 1, asked for few 0; without returns it cannot know."""
    steady = [
        *WORDS[:4],
        "training.batch_size=32",
        "training.steps=120",
        "training.eval_every=120",
        "training.sample_every=0",
    ]
    accuracies, losses = {}, {}
    for name, more in (("returns", []), ("cloning", ["task.reads_returns=false"])):
        run = recipes.train("cartpole", [*steady, *more], data=str(file), out=tmp_path / name)
        model, task = recipes.opening.open_run(run.path)
        for split in ("validation", "test"):
            accuracies[name, split] = task.evaluate(model, split)["accuracy"].value
            losses[name, split] = task.evaluate(model, split)["loss"].value
    assert accuracies["returns", "test"] > 0.85 and accuracies["returns", "validation"] > 0.85
    assert losses["returns", "test"] < losses["cloning", "test"]
    with pytest.raises(UsageError, match=r"return=3 and this model reads none"):
        play(model, gf.load(tmp_path / "cloning").processor, target_return=3)


def test_episodes_do_not_depend_on_their_neighbours(model, processor):
    alone = play(model, processor, target_return=9, episodes=1, seed=2, temperature=1.0)[0]
    four = play(model, processor, target_return=9, episodes=4, seed=2, temperature=1.0)
    assert four[0].actions == alone.actions and four[0].got == alone.got
    again = play(model, processor, target_return=9, episodes=4, seed=2, temperature=1.0)
    assert [e.actions for e in again] == [e.actions for e in four]
    assert len({tuple(e.actions) for e in four}) > 1
    other = play(model, processor, target_return=9, episodes=4, seed=3, temperature=1.0)
    assert [e.actions for e in other] != [e.actions for e in four]
    assert np.allclose(np.diff(alone.returns_to_go), -1) and alone.returns_to_go[0] == 9
    assert all(sum(p) == pytest.approx(1) for p in alone.policy)


def test_the_cache_changes_nothing_while_the_context_is_whole(model, processor):
    """The actions of an episode of a few steps are those of one pass over it."""
    wide = shaken(build_model(model.config.model_copy(update={"block_size": 600}))).eval()
    episode = play(wide, processor, target_return=9, seed=4)[0]
    triples = [processor.encode_returns(episode.returns_to_go), processor.encode_states(np.array(episode.observations)),
               processor.encode_actions(np.array(episode.actions))]  # fmt: skip
    T = len(episode.actions)
    with torch.no_grad():
        p = wide(*(torch.from_numpy(t)[None] for t in triples), torch.arange(T)[None])[0].softmax(dim=-1)
    np.testing.assert_allclose(p.numpy(), np.array(episode.policy), atol=1e-4)
    assert p.argmax(dim=-1).tolist() == episode.actions


def test_what_does_not_fit_an_environment_is_one_line(model, processor):
    for message, call in {
        r"did you mean CartPole-v1": lambda: play(model, processor, "CartPole-v7"),
        r"there is no environment os:system": lambda: play(model, processor, "os:system"),
        r"observations of 2 numbers, 3 actions": lambda: play(model, processor, "MountainCar-v0"),
        r"FrozenLake-v1 gives Discrete\(16\)": lambda: play(model, processor, "FrozenLake-v1"),
        r"episodes=0": lambda: play(model, processor, episodes=0),
        r"temperature=-1 is too small": lambda: play(model, processor, temperature=-1.0),
        r"return=inf is no finite": lambda: play(model, processor, target_return=float("inf")),
    }.items():
        with pytest.raises(UsageError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_the_key_decides_what_the_door_pays():
    from glassformer.data.environments import make_environment

    env, paid = make_environment("KeyToDoor-v0", render=True).unwrapped, {}
    for fetch in (True, False):
        env.reset(seed=1)
        total, ended, steps_taken = 0.0, False, 0
        while not ended:
            wanted = env.thing if fetch or env.room == 2 else None
            row, column = env.agent
            if wanted is None:
                action = 0 if env.room or env.thing != (row - 1, column) else 3
            elif row != wanted[0]:
                action = 2 if row < wanted[0] else 0
            else:
                action = 1 if column < wanted[1] else 3
            assert ("k" in env.render()) == (env.room == 0 and env.thing is not None)
            observation, reward, ended, _, _ = env.step(action)
            assert env.observation_space.contains(observation) and observation[:3].sum() == 1
            total, steps_taken = total + reward, steps_taken + 1
        paid[fetch] = total
        assert 30 < steps_taken <= 40
    assert paid[True] == 1 and (paid[False] == 0) == (not env.has_key)


def test_play_and_evaluate_by_command(file, glassformer, tmp_path):
    run = recipes.train("cartpole", WORDS, data=str(file), out=tmp_path / "run").path
    shown = glassformer("play", run, "--return", "9")
    assert shown.code == 0 and "asked 9, got" in shown.out and "What is still asked for" in shown.out, shown.err
    found = json.loads(glassformer("play", run, "--episodes", "3", "--json", "--html", "e.html").out)
    assert len(found) == 3 and found[0]["asked"] == 12 and found[0]["got"] == len(found[0]["actions"])
    assert "<svg" in (tmp_path / "e.html").read_text()
    for words, name in ((("--env", "CartPol-v1"), "CartPole-v1"), (("--env", "Pendulum-v1"), "Pendulum-v1")):
        wrong = glassformer("play", run, *words)
        assert wrong.code == 2 and name in wrong.err and wrong.err.count("\n") == 1
    scores = json.loads(glassformer("evaluate", run, "--json", "--plot", "asked.svg").out)
    assert [row["n"] for row in scores["returns"]] == [3] * 6 and scores["returns"][-1]["asked"] == 12
    assert (tmp_path / "asked.svg").read_text().startswith("<svg")
    blind = recipes.train("cartpole", [*WORDS, "task.reads_returns=false"], data=str(file), out=tmp_path / "blind").path
    both = glassformer("evaluate", run, "--plot", "both.svg", "--beside", blind)
    assert both.code == 0 and "blind" in (tmp_path / "both.svg").read_text(), both.err
    assert "got" in glassformer("play", blind).out
    lines = glassformer("evaluate", run, "--split", "test").out.splitlines()
    assert sum("got" in line for line in lines) == 6


def test_every_view_of_blocks_looks_at_an_episode(file, glassformer, tmp_path, refused):
    """Tokens have the names of what they are, with their step."""
    run = recipes.train("cartpole", [*WORDS, "training.steps=1"], data=str(file), out=tmp_path / "run").path
    found = json.loads(glassformer("look", "attention", run, f"{file}:2:1", "--json").out)
    assert found["queries"][:4] == ["return:1", "state:1", "action:1", "return:2"] and len(found["queries"]) == 15
    pattern = np.array(found["patterns"])
    assert pattern.shape[-2:] == (15, 15) and np.allclose(pattern.sum(axis=-1), 1, atol=1e-4)
    drawn = glassformer("look", "attention", run, file, "--layer", "0", "--head", "1", "--html", "a.html")
    assert drawn.code == 0 and "state:3" in (tmp_path / "a.html").read_text()
    assert "state:2" in glassformer("look", "residual", run, f"{file}:0", "--position", "7").out
    walked = json.loads(glassformer("look", "attention-walkthrough", run, f"{file}:0", "--json").out)
    assert walked["queries"][-1] == "action:3"
    for place, names in (
        (f"{file}:99", ["episode=99", "40"]),
        (f"{file}:0:50", ["step=50"]),
        (f"{file}:a", ["EPISODE"]),
    ):
        refused("look", "attention", run, place, code=2, names=names)
    refused("look", "attention", run, "nowhere.npz", code=1, names=["nowhere.npz"])
    refused("look", "next", run, "nowhere.npz", code=1, names=["nowhere.npz"])
    played = glassformer("play", run, "--return", "9", "--save", "mine.npz", "--json")
    assert played.code == 0 and "state:0" in glassformer("look", "attention", run, "mine.npz").out


def test_continuous_actions(tmp_path, glassformer):
    """The error of Pendulum's torque is learned, and play stays within its bounds."""
    random, rows = np.random.default_rng(0), []
    for _ in range(30):
        states = random.normal(size=(12, 3)).astype(np.float32)
        torque = np.clip(states[:, :1] + states[:, 1:2], -2, 2)
        rows.append(Trajectory(states, torque, random.normal(size=12).astype(np.float32)))
    Trajectories(rows, "Pendulum-v1").save(tmp_path / "p.npz")
    words = [
        *WORDS[:4],
        "training.batch_size=16",
        "training.steps=150",
        "training.eval_every=150",
        "training.sample_every=150",
    ]
    run = recipes.train("cartpole", words, data=str(tmp_path / "p.npz"), out=tmp_path / "run")
    model, task = recipes.opening.open_run(run.path)
    error = task.evaluate(model, "test")["squared_error"]
    targets = np.concatenate([t.actions for t in task.triples("test")])
    assert error.value < 0.3 * targets.var() and error.n == targets.size
    episode = play(model, task.processor, target_return=-200.0)[0]
    assert len(episode.actions) == 12 and episode.cut and all(-2 <= a[0] <= 2 for a in episode.actions)
    assert "squared error" in glassformer("evaluate", run.path).out
    with pytest.raises(UsageError, match="temperature=1 is for actions to choose from"):
        play(model, task.processor, target_return=0.0, temperature=1.0)


def test_pictures_of_episodes_and_of_returns(model, processor):
    played = play(model, processor, target_return=9, episodes=3)
    assert {type(f).__name__ for f in episode_figures(played[0])} == {"Note", "Curves", "HeatMap"}
    mean = return_of(played)
    assert mean.value == pytest.approx(np.mean([e.got for e in played])) and mean.n == 3
    half = 1.96 * np.std([e.got for e in played], ddof=1) / 3**0.5
    assert mean.interval == pytest.approx(half)
    scores = asked_and_got(model, processor, [5.0, 9.0], 3)
    blind = AskedAndGot("CartPole-v1", [(None, mean)])
    (chart,) = AskedAndGot.together({"model": scores, "cloning": blind})
    assert [line.name for line in chart.lines] == ["model", "got what was asked"] and chart.levels == [
        ("cloning", mean.value)
    ]
    assert AskedAndGot.together({"cloning": blind}) == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data.source=nowhere.npz"], ["nowhere.npz", "cartpole-mixed"]),
        (["tokenizer.kind=bytes"], ["tokenizer"]),
        (["task.best=0"], ["best", "0"]),
        (["task.sampling=returns"], ["sampling", "return"]),
        (["model.block_size=61"], ["block_size=60"]),
        (["model.kind=vector_decoder"], ["trajectory_decoder"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, words, names, tmp_path, monkeypatch):
    cartpole_like().save(tmp_path / "a.npz")
    refused("train", "cartpole", "data.source=a.npz", *words, code=2 if "nowhere" not in words[0] else 1, names=names)
