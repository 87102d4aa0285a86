"""Generated sums, scratchpads, and exact matches by group."""

import json
import random
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from glassformer import recipes
from glassformer.data.addition import addition, steps_of_sum
from glassformer.data.chat_sets import CHAT_SETS, ChatSet
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, UsageError
from glassformer.generation import Chat, Sampling
from glassformer.generation.tools import Tool, ToolUse
from glassformer.hub import load
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.recipes.opening import open_run
from glassformer.scratchpad import answer_of, scratchpads_of
from glassformer.tasks import exact_match
from glassformer.tasks.chats import CHAT_SPECIALS, chat_sequences, tokenizer_of, use_template
from glassformer.tasks.rollouts import RollOut
from glassformer.tasks.sft import SFTSettings
from glassformer.training import RunFolder, write_report


def test_written_out_sums_are_right():
    rng = random.Random(2)
    for _ in range(300):
        a, b = rng.randrange(10**7), rng.randrange(10**7)
        steps = [step.split("=") for step in steps_of_sum(a, b).split(",")]
        assert all(sum(map(int, left.split("+"))) == int(right) for left, right in steps)
        carries = [0, *(int(right[0]) for _, right in steps)]
        assert [int(left.split("+")[2]) for left, _ in steps] == carries[:-1]
        assert int("".join([str(carries[-1]), *(right[1] for _, right in reversed(steps))])) == a + b


def test_the_two_sets_hold_the_same_sums_and_no_sum_twice():
    plain, written = (addition(scratchpad=pad, train=400, held_out=20) for pad in (False, True))
    assert [row.prompt for row in plain] == [row.prompt for row in written]
    assert len({row.prompt for row in plain}) == len(plain)
    assert plain == addition(scratchpad=False, train=400, held_out=20)
    for one, other in zip(plain, written, strict=True):
        a, b = map(int, one.prompt.rstrip("=").split("+"))
        assert one.answers[0] == one.columns["answer"] == str(a + b) == answer_of(other.answers[0])
        assert scratchpads_of(other.answers[0]) == [steps_of_sum(a, b)]
        assert len(str(a)) == len(str(b)) == one.columns["digits"]
    test = [row.columns["digits"] for row in plain if row.split == "test"]
    assert [test.count(n) for n in range(1, 13)] == [2, *[20] * 11]


def test_sums_by_columns_are_all_sums_of_two_digits():
    rows = CHAT_SETS["addition-columns"].read()
    assert len({row.prompt for row in rows}) == len(rows) == 8100 == CHAT_SETS["addition-columns"].count
    for row in rows:
        a, b = map(int, row.prompt.rstrip("=").split("+"))
        ones = a % 10 + b % 10
        assert row.answers == (f"{ones:02},{a // 10 + b // 10 + ones // 10:02}>{a + b}",)
        assert row.columns["answer"] == str(a + b)


def test_counts_of_the_named_sets():
    rows = CHAT_SETS["addition-plain"].read()
    assert len(rows) == CHAT_SETS["addition-plain"].count
    assert sum(row.columns["digits"] == 1 for row in rows) <= 100


ROWS = [
    chat_row({"prompt": "1+1=", "answer": 2, "digits": 1}, "row 1"),
    chat_row({"prompt": "2+2=", "answer": 4, "digits": 1}, "row 2"),
    chat_row({"prompt": "10+10=", "answer": 20, "digits": 2}, "row 3"),
    chat_row({"prompt": "1" * 40, "answer": 2, "digits": 40}, "row 4"),
]


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Decoder(ModelConfig(vocab_size=257, block_size=16, n_layer=1, n_head=2, n_embd=6)).eval()


def test_matches_are_counted_by_group(model, monkeypatch):
    """Answers that are given: right, right after a scratchpad, wrong; a prompt that does not fit is wrong."""
    texts = ["2", "<scratchpad>2+2=4</scratchpad>4\n", "<scratchpad>20"]

    def answered(model, tokenizer, prompts, **settings):
        assert settings["temperature"] == 0.0
        return [RollOut(row, ids, [], text, True) for (row, ids), text in zip(prompts, texts, strict=True)]

    monkeypatch.setattr(exact_match, "roll_out", answered)
    tokenizer = build_tokenizer("bytes", [])
    found = exact_match.exact_matches(model, tokenizer, ROWS, answer="answer", group_by="digits")
    assert found.groups == {"digits 1": (2, 2), "digits 2": (0, 1), "digits 40": (0, 1), "all": (2, 4)}
    share = found.to_dict()["exact_match"]["all"]
    assert (share["share"], share["n"]) == (0.5, 4) and share["low"] == pytest.approx(0.15, abs=0.01)  # Wilson
    assert len(found.lines()) == 4
    (chart,) = found.figures()
    assert chart.x_labels == ["1", "2", "40"] and chart.x_axis == "digits" and list(chart.lines[0].y) == [1, 0, 0]
    assert chart.lines[0].low[0] == pytest.approx(0.34, abs=0.01) and chart.lines[0].high[0] == 1.0  # Wilson, 2 of 2


@pytest.mark.parametrize(("compare", "right"), [("exact", 1), ("last_number", 2), ("contains", 3)])
def test_answers_are_compared_as_the_recipe_says(compare, right, model, monkeypatch):
    """Sums by columns: the answer is the number after the carries."""
    texts = ["2", "04>4", "20,0>7"]
    monkeypatch.setattr(
        exact_match,
        "roll_out",
        lambda m, t, prompts, **s: [RollOut(r, i, [], x, True) for (r, i), x in zip(prompts, texts, strict=True)],
    )
    found = exact_match.exact_matches(model, build_tokenizer("bytes", []), ROWS, answer="answer", compare=compare)
    assert found.groups == {"all": (right, 4)}


def test_the_recipe_of_distillation_counts_right_answers(glassformer, refused, tmp_path):
    small = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=2", "training.warmup_steps=1"]
    words = ["train", "addition-distill", *small, "--quiet", "--out"]
    refused(*words, "run", code=2, names=["task.teacher", "runs/addition-teacher", "glassformer train"])
    recipes.train("addition-sft", small, out=tmp_path / "teacher", log=lambda line: None)
    assert glassformer(*words, tmp_path / "run", f"task.teacher={tmp_path / 'teacher'}").code == 0
    found = glassformer("evaluate", tmp_path / "run", "--split", "validation")
    assert found.code == 0 and "exact match, all: 0.0 %" in found.out


def test_a_missing_column_is_named(model):
    with pytest.raises(DataError, match=r"row 1.*'answr'.*answer"):
        exact_match.exact_matches(model, build_tokenizer("bytes", []), ROWS, answer="answr")


def test_the_recipe_at_toy_size_counts_by_digits(glassformer, refused, tmp_path, monkeypatch):
    few = partial(addition, scratchpad=True, train=64, held_out=2)
    monkeypatch.setitem(CHAT_SETS, "addition-scratchpad", ChatSet("addition-scratchpad", "", 64, None, few))
    small = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=2", "training.batch_size=8"]
    small += ["training.eval_batches=1", "training.warmup_steps=1", "training.sample_every=2"]
    run = recipes.train("addition-scratchpad", small, out=tmp_path / "run", log=lambda line: None)
    model, task = open_run(run.path)
    found = task.extra_scores(model, "test")
    assert found.groups == {**{f"digits {n}": (0, 2) for n in range(2, 13)}, "all": (0, 22)}
    assert "Exact matches by digits" in write_report(RunFolder.open(run.path)).read_text()
    words = ["evaluate", run.path, "--split", "test", "--beside", tmp_path / "other"]
    shutil.copytree(run.path, tmp_path / "other")
    glassformer(*words, "--plot", tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    assert all(name in drawn for name in ("digits", ">run<", ">other<"))
    refused(*words, code=2, names=["--beside", "--plot"])


def test_groups_without_right_answers_are_refused():
    with pytest.raises(UsageError, match=r"task\.group_by=digits.*task\.answer"):
        SFTSettings.make(group_by="digits")
    with pytest.raises(UsageError, match=r"task\.compare=last_number.*task\.answer"):
        SFTSettings.make(compare="last_number")


@pytest.mark.parametrize("template", ["chatml", "plain"])
def test_calls_are_trained_and_results_are_only_read(template):
    """A row with a call: the call and the answer are trained, tools and result are not; what stands before each is what
    the chat gives the model."""
    tokenizer = build_tokenizer("bytes", [], specials=CHAT_SPECIALS)
    use_template(tokenizer, template, [])
    function = {"name": "calculator", "arguments": {"expression": "12*34"}}
    turns = [
        {"role": "user", "content": "What is 12*34?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "408"},
        {"role": "assistant", "content": "It is 408."},
    ]
    row = chat_row({"messages": turns, "tools": [{"type": "function", "function": {"name": "calculator"}}]}, "row")
    (sequence,) = chat_sequences(tokenizer, row, row.answers[0])
    spans = np.split(np.arange(len(sequence.ids)), np.flatnonzero(np.diff(sequence.trained)) + 1)
    trained = [tokenizer.decode(sequence.ids[span]) for span in spans if sequence.trained[span[0]]]
    end = {"chatml": "<|im_end|>", "plain": "<|endoftext|>"}[template]
    written = '<tool_call>{"name": "calculator", "arguments": {"expression": "12*34"}}</tool_call>'
    assert trained == [written + end, "It is 408." + end]
    last = int(np.flatnonzero(np.diff(sequence.trained.astype(int)) == 1)[-1]) + 1
    assert sequence.ids[:last].tolist() == tokenizer.chat.encode(turns[:3], tools=row.tools)
    assert "408" in tokenizer.decode(sequence.ids[spans[2]]), "the result is read"


SHORT = (
    "{% if tools %}{{ tools | length }}{{ tools[0]['function']['name'] }}{% endif %}{% for m in messages %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% for c in m['tool_calls'] %}@{{ c['function'] | tojson }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def test_a_model_that_learned_calls_calls_the_tool(tmp_path):
    """From rows to an answer: two questions are learned by heart, with their calls; the results come from the tool,
    which gives another one than the rows have."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{a}+{b}?"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"type": "function", "function": {"name": "add", "arguments": {"a": a, "b": b}}}]},
                {"role": "tool", "content": "?"},
                {"role": "assistant", "content": "done"},
            ],
            "tools": [Tool.of(add).schema["function"]],
            "split": split,
        }
        for split in ("train", "validation", "test") for a, b in ((2, 3), (5, 1))
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "short.jinja").write_text(SHORT)
    settings = [f"data.source={tmp_path}/rows.jsonl", "task.kind=sft", f"task.template={tmp_path}/short.jinja"]
    settings += ["tokenizer.kind=bytes", "model.n_layer=1", "model.n_embd=48", "model.n_head=2", "model.block_size=250"]
    settings += ["training.steps=150", "training.batch_size=2", "training.learning_rate=5e-3", "training.dropout=0"]
    run = recipes.train(None, settings, out=tmp_path / "run", log=lambda line: None)
    chat = Chat(*load(run.path), tools=[add], sampling=Sampling(temperature=0), max_new_tokens=60)
    items = list(chat.ask("2+3?"))
    assert [item for item in items if isinstance(item, ToolUse)] == [ToolUse("add", {"a": 2, "b": 3}, "5")]
    assert "".join(item.text for item in items if not isinstance(item, ToolUse)) == "done"


def test_rows_with_tools_need_a_template_that_shows_them(tmp_path):
    bare = tmp_path / "bare.jinja"
    bare.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    row = chat_row({"messages": turns, "tools": [{"name": "add"}]}, "rows.jsonl:1")
    assert row.tools == [{"type": "function", "function": {"name": "add"}}]
    with pytest.raises(UsageError, match=r"rows\.jsonl:1 has tools.*no form for tools"):
        tokenizer_of([row], str(bare), [])
