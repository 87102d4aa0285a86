"""Output on any console: characters that its encoding lacks are replaced, and JSON stays JSON.

A console (or a file that output goes to) may be cp1252, Latin-1 or ASCII. There a table is drawn with `|` and `-`, a
bar with `#`; other missing characters become `?`. JSON escapes everything beyond ASCII and so loses nothing.
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from typing import Any

_ASCII = "glassformer_ascii"  # ASCII under a name of its own: typer writes UTF-8 where it finds the other one
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
        "…": ".",
        "→": ">",
        "←": "<",
        "↑": "^",
        "↓": "v",
        "×": "x",
        "␣": "_",
        "\N{NO-BREAK SPACE}": " ",
    }
)


def fit_streams() -> None:
    """Let standard output and standard error replace what their encoding lacks."""
    codecs.register_error("look_alike", _look_alike)
    codecs.register(lambda name: _ascii_codec() if name == _ASCII else None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not is_utf8(stream):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else stream.encoding, errors="look_alike")


def is_utf8(stream: Any) -> bool:
    """Whether a stream takes every character; one without an encoding is in memory and does."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig", "utf16", "utf32", "cp65001")


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    """The handler of encoding errors: one character for each missing one, so that columns stay aligned."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(map(_replacement, missing)), error.end


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
