"""Recipe files that are missing, damaged or something else; folders that cannot take a run."""

from __future__ import annotations

import re
import tempfile

import pytest
from command_line import TINY, files

from glassformer.recipes import builtin_recipes

FILES = [
    ("bad.toml", b"[model\nn_layer = 2\n", "bad.toml is no recipe (not TOML: expected ']' at the end of a table "
     "declaration (at line 1, column 7)); mend it"),
    ("bytes.toml", b"\xff\x80", "bytes.toml is no recipe (not UTF-8 text); mend it"),
    ("section.toml", b"[modle]\nn_layer = 2\n", "section.toml: unknown key modle; did you mean model?"),
    ("key.toml", b"[model]\nn_layers = 2\n", "key.toml: unknown key model.n_layers; did you mean n_layer?"),
    ("bare.toml", b"n_layer = 2\n", "bare.toml: unknown key n_layer; did you mean model.n_layer?"),
    ("value.toml", b"[model]\nn_layer = 'two'\n",
     "value.toml: model.n_layer='two' is not a whole number; give one, for example model.n_layer=4"),
    ("number.toml", b"model = 3\n",
     "number.toml: model=3 is one value where a table is needed: a line [model], and below it a line for each key"),
    ("name.toml", b"name = 3\n", "name.toml: name=3 is not a text; put it in quotes"),
    ("book.txt", b"Call me Ishmael.\n", "book.txt is no recipe (not TOML: expected '=' after a key in a key/value pair "
     "(at line 1, column 6)); to train on it as a text: glassformer train --data book.txt"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line"), FILES, ids=[file[0] for file in FILES])
def test_a_file_that_is_no_recipe(refused, play, tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    refused("train", name, "--data", "play.txt", code=2, line=line)
    refused("train", name, "model.n_layer=2", "--data", "play.txt", code=2, line=line)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("shakespear-char", "there is no recipe 'shakespear-char'; did you mean shakespeare-char?"),
        ("mien.toml", "there is no recipe 'mien.toml'; did you mean mine.toml?"),
        ("zzz", f"there is no recipe 'zzz'; known: {', '.join(builtin_recipes())}"),
        ("recipes", "recipes is a folder, not a recipe; to train on the texts in it: glassformer train --data recipes"),
    ],
)
def test_a_recipe_that_is_not_there(refused, tmp_path, name, line):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "mine.toml").write_text("[model]\nn_layer = 2\n")
    refused("train", name, code=2, line=line)
    refused("recipes", "show", name, code=2, line=line)


def test_two_recipes(refused, play):
    refused("train", "shakespeare-char", "other.toml", "--data", "play.txt", code=2,
            line="'other.toml' is not of the form section.key=value; for example training.steps=500")  # fmt: skip


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("runs/finished", "runs/finished already holds a run; continue it: glassformer resume runs/finished, or choose "
         "another folder with --out"),
        ("runs", "runs is not empty and holds no run; choose another folder with --out"),
        ("play.txt", "play.txt: this is a file, and a folder is needed; choose another path"),
        ("play.txt/run", "play.txt/run: this is a file, and a folder is needed; choose another path"),
        ("/proc/run", "/proc/run: no folder can be made there; choose another place with --out"),
        ("x" * 300, "x" * 300 + ": not a usable name (File name too long); choose another one"),
    ],
    ids=["a run", "other things", "a file", "below a file", "proc", "a long name"],
)  # fmt: skip
def test_a_place_where_nothing_can_be_written(refused, play, finished, out, line):
    refused("train", *TINY, "--data", "play.txt", "--out", out, code=1, line=line)


def test_a_cache_that_cannot_be_written(glassformer, play, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSFORMER_CACHE", "play.txt/cache")
    result = glassformer("train", *TINY, "--data", "play.txt", "--out", "run")
    line = r"error: play\.txt/cache/stores/[0-9a-f]+: this is a file, and a folder is needed; choose another path\n"
    assert re.fullmatch(line, result.err)
    assert (result.code, result.out, list(files(tmp_path))) == (1, "", ["play.txt"])


@pytest.mark.parametrize(
    ("command", "path", "line"),
    [
        ("resume", "runs/finnished", "runs/finnished holds no run (no recipe.toml); did you mean runs/finished?"),
        ("resume", "play.txt", "play.txt holds no run (no recipe.toml); start one with: glassformer train"),
        ("resume", "runs/finished", "runs/finished is finished (13 steps); try it: glassformer generate "
         "runs/finished, or train on: glassformer resume runs/finished training.steps=26"),
        ("generate", "runs/finnished", "runs/finnished: there is no such run or model folder; did you mean "
         "runs/finished?"),
        ("generate", "nowhere/run", "nowhere/run: there is no such run or model folder; train one first: glassformer "
         "train shakespeare-fast"),
        ("generate", "play.txt", "play.txt: this file is no run, model folder or .gguf file; run: glassformer import "
         "play.txt"),
        ("generate", "runs", "runs: holds several runs, name one of them: runs/finished"),
        ("evaluate", "runs/finnished", "runs/finnished: there is no such run or model folder; did you mean "
         "runs/finished?"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_there(refused, play, finished, command, path, line):
    refused(command, path, code=1, line=line)


def test_a_read_only_folder(refused, play, tmp_path, monkeypatch):
    """As root every folder is writable, so the refusal comes from a stand-in for the call that asks the system."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    line = "run: the folder is not writable; choose another place (--out) or change its permissions"
    refused("train", *TINY, "--data", "play.txt", "--out", "run", code=1, line=line)
