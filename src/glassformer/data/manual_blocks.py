"""The paragraphs of a manual, in order: out of HTML (and GNOME's XML) and out of man pages (troff).

    <h2 id="hd_1">Lists</h2>              Block("hd_1", "Lists")
    <p id="par_7">Press <b>Tab</b>.</p>   Block("par_7", "Press Tab.")

    .SH ERRORS                            Block("SH", "ERRORS")
    .TP                                   Block("TP", "EAGAIN")
    .B EAGAIN                             Block("P", "No process is left.")
    No process is left.

A block's `key` says what it is and nothing of its language, so that two translations of one page have equal keys.
What is no prose is left out: programs, tables of man pages, synopses, comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import NamedTuple


class Block(NamedTuple):
    """A paragraph or a heading; `text` is one line without mark-up."""

    key: str
    text: str


# ---- HTML and XML ---------------------------------------------------------------------------------------------------

_BLOCK_TAGS = {"h1", "h2", "h3", "h4", "h5", "h6", "p", "title", "desc", "td", "th", "dt"}
_LEFT_OUT = {"head", "script", "style", "pre", "screen", "credit", "mal:credit", "nav", "header", "footer"}
_NUMBERING = re.compile(r"(?:\d+\.)+\s+|(?:Chapter|Chapitre|Appendix|Annexe)\s+\w+\.\s+")


def html_blocks(text: str) -> list[Block]:
    """The blocks of an HTML page, or of a page in GNOME's Mallard XML. Keys are elements' ids, else their tags."""
    reader = _BlockReader()
    reader.feed(text)
    reader.close()
    return reader.blocks


class _BlockReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._key: str | None = None  # of the open block
        self._text: list[str] = []
        self._left_out, self._depth = "", 0  # the tag of what is being left out, and how many of it are open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out:
            self._depth += tag == self._left_out
        elif tag in _LEFT_OUT or _is_other_variant(dict(attrs)):
            self._left_out, self._depth = tag, 1
        elif tag == "br":
            self._text.append(" ")
        elif tag in _BLOCK_TAGS:
            self._end_block()
            self._key = dict(attrs).get("id") or tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _LEFT_OUT:  # <script src="..."/> leaves nothing open
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            self._depth -= tag == self._left_out
            self._left_out = self._left_out if self._depth else ""
        elif tag in _BLOCK_TAGS:
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._key is not None and not self._left_out:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end_block()

    def _end_block(self) -> None:
        if self._key is not None and (text := " ".join("".join(self._text).split())):
            self.blocks.append(Block(self._key, _NUMBERING.sub("", text) if _NUMBERING.match(text) else text))
        self._key, self._text = None, []


def _is_other_variant(attributes: dict[str, str | None]) -> bool:
    """LibreOffice's help says `Command` and `Ctrl` side by side, all but one hidden by a script."""
    return "hidden" in attributes and not (attributes.get("id") or "default").startswith("default")


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
    """Lines without comments; one that ends with a backslash (or `\\c`) goes on in the next."""
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
