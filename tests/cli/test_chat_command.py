"""`glassformer chat`: one answer, or a talk whose commands do what they say."""

from __future__ import annotations

import json

import pytest
from play import PLAY
from toys import toy_model

from glassformer.hub import save
from glassformer.processors.tokenizers import TOKENIZERS


@pytest.fixture
def model(tmp_path):
    """A base model that reads 150 characters."""
    tokenizer = TOKENIZERS["characters"]([PLAY + "Q"])
    save(tmp_path / "model", toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=150), tokenizer)
    return tmp_path / "model"


def typed(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_one_message(glassformer, model):
    """Asked once, it answers with its most likely tokens, whatever the seed; with a temperature the seed decides."""
    one = ("chat", model, "--message", "All:", "-n", "12")
    result = glassformer(*one)
    assert (result.code, result.err) == (0, "") and result.out.endswith("\n")
    assert result.out == glassformer(*one, "--seed", "5").out == glassformer(*one, "--temperature", "0").out
    drawn = glassformer(*one, "--temperature", "0.7", "--seed", "4").out
    assert drawn == glassformer(*one, "--temperature", "0.7", "--seed", "4").out
    assert drawn != glassformer(*one, "--temperature", "0.7", "--seed", "5").out
    assert len(result.out.strip()) > 5


def test_a_talk(glassformer, model, tmp_path):
    kept = tmp_path / "talk.json"
    lines = ["Speak", "/why", f"/save {kept}", "/reset", f"/load {kept}", "/temperature 0", "/system All", "/colors"]
    result = glassformer("chat", model, "--seed", "1", "-n", "6", stdin=typed(*lines, "/exit"))
    assert (result.code, result.err) == (0, "")
    shown = result.out.splitlines()
    assert "no chat template: turns are laid out as plain text, 150 tokens of context" in shown[0]
    assert any("the last token, " in line and "by the model" in line for line in shown)
    assert any(line.strip().endswith("all other tokens") for line in shown)
    assert json.loads(kept.read_text())["messages"][0] == {"role": "user", "content": "Speak"}
    for reply in ("2 turns saved in", "started over", "2 turns", "temperature 0", "over with this system text"):
        assert any(reply in line for line in shown), reply


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature hot", "error: /temperature hot: give a number, for example /temperature 0.7"),
        ("/temperature -1", "error: temperature=-1.0 is out of range; use 0 (most likely token) or more"),
        ("/save", "error: /save needs the name of a file"),
        ("/load nowhere.json", "error: nowhere.json: no saved chat ("),
        ("e" * 500, "error: the turn has 506 tokens with its surroundings, and the model reads 150"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_mistakes_do_not_end_the_talk(glassformer, model, line, message):
    result = glassformer("chat", model, "-n", "3", stdin=typed(line, "/reset", "/exit"))
    assert result.code == 0 and message in result.err
    assert "started over" in result.out


def test_unknown_commands_list_the_known_ones(glassformer, model):
    result = glassformer("chat", model, stdin=typed("/what", "/exit"))
    assert "there is no command /what" in result.out and "/temperature T" in result.out


def test_the_end_of_the_keyboard_ends_the_talk(glassformer, model):
    assert glassformer("chat", model, stdin=typed("/reset")).code == 0


def test_a_line_may_go_on_in_the_next_one(glassformer, model, tmp_path):
    kept = tmp_path / "talk.json"
    glassformer("chat", model, "-n", "3", stdin=typed("Speak,\\", "speak", f"/save {kept}", "/exit"))
    assert json.loads(kept.read_text())["messages"][0]["content"] == "Speak,\nspeak"
