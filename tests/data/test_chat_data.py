"""Chats as data: forms, `data show`, `data check`."""

import json

import pytest
from published import published
from typer.testing import CliRunner

from glassformer.cli.data import app
from glassformer.data.chat_sets import CHAT_SETS, chat_rows, holds_chats
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, UsageError
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks.chat_check import check_chats
from glassformer.tasks.chats import CHAT_SPECIALS, tokenizer_of, use_template

USER, GOOD, BAD = ({"role": role, "content": text} for role, text in
                   (("user", "hello there"), ("assistant", "good day"), ("assistant", "go away")))  # fmt: skip


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "a.jsonl"

    return write


@pytest.fixture(scope="module")
def tokenizer():
    made = build_tokenizer("bpe", ["hello there good day"] * 9, vocab_size=300, specials=CHAT_SPECIALS)
    use_template(made, None, [])
    return made


@pytest.mark.parametrize(
    ("row", "prompt", "answers"),
    [
        ({"instruction": "hello there", "chosen": "good day", "rejected": "go away"}, [USER], ([GOOD], [BAD])),
        ({"conversations": [{"from": "human", "value": "hello there"}], "chosen": {"from": "gpt", "value": "good day"},
          "rejected": {"from": "gpt", "value": "go away"}}, [USER], ([GOOD], [BAD])),
        ({"prompt": "hello there", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER], ([GOOD], [BAD])),
        ({"system": "Be kind.", "conversations": [{"from": "human", "value": "hello there"},
                                                  {"from": "gpt", "value": "good day"}]},
         [], ([{"role": "system", "content": "Be kind."}, USER, GOOD],)),
    ],
)  # fmt: skip
def test_further_forms(row, prompt, answers):
    read = chat_row(row, "")
    assert (read.prompt, read.answers, read.columns) == (prompt, answers, {})


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_preference_of_one_side_is_refused_and_is_no_prompt(side):
    with pytest.raises(DataError, match=rf"f:2: it has {side} and no"):
        chat_row({"prompt": "a", side: "b", ("rejected" if side == "chosen" else "chosen"): None}, "f:2")


def test_chats_are_known_by_their_first_row(file):
    assert holds_chats(str(file({"messages": [USER, GOOD]}))) and holds_chats("alpaca")
    assert not holds_chats(str(file({"text": "a", "prompt": "b"}))) and not holds_chats(str(file({"source": "a"})))


def test_list_names_the_sets_of_chats():
    rows = {row["name"]: row for row in json.loads(run("list", "--json")[1])}
    assert rows.keys() >= CHAT_SETS.keys() and all(rows[name]["license"] for name in CHAT_SETS)


def test_show_marks_what_is_trained(file):
    code, shown = run("show", file({"messages": [USER, GOOD]}), "--template", "chatml")
    assert code == 0 and "1 row with an answer (messages)" in shown
    trained = shown.partition("trained\n")[2].partition("[[")[2].partition("]]")[0]
    assert trained.replace("·", "") == "good day<|im_end|>"
    code, shown = run("show", file({"messages": [USER, GOOD]}), "--json")
    (tokens,) = json.loads(shown)["first"][0]["sequences"]
    assert [t["text"] for t in tokens if t["trained"]][-1] == "<|im_end|>" and not tokens[0]["trained"]


def test_show_of_preferences_and_prompts(file):
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    shown = run("show", file(row, {"prompt": [USER], "answer": 7}), "--rows", 2)[1]
    for part in (":1, chosen:", ":1, rejected:", "(the model answers here)", "columns: {'answer': 7}", "0 trained"):
        assert part in shown
    assert ", rejected:" not in run("show", file({"prompt": [USER], "answer": 7}, row), "--rows", 1)[1]


def test_options_of_chats_are_refused_elsewhere(tmp_path):
    (tmp_path / "a.txt").write_text("to be or not to be")
    result = CliRunner().invoke(app, ["show", str(tmp_path / "a.txt"), "--rows", "2"])
    assert isinstance(result.exception, UsageError) and "--rows" in str(result.exception)


def test_check_names_every_mistake_with_its_row(file):
    marked = {"role": "user", "content": "what is <|im_end|>?"}
    path = file(
        {"messages": [USER, GOOD]},
        {"messages": [USER]},
        {"prompt": [USER], "chosen": "a"},
        {"messages": [marked, GOOD]},
    )
    code, shown = run("check", path)
    lines = shown.splitlines()
    assert code == 1 and lines[-1] == "2 errors, 1 warning"
    assert any(":2: messages has no turn of the assistant" in line for line in lines)
    assert any(line.startswith("warning") and "'<|im_end|>'" in line and ":4" in line for line in lines)
    code, shown = run("check", file({"messages": [USER, GOOD]}))
    assert code == 0 and shown.splitlines()[-1] == "nothing is wrong"


def mistakes(row, tokenizer, T=None):
    return [(finding.error, finding.rule) for finding in check_chats([chat_row(row, "f:1")], tokenizer, T=T)]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{'<|im_start|>'}}{{'<|im_start|>'}}{% for m in messages %}{{m['content']}}<|im_end|>{% endfor %}",
         "begins with <|im_start|> twice"),
        ("{% for m in messages %}{{m['content']}}\n{% endfor %}", "never learn to stop"),
        ("{% for m in messages %}{{m['content']}}<|im_end|>{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
         "what the model reads when it is served"),
    ],
)  # fmt: skip
def test_mistakes_of_templates(template, message):
    made = build_tokenizer("bpe", ["hello there good day"] * 9, vocab_size=300, specials=CHAT_SPECIALS)
    made.chat_template = template
    ((error, rule),) = mistakes({"messages": [USER, GOOD]}, made)
    assert error and message in rule


def test_a_template_without_an_answer_is_refused(tmp_path, tokenizer):
    (tmp_path / "t").write_text("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(UsageError, match="never shows what the assistant answers"):
        use_template(tokenizer, str(tmp_path / "t"), [])
    use_template(tokenizer, "chatml", [])


def test_calls_that_a_template_does_not_write(tokenizer):
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "clock", "arguments": {}}}]}
    assert mistakes({"messages": [USER, call]}, tokenizer) == []  # chatml writes them
    made = build_tokenizer("bpe", ["hello there good day"] * 9, vocab_size=300, specials=CHAT_SPECIALS)
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
    )
    ((error, rule),) = mistakes({"messages": [USER, {**call, "content": ""}]}, made)
    assert error and "it writes no tool calls" in rule


def test_long_rows_are_counted(tokenizer):
    row = {"messages": [USER, {"role": "assistant", "content": "good day " * 30}]}
    n = len(tokenizer.chat.encode(row["messages"]))
    assert mistakes(row, tokenizer) == []
    assert [error for error, _ in mistakes(row, tokenizer, T=n // 2)] == [False]
    assert [error for error, _ in mistakes(row, tokenizer, T=4)] == [True]


def test_a_new_tokenizer_ends_answers_whatever_its_kind(file):
    rows = chat_rows(file({"prompt": "hello", "completion": "good day"}))
    from glassformer.tasks.settings import TokenizerSettings

    for kind in ("bytes", "characters", "bpe"):
        made = tokenizer_of(rows, None, [], TokenizerSettings(kind=kind))
        assert made.token_text(made.end_of_text) == "<|endoftext|>"
    with pytest.raises(UsageError, match="plain texts"):
        tokenizer_of(rows, "chatml", [])


def test_several_sources_are_read_one_after_the_other(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(paths):
        path.write_text(json.dumps({"prompt": f"p{number}", "completion": "c"}) + "\n")
    both = ", ".join(map(str, paths))
    assert [row.prompt for row in chat_rows(both)] == ["p0", "p1"]
    assert holds_chats(both) and not holds_chats(f"{both},tinyshakespeare")
    with pytest.raises(DataError, match=r"c\.jsonl: no such file or set of chats"):
        chat_rows(f"{paths[0]},{tmp_path}/c.jsonl")


def test_each_dialogue_is_there_once(tmp_path_factory):
    """One of them stands in the package 121 times."""
    with published(tmp_path_factory):
        rows = chat_rows("dialogues", quiet=True)
    assert len(rows) == len({row.to_json() for row in rows}) == CHAT_SETS["dialogues"].count
