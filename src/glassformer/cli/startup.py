"""Before a command runs: the clock starts, `--plugin` is taken out of the words, the streams fit the console.

A console (or a file that output goes to) may be cp1252, Latin-1 or ASCII. There a table is drawn with `|` and `-`, a
bar with `#`; other missing characters become `?`. JSON escapes everything beyond ASCII and so loses nothing.
"""

from __future__ import annotations

import codecs
import io
import sys
import time
import unicodedata
from typing import Any

_started = time.perf_counter()
_ASCII = "glassformer_ascii"  # ASCII under another name: typer writes UTF-8 where it finds "ascii"
_LOOKS_LIKE = str.maketrans(
    {
        **dict.fromkeys("─━┄┅┈┉╌╍═╴╶╸╺", "-"),
        **dict.fromkeys("│┃┆┇┊┋╎╏║╵╷╹╻", "|"),
        **dict.fromkeys("▁▂", "_"),
        **dict.fromkeys("▃▄░▏▎", "."),
        **dict.fromkeys("▅▒▍▌", "="),
        **dict.fromkeys("▆▇█▓▋▊▉■▀", "#"),
        **dict.fromkeys("•·∙●", "*"),
        **dict.fromkeys("–—−", "-"),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("“”", '"'),
        **dict(zip("…→←↑↓×␣\N{NO-BREAK SPACE}", ".><^vx_ ", strict=True)),
    }
)


def start_clock() -> None:
    """A command starts now."""
    global _started
    _started = time.perf_counter()


def started() -> float:
    """`time.perf_counter()` when the command started, before torch was imported."""
    return _started


def take_plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """(the words without `--plugin MODULE` and `--plugin=MODULE`, the modules). Words after `--` stay as they are.

    Raises:
        UsageError: no module follows.

    >>> take_plugins(["train", "--plugin", "mine", "own", "--plugin=more.mine", "--", "--plugin"])
    (['train', 'own', '--', '--plugin'], ['mine', 'more.mine'])
    """
    from glassformer.errors import UsageError

    rest: list[str] = []
    modules: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return [*rest, word, *left], modules
        name, equals, module = word.partition("=")
        if name != "--plugin":
            rest.append(word)
            continue
        if not equals and not (module := next(left, "")):
            raise UsageError("--plugin needs the name of a module, for example: --plugin my_losses")
        modules.append(module)
    return rest, modules


def fit_streams() -> None:
    """Let standard output and standard error replace what their encoding lacks."""
    codecs.register_error("look_alike", _look_alike)
    codecs.register(lambda name: _ascii_codec() if name == _ASCII else None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not is_utf8(stream):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else stream.encoding, errors="look_alike")


def is_utf8(stream: Any) -> bool:
    """Whether a stream accepts every character; one without an encoding is in memory and does."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig", "utf16", "utf32", "cp65001")


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    """The handler of encoding errors: one character for each missing one, so that columns stay aligned."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_replacement, error.object[error.start : error.end])), error.end


def _replacement(character: str) -> str:
    like = character.translate(_LOOKS_LIKE)
    if like == character and "BOX DRAWINGS" in unicodedata.name(character, ""):
        like = "+"
    if not like.isascii():
        like = unicodedata.normalize("NFKD", character)[:1]  # an accented letter without its accent
    return like if like.isascii() and like.isprintable() else "?"


def _ascii_codec() -> codecs.CodecInfo:
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, plain.streamreader, plain.streamwriter, plain.incrementalencoder,
        plain.incrementaldecoder, name=_ASCII,
    )  # fmt: skip
