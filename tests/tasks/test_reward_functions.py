"""Reward functions: by name, as in TRL, and what they do wrong."""

import math
import sys

import pytest

from glassformer import plugins
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, UsageError
from glassformer.tasks.reward_functions import REWARDS, reward_function, rewards_of_rollouts
from glassformer.tasks.rollout_task import _prompt_row
from glassformer.tasks.rollouts import RollOut


def rollouts_of(*texts, chat=False, **columns):
    prompt = [{"role": "user", "content": "x"}] if chat else "x"
    return [
        RollOut(
            chat_row({"prompt": prompt, **{k: v[i] for k, v in columns.items()}}, f"file:{i}"), [1], [2], text, True
        )
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "answer", "reward"),
    [
        ("exact", " 12\n", 12, 1), ("exact", "12.", 12, 0), ("contains", "it is 12.", "12", 1),
        ("last_number", "3 + 9 = 1,012", 1012, 1), ("last_number", "9 or 12 of 13", 12, 0), ("last_number", "no", 1, 0),
    ],
)  # fmt: skip
def test_rewards_by_name(chat, name, text, answer, reward):
    found = rewards_of_rollouts(reward_function(name), rollouts_of(text, chat=chat, answer=[answer]), name)
    assert found.tolist() == [reward]


def test_a_function_gets_what_it_takes_as_in_trl():
    rollouts = rollouts_of("a", "bb", level=[1, 2], other=["u", "v"])
    assert rewards_of_rollouts(lambda completions, **columns: [*columns["level"]], rollouts).tolist() == [1, 2]
    assert rewards_of_rollouts(lambda prompts, level: [2.0 * x for x in level], rollouts).tolist() == [2, 4]
    assert rewards_of_rollouts(lambda completion_ids, kept=5: [kept, 0], rollouts).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda level: [1.0], "file:0 to file:2"),
        (lambda level: [1.0, math.nan, 0.0], "file:1"),
        (lambda level: [1.0, 0.0, "a"], "file:2"),
        (lambda level: [1.0, None, 0.0], "file:1"),
        (lambda level: [1 / (x - 7) for x in level], "file:2"),
        (lambda answer: [0.0] * 3, "file:0"),
        (REWARDS["exact"], "file:0"),
    ],
)
def test_what_a_reward_function_does_wrong_names_the_row(function, place):
    with pytest.raises(DataError) as caught:
        rewards_of_rollouts(function, rollouts_of("a", "b", "c", level=[5, 6, 7]), "it")
    assert str(caught.value).startswith(f"{place}: it ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["exakt", "no_such_module:f", "subprocess:getoutput", "own:no_such", "own:three", "bad:f"]
)
def test_a_reward_that_does_not_exist_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_asked", [])
    (tmp_path / "own.py").write_text("three = 3\ndef score(completions):\n    return [1.0] * len(completions)\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    assert reward_function("own:score")(completions="ab") == [1.0, 1.0]  # out of the current folder
    with pytest.raises(UsageError, match=r"task\.reward") as caught:
        reward_function(name)
    assert "\n" not in str(caught.value)


def test_rows_with_an_answer_are_prompts_whose_answer_the_reward_sees():
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    rows = [{"prompt": "a", "completion": "b"}, {"messages": said}, {"prompt": "a", "completion": "b", "answer": 3}]
    found = [_prompt_row(chat_row(row, "")) for row in rows]
    assert [(row.prompt, row.columns, row.answers) for row in found] == [
        ("a", {"answer": "b"}, ()), (said[:1], {"answer": "yes"}, ()), ("a", {"answer": 3}, ()),
    ]  # fmt: skip
    with pytest.raises(DataError, match="p:1"):
        _prompt_row(chat_row({"prompt": "a", "chosen": "b", "rejected": "c"}, "p:1"))
