"""Parts of one's own, as docs/extending.md has them: from the command line, from Python, and in what a run keeps."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from command_line import glassformer

from glassformer import plugins, recipes
from glassformer.data import CORPORA, EXAMPLE_SETS
from glassformer.errors import ModelFolderError, RunError, UsageError
from glassformer.hub import load, load_model
from glassformer.layers import ACTIVATIONS
from glassformer.models import MODELS, kinds_that_answer
from glassformer.recipes.reading import tomllib
from glassformer.tasks import TASKS

__all__ = ["glassformer"]

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
REGISTRIES = (ACTIVATIONS, TASKS, MODELS, CORPORA, EXAMPLE_SETS)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def forget(module: str = "my_parts") -> None:
    """As if this process had never imported it."""
    sys.modules.pop(module, None)
    plugins._asked[:] = [name for name in plugins._asked if name != module]
    for registry in REGISTRIES:
        for name in [name for name, thing in registry.items() if module in origin(thing)]:
            del registry[name]


def origin(thing) -> str:
    parts = thing if isinstance(thing, tuple) else (thing, getattr(thing, "read", None))
    return " ".join(str(getattr(part, "__module__", "")) for part in parts)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with my_parts.py in it, as the current one; nothing of it is left behind."""
    (tmp_path / "my_parts.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(plugins, "_asked", [])
    plugins.load_named.cache_clear()
    yield tmp_path
    forget()
    plugins.load_named.cache_clear()


@pytest.fixture
def command(folder, glassformer):
    """A command line of a process of its own, as far as plug-ins go."""

    def call(*words: str):
        forget()
        return glassformer(*words)

    return call


def test_every_command_of_the_page_works(folder, command):
    asked = [line.split() for line in blocks("sh")[0].splitlines()]
    assert {words[1] for words in asked} == {"train", "generate", "evaluate", "resume"} and len(asked) == 6
    for line in blocks("sh")[0].splitlines():
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
        shown = command(*words, *(["--quiet", "training.compile=off"] if words[0] == "train" else []))
        assert shown.code == 0, (line, shown.err)
    assert tomllib.loads(Path("runs/two-back/recipe.toml").read_text())["plugins"] == ["my_parts"]
    assert json.loads(Path("runs/settled/summary.json").read_text())["steps"] == 30
    assert load_model("runs/cubed/model").config.activation == "relu_cubed"


def test_the_python_of_the_page_works(folder):
    sys.path.append(str(folder))
    names: dict = {}
    exec(blocks("python")[1], names)
    model, _ = load("runs/from-python")
    assert type(model).__name__ == "TwoBack" and names["run"].steps == 20
    recipe = tomllib.loads(Path("runs/from-python/recipe.toml").read_text())
    assert recipe["plugins"] == ["my_parts"], "known by where its parts are defined, though no --plugin named it"


def test_the_loss_of_ones_own_is_what_is_trained(folder):
    """With a heavy weight on log Z the logits end up smaller than without, and the reported loss is the plain one."""
    sys.path.append(str(folder))
    words = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=20", "training.compile=off"]
    plugins.load_plugin("my_parts")
    heavy, plain = (
        recipes.train(None, [*words, f"task.kind={kind}", *more], data="counting", out=kind)
        for kind, more in (("settled_next_token", ["task.weight=9"]), ("next_token", []))
    )
    assert heavy is not None and plain is not None
    first = [json.loads(Path(kind, "metrics.jsonl").read_text().splitlines()[0]) for kind in ("settled_next_token",)]
    assert first[0]["loss"] > 9 and heavy.loss.loss < 9
    assert 9 * first[0]["log_z_squared"] < first[0]["loss"]  # the metric of the task is logged beside the loss


def test_a_folder_never_imports_what_it_names_and_states_what_to_add(folder, command):
    shown = command("train", "--plugin", "my_parts", "--data", "counting", "model.kind=two-back", "model.n_embd=16",
                   "model.block_size=32", "training.steps=2", "training.compile=off", "--out", "r", "-q")  # fmt: skip
    assert shown.code == 0, shown.err
    for words in (["generate", "r"], ["resume", "r"], ["evaluate", "r"]):
        shown = command(*words)
        assert shown.code == 1 and "plug-in my_parts" in shown.err and "--plugin my_parts" in shown.err, shown.err
        assert "my_parts" not in sys.modules and len(shown.err.splitlines()) == 1
    with pytest.raises(ModelFolderError, match="add --plugin my_parts"):
        load("r")
    with pytest.raises(RunError, match="add --plugin my_parts"):
        recipes.resume("r")


def test_what_is_named_in_the_environment_or_by_an_installed_package_is_there(folder, monkeypatch):
    monkeypatch.setenv("GLASSFORMER_PLUGINS", "my_parts")
    recipes.read_recipe(None, ["model.kind=two-back", "model.n_embd=3"])
    forget()
    monkeypatch.delenv("GLASSFORMER_PLUGINS")
    plugins.load_named.cache_clear()
    installed = folder / "site" / "mine-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    shown = blocks("toml")[0].replace('project.entry-points."', "").replace('"', "")
    (installed / "entry_points.txt").write_text(shown)
    shutil.move("my_parts.py", "site/my_parts.py")
    sys.path.append(str(folder / "site"))
    recipes.read_recipe(None, ["model.kind=two-back", "model.n_embd=3"])
    assert "two-back" in MODELS


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        ("my_parts.py", ["the name of a module is needed", "--plugin my_parts"]),
        ("nowhere_at_all", ["no module of this name", "current folder"]),
        ("broken", ["broken.py:2", "ZeroDivisionError"]),
        ("lacking", ["it imports something_absent, which is not installed"]),
    ],
)
def test_a_plug_in_that_cannot_be_had_is_one_line(folder, command, module, parts):
    Path("broken.py").write_text("x = 0\ny = 1 / x\n")
    Path("lacking.py").write_text("import something_absent\n")
    shown = command("recipes", "list", f"--plugin={module}")
    assert shown.code == 2 and all(part in shown.err for part in parts), shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["model.activation=relu_cubed", "model.n_layer=1"],
        ["model.kind=two-back"],
        ["task.kind=settled_next_token"],
        ["training.schedule=sawtooth"],
        ["model.norm=batchnorm", "model.n_layer=1"],
    ],
)
def test_an_unknown_name_states_where_others_come_from(words, play):
    with pytest.raises(UsageError, match="--plugin MODULE"):
        recipes.train(None, words, data=str(play))


def test_the_table_of_the_page_is_what_tasks_and_models_say():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.split("A task `asks`")[1], flags=re.M)
    shown = {asks: (re.findall(r"`([^`]+)`", t), re.findall(r"`([^`]+)`", m)) for asks, t, m in rows}
    assert shown.keys() == {task.asks for task in TASKS.values()}
    for asks, (tasks, kinds) in shown.items():
        assert set(tasks) == {name for name, task in TASKS.items() if task.asks == asks}
        assert kinds == kinds_that_answer(asks)
