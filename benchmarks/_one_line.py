"""Imported first by every benchmark: what a user can mend ends in one line and exit code 1 instead of a traceback.

That is a package, a compiler, a text or a model that is missing, a command line of ours that failed, and Ctrl-C.
Anything else is a bug and keeps its traceback. Standard library only, for it reports that nothing else is there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType

PACKAGES = {"sklearn": "scikit-learn", "llama_cpp": "llama-cpp-python"}  # where pip's name is another


def explain(error: BaseException) -> str | None:
    """The line for an error that a user can mend; None for any other."""
    names = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    if "InvalidCxxCompiler" in names:
        return "no working C++ compiler: install one (Debian: apt-get install g++), or see --help for how to go without"
    if isinstance(error, ModuleNotFoundError):
        return _missing((error.name or "").split(".")[0])
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"exit code {error.returncode} of: {' '.join(map(str, error.cmd))}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    return str(error) if "GlassformerError" in names else None


def _missing(name: str) -> str:
    if name in ("glassformer", "torch", "numpy"):
        return f"{name} is not installed for {sys.executable}; run `make demo` once, then use .venv/bin/python"
    if name in sys.stdlib_module_names:
        return f"this benchmark needs Python's module {name}, which is not there on {sys.platform}"
    return f"{name} is not installed; run: {sys.executable} -m pip install {PACKAGES.get(name, name)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if (line := explain(error)) is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"{sys.argv[0]}: {line}", file=sys.stderr)


sys.excepthook = _hook
