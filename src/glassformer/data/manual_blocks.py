"""The paragraphs of a manual, in order: out of HTML (and GNOME's XML) and out of man pages (troff).

    <h2 id="hd_1">Lists</h2>              Block("hd_1", "Lists")
    <p id="par_7">Press <b>Tab</b>.</p>   Block("par_7", "Press Tab.")

    .SH ERRORS                            Block("SH", "ERRORS")
    .TP                                   Block("TP", "EAGAIN")
    .B EAGAIN                             Block("P", "No process is left.")
    No process is left.

A block's `key` describes its role and not its language, so that two translations of one page have equal keys.
What is no prose is left out: programs, tables of man pages, synopses, comments.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """A paragraph or a heading; `text` is one line without mark-up."""

    key: str
    text: str


# ---- HTML and XML ---------------------------------------------------------------------------------------------------

_BLOCK_TAGS = {"h1", "h2", "h3", "h4", "h5", "h6", "p", "title", "desc", "td", "th", "dt"}
_LEFT_OUT = {"head", "script", "style", "pre", "screen", "credit", "mal:credit", "nav", "header", "footer"}
_NUMBERING = re.compile(r"(?:\d+\.)+\s+|(?:Chapter|Chapitre|Appendix|Annexe)\s+\w+\.\s+")


_PIECE = re.compile(
    r"""<!--.*?-->|<(?P<end>/?)(?P<tag>[a-zA-Z][\w:.-]*)(?P<given>(?:[^<>"']|"[^"]*"|'[^']*')*)>|(?P<text>[^<]+|<)""",
    re.DOTALL,
)
_ID = re.compile(r"""\sid\s*=\s*["']([^"']+)["']""")
_HIDDEN = re.compile(r"""\shidden\b""")


def html_blocks(page: str) -> list[Block]:
    """The blocks of an HTML page, or of a page in GNOME's Mallard XML. Keys are elements' ids, else their tags.

    For pages that a program wrote, one after the other and well-formed: three times as fast as `html.parser`.
    """
    blocks: list[Block] = []
    key: str | None = None  # of the open block
    words: list[str] = []
    left_out, depth = "", 0  # the tag of what is being left out, and how many of it are open

    def end() -> None:
        nonlocal key
        if key is not None and (text := " ".join(html.unescape("".join(words)).split())):
            blocks.append(Block(key, _NUMBERING.sub("", text, count=1) if _NUMBERING.match(text) else text))
        key = None
        words.clear()

    for piece in _PIECE.finditer(page):
        tag, text = piece["tag"], piece["text"]
        if left_out:
            if tag == left_out and not _is_empty(piece):
                depth += -1 if piece["end"] else 1
                left_out = left_out if depth else ""
        elif text:
            if key is not None:
                words.append(text)
        elif tag in _LEFT_OUT or (tag and not piece["end"] and _is_other_variant(piece["given"])):
            if not piece["end"] and not _is_empty(piece):
                left_out, depth = tag, 1
        elif tag == "br":
            words.append(" ")
        elif tag in _BLOCK_TAGS:
            end()
            if not piece["end"] and not _is_empty(piece):
                key = found[1] if (found := _ID.search(piece["given"])) else tag
    end()
    return blocks


def _is_empty(piece: re.Match[str]) -> bool:
    """`<script src="..."/>` leaves nothing open."""
    return piece["given"].endswith("/")


def _is_other_variant(given: str) -> bool:
    """LibreOffice's help has `Command` and `Ctrl` side by side, all but one hidden by a script."""
    if _HIDDEN.search(given) is None:
        return False
    found = _ID.search(given)
    return found is not None and not found[1].startswith("default")


# ---- man pages ------------------------------------------------------------------------------------------------------

_FONTS = {"B", "I", "R", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB"}
_PARAGRAPHS = {"PP", "P", "LP", "HP", "sp", "br", "RS", "RE", "IP"}
_LITERAL = {"nf": "fi", "EX": "EE", "TS": "TE", "SY": "YS", "ig": "."}
_ESCAPES = {
    "aq": "'", "cq": "’", "oq": "‘", "lq": "“", "rq": "”", "dq": '"', "em": "—", "en": "–", "bu": "•", "co": "©",
    "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "mc": "µ", "+-": "±", "mu": "×", "<=": "≤", ">=": "≥", "->": "→",
    "Fo": "«", "Fc": "»", "R": "®", "Tm": "™", "ss": "ß", "de": "°", "12": "½", "14": "¼", "==": "≡", "!=": "≠",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:f(?:\[[^\]]*\]|\(..|.)|s(?:\[[^\]]*\]|[+-]?\d)|\((?P<two>..)|\[(?P<long>[^\]]*)\]|\*(?P<string>\(..|\[[^\]]*\]|.)"
    r"|[hvw]'[^']*'|(?P<one>.))"
)
_ONE = {"-": "-", "e": "\\", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", ".": ".", "\\": "\\"}
_WORDS = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')


def man_blocks(text: str) -> list[Block]:
    """The blocks of a man page in the `man` macros. Keys: SH, SS (headings), TP (the term of a list), P (the rest).

    A page in other macros (mdoc), or one that only names another page (`.so`), has none.
    """
    blocks: list[Block] = []
    words: list[str] = []
    term = False  # the next line of text is the term of a .TP
    ends_literal = ""

    def end(key: str = "P") -> None:
        if found := " ".join("".join(words).split()):
            blocks.append(Block(key, found))
        words.clear()

    for line in _joined_lines(text):
        macro, given = _macro(line)
        if ends_literal:
            ends_literal = "" if macro == ends_literal else ends_literal
        elif macro == "Dd":
            return []
        elif macro in _LITERAL:
            end()
            ends_literal = _LITERAL[macro]
        elif macro in ("SH", "SS"):
            end()
            words.append(" ".join(given))
            end(macro)
        elif macro in ("TP", "TQ"):
            end()
            term = True
        elif macro in _PARAGRAPHS:
            end()
            if macro == "IP" and given:
                words.append(given[0])
                end("TP")
        elif macro is None or macro in _FONTS:
            between = "" if macro in _FONTS and len(macro) == 2 and macro not in ("SM", "SB") else " "
            words.append((_plain(line) if macro is None else between.join(given)) + " ")
            if term:
                end("TP")
                term = False
        elif macro in ("UR", "MT") and given:
            words.append(given[0] + " ")
    end()
    return blocks


def _joined_lines(text: str) -> Iterator[str]:
    """Lines without comments; one that ends with a backslash (or `\\c`) continues in the next."""
    held = ""
    for line in text.split("\n"):
        line = held + re.sub(r'\s*\\["#].*', "", line)
        if line.endswith("\\") and not line.endswith("\\\\"):
            held = line[:-1]
            continue
        held = ""
        if line:
            yield line


def _macro(line: str) -> tuple[str | None, list[str]]:
    """(name, words) of a line with a request, (None, []) of a line of text."""
    if line[0] not in ".'" or line.startswith("'’"):
        return None, []
    name, _, rest = line[1:].lstrip().partition(" ")
    return name.strip(), [_plain((quoted or plain).replace('""', '"')) for quoted, plain in _WORDS.findall(rest)]


def _plain(text: str) -> str:
    """Text without troff's escapes."""

    def character(match: re.Match[str]) -> str:
        name = match["two"] or match["long"]
        if name:
            return chr(int(name[1:], 16)) if re.fullmatch(r"u[0-9A-F]{4,5}", name) else _ESCAPES.get(name, "")
        if string := match["string"]:
            return {"(lq": "“", "(rq": "”", "R": "®", "(Tm": "™"}.get(string, "")
        return _ONE.get(match["one"] or "", "")

    return _ESCAPE.sub(character, text)
