"""The rooms of the house stand on levels: a room may use rooms of lower levels and no others.

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
    ),
    ("layers",),
    ("processors", "native"),
    ("models",),
    ("data",),
    ("generation", "hub", "figures", "evaluation"),
    ("tasks", "inspection"),
    ("training",),
    ("recipes", "lessons"),
    ("server",),
    ("cli",),
    ("history",),  # apart: it registers itself, and nothing names it
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
EXEMPT = ("__init__", "__main__")  # the package's front: a lazy table of names, and `python -m`
# The floor's own order: everybody may say what went wrong, and a download is a file.
FLOOR = {
    "files": {"errors"},
    "taps": {"errors"},
    "plugins": {"errors"},
    "views": {"errors", "view_options"},
    "fetch": {"errors", "files", "progress"},
    "archives": {"errors"},
    "text_files": {"errors"},
}
# The lessons can be read, and run, without the house and without each other; who may know what is named here.
APART = {
    "lesson_9_glassformer": {"models", "lessons"},
    "runner": {"errors", "data", "text_files", "lessons"},
    "table": {"lessons"},
    "notebook": {"errors", "files", "lessons"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(source: str, path: Path) -> list[tuple[int, str]]:
    """(line, room) of every import of this package in a source text, wherever it stands. `path` resolves dots."""
    package = ["glassformer", *path.relative_to(SOURCE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(source)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            modules = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "glassformer" and len(parts) > 1 and not parts[1].startswith("__"):
                home = glassformer._HOMES.get(parts[1])  # `from glassformer import load` is `hub`
                found.append((node.lineno, home.split(".")[1] if home else parts[1]))
    return found


def wrong_imports(source: str, path: Path) -> list[str]:
    """What breaks the rule, as lines to read."""
    here = room_of(path)
    wrong = []
    for line, room in imported_rooms(source, path):
        if room == here or room in FLOOR.get(here, ()):
            continue
        if room not in LEVEL:
            wrong.append(f"{here}:{line} imports {room}, a room without a level: enter it in LEVELS")
        elif LEVEL[room] >= LEVEL[here]:
            wrong.append(f"{here} (level {LEVEL[here]}):{line} imports {room} (level {LEVEL[room]})")
    return wrong


def all_sources() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if room_of(path) not in EXEMPT]


def test_every_room_has_a_level():
    assert {room_of(path) for path in all_sources()} <= LEVEL.keys()


def test_rooms_use_lower_levels_only():
    wrong = [
        f"{path.relative_to(SOURCE)}: {w}" for path in all_sources() for w in wrong_imports(path.read_text(), path)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((SOURCE / "lessons").glob("*.py")), ids=lambda path: path.stem)
def test_the_lessons_stand_apart(path: Path):
    assert {room for _, room in imported_rooms(path.read_text(), path)} <= APART.get(path.stem, set())


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
        ("errors.py", "from glassformer.files import write_text"),  # the floor has its order too
        ("models/sizes.py", "from glassformer.attic import thing"),  # a room nobody has heard of
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


def files_imported(source: str, known: set[str]) -> set[str]:
    """The files of this package that a source text imports, lazily, for a type checker alone, or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {node.module}
    return found & known


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle, or nothing."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_import_each_other():
    files = {
        "glassformer." + ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
        for path in SOURCE.rglob("*.py")
        if path.stem != "__init__"  # a package's list of names, which its files do not import
    }
    assert circle({name: files_imported(path.read_text(), set(files)) for name, path in files.items()}) == []


def test_a_planted_circle_is_noticed():
    sources = {"a": "def f():\n    import b", "b": "from c import g", "c": "if TYPE_CHECKING:\n    import a"}
    imports = {name: files_imported(source, set(sources)) for name, source in sources.items()}
    assert set(circle(imports)) == {"a", "b", "c"}
    assert circle({**imports, "c": set()}) == []


def dangers(source: str) -> list[str]:
    """Ways by which a file one opens, or a word one types, could become a program that runs."""
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
