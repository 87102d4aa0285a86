"""Every error a user can cause, as one small tree.

    GlassformerError            exit code 1: a valid request failed
    ├── UsageError              exit code 2: an invalid request (a key, a value, a flag)
    ├── DataError               a text, a token store or a download is missing, damaged or too short
    ├── TokenizerError          a tokenizer file is missing or damaged, or its vocabulary does not fit
    ├── ModelFolderError        a model folder is missing, damaged or of an unknown kind
    ├── RunError                a run folder or a checkpoint is missing, damaged or in the way
    │   └── LostProcessError    another process of a run over several has ended
    ├── DeviceError             the requested device does not exist or is too small
    ├── DivergenceError         a loss or a gradient stopped being a number
    └── MissingExtraError       an optional package is needed: the message holds the pip line

A message is one line: what was given, the rule, the next step. The command line prints it without a traceback;
from Python the same objects are raised, so a caller may catch `GlassformerError` for all of them.
"""

from __future__ import annotations

import difflib
import shlex
import shutil
import sys
from collections.abc import Iterable


class GlassformerError(Exception):
    """Root of the tree; `exit_code` is what the command line returns, `prefix` what it prints before the message."""

    exit_code = 1
    prefix = "error: "


class UsageError(GlassformerError, ValueError):
    """Wrong use: an unknown key, an impossible value. Also a `ValueError`, so that pydantic collects it."""

    exit_code = 2


class DataError(GlassformerError):
    """A text, a token store or a download is missing, damaged or too short."""


class TokenizerError(GlassformerError):
    """A tokenizer file is missing or damaged, or a vocabulary does not fit."""


class ModelFolderError(GlassformerError):
    """A model folder is missing, damaged, or of a kind that is not supported."""


class RunError(GlassformerError):
    """A run folder or a checkpoint is missing, damaged or in the way."""


class LostProcessError(RunError):
    """Another process of the same run has ended, so that this one cannot continue."""


class DeviceError(GlassformerError):
    """The requested device does not exist, or has too little memory."""


class DivergenceError(GlassformerError):
    """Training met a number that is not a number."""


class MissingExtraError(GlassformerError):
    """An optional dependency is not installed.

    >>> str(MissingExtraError("reading SentencePiece models", "sentencepiece"))  # doctest: +ELLIPSIS
    "reading SentencePiece models needs an optional package; run: ... -m pip install 'glassformer[sentencepiece]'"
    """

    def __init__(self, purpose: str, extra: str):
        super().__init__(f"{purpose} needs an optional package; run: {pip_line(f'glassformer[{extra}]')}")


def pip_line(what: str) -> str:
    """The command that installs a package into the environment that this runs in: by the name of its Python where a
    shell finds that, else by its path."""
    names = (name for name in ("python", "python3") if shutil.which(name) == sys.executable)
    return f"{next(names, shlex.quote(sys.executable))} -m pip install {shlex.quote(what)}"


class GlassformerWarning(UserWarning):
    """Root of our warnings: of all warnings these alone are shown by the command line."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, or, when none is near, all (at most 20).

    >>> did_you_mean("n_layers", ["n_layer", "n_head"])
    'did you mean n_layer?'
    >>> did_you_mean("zzz", ["n_layer", "n_head"])
    'known: n_head, n_layer'
    """
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else known_names(known, most=20)


def known_names(known: Iterable[str], most: int = 60) -> str:
    """The same for a name that a program wrote: all that are known, for a near one is another thing and no slip.

    >>> known_names(["qwen3", "llama"])
    'known: llama, qwen3'
    """
    known = sorted(known)
    return "known: " + ", ".join([*known[:most], "..."] if len(known) > most else known)


def one_line(text: object, most: int = 600) -> str:
    r"""Text from a file as one line: line ends and control characters escaped, the middle cut if it is long.

    >>> one_line("two\nlines"), one_line("\x1b[31m"), one_line("a" * 10 + "z" * 10, most=9)
    ('two lines', '\\x1b[31m', 'aaaa ... zz')
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-(most // 4) :]}"


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "layer"), plural(1200, "layer")
    ('1 layer', '1,200 layers')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
