"""`glassformer lesson` and `glassformer lessons`, and the table's statistics."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys

import pytest
import torch
from command_line import RUN
from play import PLAY

from glassformer.lessons import lesson_7_layernorm, table
from glassformer.lessons.runner import LESSONS, LiveLoss, words_of


def test_the_list_needs_no_torch():
    program = f"import sys; sys.argv = ['', 'lessons']; {RUN.split(';', 1)[1].replace('main()', '')}"
    check = "\ntry:\n    main()\nfinally:\n    print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert [line.split()[0] for line in lines[:10]] == [str(n) for n in range(1, 11)]


def test_the_list_for_machines(glassformer):
    listed = json.loads(glassformer("lessons", "--json").out)
    assert [entry["lesson"] for entry in listed] == list(LESSONS)
    assert all(
        entry["title"] and entry["idea"] and entry["change"] and entry["file"].endswith(".py") for entry in listed
    )


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_lesson(glassformer, play, number):
    result = glassformer("lesson", number, "--steps", 20, "--data", play)
    assert (result.code, result.err) == (0, "")
    words = words_of(number)
    assert result.out.startswith(f"Lesson {number}: {words.title}\n\n{words.idea}\n\n{words.change}\n")
    trained = 2 if number == 6 else 1
    assert len(re.findall(r"^step \d+ of 20: training loss \d\.\d{3}$", result.out, re.MULTILINE)) == 10 * trained
    assert len(re.findall(r"validation loss \d\.\d{4} after 20 steps", result.out)) == trained
    assert result.out.endswith(f"the code: {LESSONS[number]}\n")
    assert result.out == glassformer("lesson", number, "--steps", 20, "--data", play).out
    assert result.out != glassformer("lesson", number, "--steps", 20, "--data", play, "--seed", 2).out


def test_the_scaled_lesson_and_its_twins(glassformer, play, small_lesson_8):
    scaled = glassformer("lesson", 8, "--steps", 3, "--data", play)
    assert (scaled.code, scaled.err) == (0, "") and "after 3 steps" in scaled.out
    ninth = glassformer("lesson", 9, "--steps", 1, "--data", play)
    assert (ninth.code, ninth.err) == (0, "")
    differences = re.findall(r"largest difference is (\S+)", ninth.out)
    assert len(differences) == 2 and max(map(float, differences)) < 1e-5
    assert "the two samples are the same" in ninth.out


def test_the_lines_that_changed(glassformer):
    lines = glassformer("lesson", 4, "--diff").out.splitlines()
    assert lines[:2] == ["--- lesson_3_head.py", "+++ lesson_4_heads.py"]
    assert "+class MultiHeadAttention(nn.Module):" in lines and "-        self.head = Head(N_EMBD)" in lines
    assert len(lines) < 45 and not any("def train" in line for line in lines)
    assert glassformer("lesson", 1, "--diff").out.strip() == ""
    towers = glassformer("lesson", 10, "--diff").out.splitlines()
    assert towers[:2] == ["--- lesson_8_scaled.py", "+++ lesson_10_translation.py"]
    assert any("self.cross_attention(self.cross_norm(x), side, padding)" in line for line in towers)


BAD_INPUT = [
    (["lesson", 11], 2, ["there is no lesson 11", "1 to 10"]),
    (["lesson", 0, "--diff"], 2, ["there is no lesson 0", "1 to 10"]),
    (["lesson", 3, "--steps", -1], 2, ["--steps"]),
    (["lessons", "--seeds", 3], 2, ["--table"]),
    (["lessons", "--table", "--seeds", 11], 2, ["--seeds"]),
    (["lesson", 3, "--data", "none.txt"], 1, ["none.txt", "no such file"]),
    (["lesson", 3, "--data", "."], 1, ["is a directory"]),
    (["lesson", 3, "--data", "image.png"], 1, ["image.png", "not UTF-8"]),
    (["lesson", 10, "--data", "short.txt"], 1, ["0 usable pairs", "French"]),
    (["lesson", 3, "--data", "short.txt"], 1, ["20 characters", "90 characters or more"]),
    (["lessons", "--table", "--data", "short.txt"], 1, ["20 characters", "90 characters or more"]),
    (["lesson", 9, "--data", "strange.txt"], 1, ["400 different characters", "at most 48"]),
]


@pytest.mark.parametrize(("words", "code", "names"), BAD_INPUT)
def test_bad_input_is_one_line(words, code, names, glassformer, tmp_path, small_lesson_8):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "short.txt").write_text("To be, or not to be.")
    (tmp_path / "strange.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 400))), encoding="utf-8")
    result = glassformer(*words)
    assert result.code == code and "Traceback" not in result.out
    assert len(result.err.splitlines()) == 1 and all(name in result.err for name in names), result.err


def test_the_table(glassformer, play, small_lesson_8):
    arguments = ("lessons", "--table", "--steps", 3, "--seeds", 2, "--scaled-steps", 1, "--data", play)
    result = glassformer(*arguments)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == table.HEAD and len(lines) == len(table.RUNGS) + 3
    for line, rung in zip(lines[1:], table.RUNGS, strict=False):
        assert line.startswith(rung.name) and rung.lecture in line and len(line) <= len(table.HEAD)
    assert "2 seeds" in lines[-1]

    rows = {row["rung"]: row for row in json.loads(glassformer(*arguments, "--json").out)["rungs"]}
    assert list(rows) == [rung.name for rung in table.RUNGS]
    assert [row["steps"] for row in rows.values()] == [0, *[3] * 8, 1]
    assert [len(row["losses"]) for row in rows.values()] == [*[2] * 9, 1]
    assert rows["random table"]["parameters"] == len(set(PLAY)) ** 2
    for row in rows.values():
        assert row["mean"] == pytest.approx(statistics.fmean(row["losses"]))
        if row["against"]:
            before = rows[row["against"]]["losses"]
            pairs = [a - b for a, b in zip(row["losses"], before, strict=False)]
            assert row["difference"] == pytest.approx(statistics.fmean(pairs))
    assert rows[table.SCALED]["interval"] is None  # one seed shows nothing of others


def test_a_row_is_what_its_lesson_trains(play_ids):
    """The rung of lesson 7, once more by hand."""
    training, validation, vocab_size = play_ids
    row = next(row for row in table.climb(PLAY, [3, 4], steps=2, quiet=True) if row.rung.lesson == 7)
    torch.manual_seed(4)
    model = lesson_7_layernorm.LanguageModel(vocab_size)
    lesson_7_layernorm.train(model, training, 2, 4)
    assert row.losses[1] == lesson_7_layernorm.evaluate(model, validation)
    assert row.parameters == sum(p.numel() for p in model.parameters())


def test_the_interval_is_students():
    mean, interval = table.paired_difference([2.0, 2.1, 2.3], [2.2, 2.2, 2.4])
    assert (mean, interval) == pytest.approx((-0.4 / 3, 4.3027 * math.sqrt(1 / 300) / math.sqrt(3)), rel=1e-4)
    assert table.paired_difference([2.0], [2.5]) == (-0.5, math.inf)


def test_the_live_loss_is_a_mean_of_the_last_ones(capsys):
    live = LiveLoss(40)
    for step in range(1, 41):
        live(step, 4.0 if step <= 20 else 2.0)
    shown = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(shown) == 10 and shown[4] == 4.0
    assert shown[-1] == pytest.approx(2 + 2 * 0.95**20, abs=5e-4)
