"""Controlled sentiment: a model that learns from rankings writes what the hidden classifier likes."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from command_line import glassformer, refused  # noqa: F401  (fixtures)
from killed_runs import ARMED, DyingEngine, Kill, die, ending, killed, last_step

from glassformer.alignment import FULL, LOOSE, METHODS, SHORT, Settings, align_demo
from glassformer.alignment.demo import all_pairs, best_and_worst
from glassformer.alignment.gold import Gold
from glassformer.alignment.measure import distinct, kl_of_best, picking
from glassformer.alignment.results import over_seeds, summary
from glassformer.alignment.stages import RECIPES
from glassformer.data.examples import Example
from glassformer.errors import DataError, RunError, UsageError
from glassformer.recipes.reading import tomllib
from glassformer.tasks import rollouts

pytest.importorskip("sklearn")
GOOD, BAD = ["fine", "warm", "bright", "clever"], ["dull", "cold", "stale", "silly"]
PLAIN = ["the", "film", "plot", "cast", "scene", "end", "music", "was", "and", "with", "a"]


def toy_reviews() -> dict[str, list[Example]]:
    """Plain words, and at each place with probability 0.3 one that a judge likes or dislikes: mostly of one kind."""
    random = np.random.default_rng(3)

    def review(positive: bool) -> Example:
        words = []
        for _ in range(30):
            kind = GOOD if (random.random() < 0.8) == positive else BAD
            words.append(str(random.choice(kind if random.random() < 0.3 else PLAIN)))
        return Example(" ".join(words), "positive" if positive else "negative")

    return {name: [review(i % 2 == 0) for i in range(n)] for name, n in (("train", 600), ("test", 80))}


SMALL = ("training.batch_size=16", "training.precision=fp32", "training.compile=off")
TOY = Settings(
    methods=("dpo",),
    prompt_tokens=3,
    answer_tokens=8,
    budget=960,
    measured=64,
    best_of=4,
    changes={
        "start": (
            "tokenizer.vocab_size=400",
            "model.n_layer=1",
            "model.n_head=2",
            "model.n_embd=32",
            "model.block_size=32",
            "training.steps=400",
            "data.validation_fraction=0.1",
            *SMALL,
        ),
        "sft": ("training.steps=10", *SMALL),
        "dpo": ("training.steps=60", "training.checkpoint_every=30", *SMALL),
    },
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp("align")
    return out, align_demo(out / "demo", seeds=1, settings=TOY, examples=toy_reviews())


def test_dpo_raises_the_gold_reward_with_intervals_apart(toy):
    _, result = toy
    sft, last = result["sft"], result["methods"]["dpo"][-1]
    assert result["summary"]["dpo"]["gold_rose"]
    assert last["gold"] - last["gold_interval"] > sft["gold"] + sft["gold_interval"]
    assert last["kl"] > 0 and abs(sft["kl"]) < 1e-4  # sft against itself


def test_a_second_call_keeps_what_is_finished_and_one_in_the_middle_goes_on(toy):
    out, result = toy
    demo = out / "demo"
    weights = (demo / "seed-1/dpo/model/model.safetensors").read_bytes()
    (demo / "seed-1/measured/dpo.json").unlink()
    (demo / "seed-1/dpo/checkpoints/step-000060").rename(out / "later")
    (demo / "seed-1/dpo/summary.json").unlink()
    lines: list[str] = []
    again = align_demo(demo, seeds=1, settings=TOY, examples=toy_reviews(), log=lines.append)
    assert (demo / "seed-1/dpo/model/model.safetensors").read_bytes() == weights
    assert again["methods"] == result["methods"] and again["sft"] == result["sft"]
    assert not any(line.startswith(("start", "sft", "gold", "seed-1/rankings")) for line in lines)
    assert any("after step 30" in line for line in lines)


def until_killed(demo, line, how):
    """The demo, killed when it reports a stage, while it samples in that stage, or in a step of its training."""
    rollouts.Engine = DyingEngine

    def log(text):
        if text.startswith(line) and how != "step":
            die() if how == "before" else ARMED.append("sampling")

    callbacks = [Kill("backward", 45)] if how == "step" else []
    align_demo(demo, seeds=1, settings=TOY, examples=toy_reviews(), log=log, callbacks=callbacks)


def test_killed_between_and_inside_stages_it_comes_to_the_same(toy, tmp_path):
    out, result = toy
    demo = tmp_path / "demo"
    shutil.copytree(out / "demo", demo)
    shutil.rmtree(demo / "seed-1")
    (demo / "results.json").unlink()
    for line, how in (
        ("seed-1/rankings", "sampling"),
        ("seed-1/dpo", "before"),
        ("seed-1/dpo", "step"),
        ("seed-1/measured/dpo", "sampling"),
    ):
        killed(until_killed, demo, line, how)
    assert last_step(demo / "seed-1/dpo") == 60 and not (demo / "seed-1/measured/dpo.json").exists()
    (demo / "seed-1/.pairs.jsonl.abcdefgh.part").touch()
    again = align_demo(demo, seeds=1, settings=TOY, examples=toy_reviews())
    assert {**again, "seconds": 0} == {**result, "seconds": 0} and not [*demo.rglob("*.part")]
    assert ending(demo / "seed-1/dpo") == ending(out / "demo/seed-1/dpo")


def test_the_page_has_the_plot_and_the_table(toy):
    out, result = toy
    page = (out / "demo/index.html").read_text()
    prompt, answer = result["methods"]["dpo"][-1]["answers"][0]
    assert " ".join(f"DPO: {prompt}{answer}".split()) in page
    assert "Gold reward against KL to SFT" in page and "DPO" in page
    assert json.loads((out / "demo/results.json").read_text())["summary"] == result["summary"]


def test_another_folder_or_other_settings_are_refused(toy, tmp_path):
    out, _ = toy
    with pytest.raises(UsageError, match="other settings"):
        align_demo(out / "demo", settings=SHORT, examples=toy_reviews())
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="holds no align-demo"):
        align_demo(tmp_path, settings=TOY, examples=toy_reviews())
    with pytest.raises(UsageError, match="dpo"):
        Settings(methods=("dpoo",))


def test_gold_is_the_same_after_saving(tmp_path):
    rows = [(e.source, e.target == "positive") for e in toy_reviews()["train"]]
    gold = Gold.fit(rows[:300], rows[300:])
    assert gold.facts["accuracy"] > 0.9
    gold.save(tmp_path / "gold.json")
    texts = ["the film was fine and warm", "dull plot"]
    assert Gold.load(tmp_path / "gold.json").logits(texts) == pytest.approx(gold.logits(texts))
    assert gold(["the film "], ["was fine"]) == pytest.approx(gold.logits(["the film was fine"]))
    assert gold.logits([texts[0]]) > 0 > gold.logits([texts[1]])
    with pytest.raises(DataError, match="one label"):
        Gold.fit([row for row in rows if row[1]], rows)
    (tmp_path / "gold.json").write_text("{")
    with pytest.raises(RunError, match=r"gold\.json"):
        Gold.load(tmp_path / "gold.json")


@pytest.mark.parametrize("n", [1, 2, 4])
def test_picking_equals_counting(n):
    from itertools import combinations

    drawn = [max(chosen) for chosen in combinations(range(6), n)]
    assert picking(6, n) == pytest.approx(np.bincount(drawn, minlength=6) / len(drawn))


@pytest.mark.parametrize("n", [2, 16])
def test_kl_of_best_of_n_equals_its_definition(n):
    """A model of 1,000 equal answers and a best one of probability e: KL by summing."""
    for e in (0.001, 0.3):
        p = np.array([*np.full(100_000, (1 - e) / 100_000), e])
        upto = np.cumsum(p)
        q = upto**n - np.concatenate([[0.0], upto[:-1]]) ** n
        expected = float(np.sum(q * np.log(q / p, where=q > 0, out=np.zeros_like(q))))
        assert float(kl_of_best(np.array([e]), n)[0]) == pytest.approx(expected, abs=1e-3)
    assert float(kl_of_best(np.array([0.0]), n)[0]) == pytest.approx(math.log(n) - (n - 1) / n, abs=1e-6)


def test_distinct_shares():
    found = distinct([[1, 1, 2], [1, 2]])
    assert found["distinct_1"] == 2 / 5 and found["distinct_2"] == 2 / 3
    assert found["distinct_1_within"] == pytest.approx((2 / 3 + 1) / 2) and found["distinct_2_within"] == 1


def test_pairs_of_a_ranking():
    answers = [{"text": t, "gold": g} for t, g in (("a", 3.0), ("b", 2.0), ("c", 1.0))]
    assert best_and_worst(answers) == [(answers[0], answers[2])] and best_and_worst(answers[:1]) == []
    assert len(all_pairs(answers)) == 3


def test_intervals_over_seeds_are_those_of_student():
    from scipy import stats

    points = tuple({"gold": g, "gold_interval": 9.0} for g in (1.0, 2.0, 4.0))
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    found = over_seeds(points)
    assert found["gold"] == pytest.approx(7 / 3) and found["gold_interval"] == pytest.approx((high - low) / 2)


def test_the_summary_names_the_best_point_that_is_still_varied():
    def point(gold: float, tokens: float, within: float) -> dict[str, float]:
        return {"gold": gold, "gold_interval": 0.2, "kl": gold, "distinct_1": tokens, "distinct_1_within": within}

    sft = point(0.0, 0.5, 0.9)
    points = [point(0.3, 0.5, 0.9), point(1.0, 0.46, 0.85), point(2.0, 0.44, 0.9), point(3.0, 0.5, 0.7)]
    found = summary(points, sft)
    assert found["varied"] == {**points[1], "gold_rose": True} and found["gold_rose"]
    assert summary(points[:1], sft)["varied"]["gold_rose"] is False  # intervals of 0.2 each meet
    assert summary(points[2:], sft)["varied"] is None
    assert found["distinct_kept"]["distinct_1_within"] == pytest.approx(0.7 / 0.9)


ALL = dataclasses.replace(
    TOY,
    methods=METHODS,
    budget=512,
    changes={
        **TOY.changes,
        "reward": ("training.steps=60", "training.learning_rate=1e-3", *SMALL),
        "ppo": ("training.steps=16", "training.checkpoint_every=8", "training.learning_rate=5e-4", *SMALL),
        "grpo": (
            "task.samples=4",
            "training.steps=16",
            "training.checkpoint_every=8",
            "training.learning_rate=1e-3",
            *SMALL,
            "training.batch_size=64",
        ),
        "rejection": ("training.steps=8", *SMALL),
    },
)


def test_every_method_works_against_the_same_reward_model(tmp_path):
    result = align_demo(tmp_path / "demo", seeds=1, settings=ALL, examples=toy_reviews())
    sft, methods = result["sft"], result["methods"]
    assert set(methods) == set(METHODS) == set(result["summary"])
    assert all(accuracy > 0.7 for accuracy in result["reward_accuracy"])
    for name in ("ppo", "grpo", "best-of-n"):
        assert methods[name][-1]["proxy"] > sft["proxy"] and methods[name][-1]["kl"] > 0
    best = methods["best-of-n"]
    assert [point["n"] for point in best] == [2, 4] and best[1]["proxy"] > best[0]["proxy"]
    assert all(point["kl"] <= point["kl_bound"] + 1e-9 for point in best)
    assert "what the reward model sees" in (tmp_path / "demo/index.html").read_text()


def test_every_method_of_the_full_form_generates_the_same_number_of_answers():
    def read(name):
        return tomllib.loads((RECIPES / f"{name}.toml").read_text())

    ppo, grpo = read("ppo"), read("grpo")
    size = ppo["training"]["batch_size"]
    assert ppo["training"]["steps"] // ppo["task"]["epochs"] * size == FULL.budget
    assert grpo["training"]["steps"] // grpo["task"]["updates"] * grpo["training"]["batch_size"] == FULL.budget


def test_the_loose_form_holds_the_models_less_and_changes_nothing_else(refused):  # noqa: F811
    for name, words in LOOSE.changes.items():
        (key, value), text = words[0].split("="), (RECIPES / f"{name}.toml").read_text()
        assert key == "task.beta" and float(value) < tomllib.loads(text)["task"]["beta"] / 2
    assert {**LOOSE.to_dict(), "changes": {}} == FULL.to_dict()
    refused("align-demo", "--short", "--loose", code=2, names=("--short", "--loose", "leave out"))


@pytest.mark.slow
def test_the_short_form_raises_the_gold_reward(tmp_path):
    result = align_demo(tmp_path / "demo", seeds=1, settings=SHORT)
    assert result["summary"]["dpo"]["gold_rose"]
