"""`glassformer chat`: one answer, or a conversation with commands."""

from __future__ import annotations

import json

import pytest
from play import PLAY
from toys import toy_model

from glassformer.hub import save
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.tasks.chats import CHAT_SPECIALS, TEMPLATES


@pytest.fixture
def chat(glassformer, tmp_path):
    """`chat(*options, lines=[...])` with a base model that reads 150 characters; the lines are typed, then /exit."""
    tokenizer = TOKENIZERS["characters"]([PLAY + "Q"])
    save(tmp_path / "model", toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=150), tokenizer)

    def call(*options, lines=(), end="/exit\n"):
        stdin = "".join(f"{line}\n" for line in lines) + end
        return glassformer("chat", tmp_path / "model", "-n", "6", *options, stdin=stdin.encode())

    return call


def test_one_message(chat):
    """It takes the most likely tokens whatever the seed; with a temperature the seed decides."""
    one = ("--message", "All:")
    result = chat(*one)
    assert (result.code, result.err) == (0, "") and result.out.endswith("\n") and len(result.out.strip()) > 2
    assert result.out == chat(*one, "--seed", "5").out == chat(*one, "--temperature", "0").out
    four, again, five = (chat(*one, "--temperature", "0.7", "--seed", seed).out for seed in (4, 4, 5))
    assert four == again != five


def test_a_conversation(chat, tmp_path):
    kept = tmp_path / "turns.json"
    lines = ["Speak,\\", "speak", "/why", f"/save {kept}", "/reset", f"/load {kept}", "/temperature 0", "/system All"]
    result = chat("--seed", "1", lines=[*lines, "/colors", "/what"])
    assert (result.code, result.err) == (0, "")
    assert "no chat template" in result.out and "150 tokens of context" in result.out
    assert json.loads(kept.read_text())["messages"][0] == {"role": "user", "content": "Speak,\nspeak"}
    for reply in ("the last token, ", "by the model", "all other tokens\n", "2 turns saved in", "started over\n",
                  "2 turns\n", "temperature 0\n", "over with this system text", "there is no command /what",
                  "/temperature T"):  # fmt: skip
        assert reply in result.out, reply


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature hot", "error: /temperature hot: give a number"),
        ("/temperature -1", "error: temperature=-1.0 is out of range"),
        ("/save", "error: /save needs the name of a file"),
        ("/load nowhere.json", "error: nowhere.json: not a saved chat ("),
        ("e" * 500, "error: the turn has 506 tokens with its surroundings, and the model reads 150"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_mistakes_do_not_end_the_conversation(chat, line, message):
    result = chat(lines=[line, "/reset"], end="")  # the end of the input ends it
    assert result.code == 0 and message in result.err and "started over" in result.out


@pytest.fixture
def assistant(glassformer, tmp_path):
    """`assistant(*options, lines=[...])` with a chat model whose template has a form for tools."""
    tokenizer = TOKENIZERS["bytes"]([], specials=CHAT_SPECIALS)
    tokenizer.chat_template = TEMPLATES["chatml"]
    save(tmp_path / "assistant", toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=2000), tokenizer)

    def call(*options, lines=()):
        stdin = "".join(f"{line}\n" for line in (*lines, "/exit"))
        return glassformer("chat", tmp_path / "assistant", "-n", "6", *options, stdin=stdin.encode())

    return call


def test_memories_are_listed_searched_and_deleted(assistant, tmp_path):
    options = ("--tool", "calculator", "--tool", "clock", "--memory", tmp_path / "memories")
    first = assistant(*options, lines=["My cat is called Minka.", "Good night.", "/tools"])
    assert (first.code, first.err) == (0, "")
    assert all(f"{name}: " in first.out for name in ("calculator", "clock", "recall"))
    second = assistant(*options, lines=["/memory", "/memory cats", "/forget 1", "/memory", "/forget x", "/forget all"])
    assert second.out.count("My cat is called Minka.") == 2 and second.out.count("Good night.") == 2
    assert "memory 1 deleted" in second.out and "1 memories deleted" in second.out
    assert second.err == "error: /forget needs the number of a memory (/memory lists them), or all\n"


def test_tools_need_a_template_that_shows_them(chat, assistant):
    for result in (chat("--tool", "clock", "-m", "Hi"), assistant("--tool", "clok", "-m", "Hi")):
        assert result.code == 2 and result.out == "" and len(result.err.splitlines()) == 1
    assert "did you mean clock" in result.err
    assert "start it with --memory FOLDER" in chat(lines=["/memory"]).err
