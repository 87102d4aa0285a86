"""Packages stand on levels: a package imports from lower levels and from no others.

The imports are read from the source (`ast`), so lazy ones inside functions count as well. The planted examples below
show that the reader would notice.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import glassformer

SOURCE = Path(glassformer.__file__).parent
LEVELS = (
    (
        "errors",
        "files",
        "taps",
        "fetch",
        "progress",
        "archives",
        "text_files",
        "threads",
        "plugins",
        "renamed",
        "views",
        "view_options",
        "scratchpad",
    ),
    ("layers",),
    ("processors", "native"),
    ("models",),
    ("data",),
    ("generation", "hub", "figures", "evaluation"),
    ("tasks", "inspection"),
    ("training",),
    ("recipes", "lessons"),
    ("server", "alignment"),
    ("cli",),
    ("history",),  # apart: it registers itself, and nothing names it
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
EXEMPT = ("__init__", "__main__")  # the package's front: a lazy table of names, and `python -m`
# The order within the lowest level: any of it may raise errors, and a download is a file.
FLOOR = {
    "files": {"errors"},
    "taps": {"errors"},
    "plugins": {"errors"},
    "views": {"errors", "view_options"},
    "fetch": {"errors", "files", "progress"},
    "archives": {"errors"},
    "text_files": {"errors"},
}
# Lessons can be read, and run, without the package and without each other; exceptions are listed here.
APART = {
    "lesson_9_glassformer": {"models", "lessons"},
    "runner": {"errors", "data", "text_files", "lessons"},
    "table": {"lessons"},
    "notebook": {"errors", "files", "lessons"},
}


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(source: str, path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import of glassformer in a source text, wherever it stands. `path` resolves dots."""
    package = ["glassformer", *path.relative_to(SOURCE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        found += [(node.lineno, name) for name in names if name.startswith("glassformer.")]
    return found


def imported_packages(source: str, path: Path) -> list[tuple[int, str]]:
    """(line, package) of every import; `from glassformer import load` is `hub`."""
    firsts = [(line, name.split(".")[1]) for line, name in imports(source, path)]
    homes = [(line, glassformer._HOMES.get(first, f".{first}").split(".")[1]) for line, first in firsts]
    return [(line, home) for line, home in homes if not home.startswith("__")]


def wrong_imports(source: str, path: Path) -> list[str]:
    """What breaks the rule, as lines to read."""
    here = package_of(path)
    wrong = []
    for line, package in imported_packages(source, path):
        if package == here or package in FLOOR.get(here, ()):
            continue
        if package not in LEVEL:
            wrong.append(f"{here}:{line} imports {package}, a package without a level: enter it in LEVELS")
        elif LEVEL[package] >= LEVEL[here]:
            wrong.append(f"{here} (level {LEVEL[here]}):{line} imports {package} (level {LEVEL[package]})")
    return wrong


def all_sources() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if package_of(path) not in EXEMPT]


def test_packages_use_lower_levels_only():
    assert {package_of(path) for path in all_sources()} <= LEVEL.keys()
    wrong = [
        f"{path.relative_to(SOURCE)}: {w}" for path in all_sources() for w in wrong_imports(path.read_text(), path)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((SOURCE / "lessons").glob("*.py")), ids=lambda path: path.stem)
def test_the_lessons_stand_apart(path: Path):
    assert {package for _, package in imported_packages(path.read_text(), path)} <= APART.get(path.stem, set())


@pytest.mark.parametrize(
    ("where", "planted"),
    [
        ("layers/attention.py", "from glassformer.models import Decoder"),  # upward
        ("layers/attention.py", "import glassformer.models.decoder as d"),
        ("layers/attention.py", "from glassformer import processors"),  # a neighbour
        ("layers/attention.py", "from ..models import Decoder"),  # with dots
        ("layers/attention.py", "from .. import models"),
        ("evaluation/loss.py", "def f():\n    from glassformer.training import Trainer"),  # lazy
        ("data/hub.py", "if TYPE_CHECKING:\n    from glassformer.hub import load"),
        ("data/hub.py", "from glassformer import generate"),  # by the front door
        ("models/config.py", "importlib.import_module('glassformer.cli')"),
        ("errors.py", "from glassformer.files import write_text"),  # the lowest level has its order too
        ("models/sizes.py", "from glassformer.attic import thing"),  # a package without a level
    ],
)
def test_a_planted_import_is_noticed(where: str, planted: str):
    assert len(wrong_imports(planted, SOURCE / where)) == 1


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("layers/attention.py", "from glassformer.layers.cache import KVCache"),
        ("layers/attention.py", "from .cache import KVCache"),
        ("models/decoder.py", "from glassformer.errors import UsageError\nimport torch, glassformer"),
        ("cli/train.py", "from glassformer import load"),
        (
            "cli/train.py",
            "def f():\n    from glassformer.recipes import train\n    from glassformer import __version__",
        ),
    ],
)
def test_an_allowed_import_is_allowed(where: str, allowed: str):
    assert wrong_imports(allowed, SOURCE / where) == []


def circle(files: dict[str, str]) -> list[str]:
    """Files (dotted name -> source text) that import each other in a circle, lazily or not; or nothing."""
    graph: dict[str, set[str]] = {}
    for name, source in files.items():
        named = [found for _, found in imports(source, SOURCE / f"{'/'.join(name.split('.')[1:])}.py")]
        graph[name] = {file for found in named for file in (found, found.rpartition(".")[0]) if file in files}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_import_each_other():
    paths = [path for path in SOURCE.rglob("*.py") if path.stem != "__init__"]  # a package's list of names
    names = [".".join(["glassformer", *path.relative_to(SOURCE).with_suffix("").parts]) for path in paths]
    assert circle({name: path.read_text() for name, path in zip(names, paths, strict=True)}) == []


def test_a_planted_circle_is_noticed():
    sources = {
        "glassformer.a": "def f():\n    import glassformer.b",
        "glassformer.b": "from glassformer.c import g",
        "glassformer.c": "if TYPE_CHECKING:\n    from glassformer import a",
    }
    assert set(circle(sources)) == set(sources)
    assert circle({**sources, "glassformer.c": ""}) == []


def dangers(source: str) -> list[str]:
    """Ways by which a file that is opened, or a word that is typed, could become a program that runs."""
    found = []
    tree = ast.parse(source)
    tensors_only = [  # torch.load(..., weights_only=True) reads tensors and plain values, and says so by itself
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
    ]
    for node in ast.walk(tree):
        if node in tensors_only:
            continue
        match node:
            case ast.Import(names=names):
                found += [f"{node.lineno} {a.name}" for a in names if a.name.split(".")[0] in UNSAFE_MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNSAFE_MODULES:
                found.append(f"{node.lineno} {module}")
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                found.append(f"{node.lineno} {name}")
            case (
                ast.Attribute(value=ast.Name(id="torch"), attr="load")
                | ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen")
            ):
                found.append(f"{node.lineno} {ast.unparse(node)}")
            case ast.keyword(arg="shell" | "allow_pickle" as arg, value=ast.Constant(value=True)):
                found.append(f"{node.value.lineno} {arg}=True")
            case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
                found.append(f"{node.value.lineno} weights_only=False")
    return found


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_nothing_that_is_read_can_run():
    """No pickle anywhere (a model folder is data), and no text is ever handed to an interpreter or a shell."""
    found = [
        f"{path.relative_to(SOURCE)}:{d}" for path in sorted(SOURCE.rglob("*.py")) for d in dangers(path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib.numpy_pickle",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "os.system('ls')",
        "subprocess.run(line, shell=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_planted_danger_is_noticed(planted: str):
    assert len(dangers(planted)) == 1


def test_model_eval_is_no_danger():
    assert dangers("model.eval()\nre.compile('x')\ntorch.compile(model)") == []
    assert dangers("torch.load(path, weights_only=True)") == []


@pytest.mark.parametrize("module", ["glassformer", "glassformer.cli"])
def test_the_package_itself_does_not_import_torch(module: str):
    """Help must come at once, so nothing heavy is imported before it is needed."""
    heavy = ("torch", "numpy", "pydantic", "tokenizers", "safetensors", "tiktoken", "transformers")
    program = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_starts_without_what_few_runs_need():
    """scipy.stats alone takes 0.7 s; each is imported where it is used."""
    heavy = ("scipy.stats", "sklearn", "matplotlib", "torch._dynamo", "transformers", "peft")
    program = f"import sys, glassformer.recipes; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
