"""Bytes written as printable characters, and the other ways in which a vocabulary spells bytes.

Byte-level BPE works on bytes, but `tokenizer.json` holds strings, so GPT-2 gave every byte a printable stand-in: bytes
that are printable in Latin-1 stand for themselves, the other 68 get the characters from U+0100 on, so a space shows as
`Ġ` (U+0120) and a newline as `Ċ`. (Source: `bytes_to_unicode` in OpenAI's gpt-2 repository, encoder.py.)

It also fixes an *order* of the bytes, printable ones first: that of GPT-2's first 256 ids, kept for every BPE here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_ORDER: list[int] = _PRINTABLE + _OTHERS
"""The 256 bytes in the order of GPT-2's ids: `!` is 0, newline 198, space 220."""

BYTE_TO_CHARACTER: dict[int, str] = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)
}
CHARACTER_TO_BYTE: dict[str, int] = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece spells a byte it falls back to


def spell(raw: bytes) -> str:
    """Bytes as a byte-level vocabulary writes them: `spell(b" a") == "Ġa"`."""
    return "".join(map(BYTE_TO_CHARACTER.__getitem__, raw))


def unspell(token: str) -> bytes:
    """The inverse of `spell`; a token that is not written in the byte alphabet is taken as plain text."""
    try:
        return bytes(map(CHARACTER_TO_BYTE.__getitem__, token))
    except KeyError:
        return token.encode("utf-8")


def whole_characters(text: str) -> str:
    """`text` fit for UTF-8: surrogate pairs are joined, lone surrogates become U+FFFD. Other text comes back unchanged.

    Python strings may hold half a character (from JSON such as `"\\ud83d"` or from file names); no encoder takes them.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_byte_token(token: str) -> bool:
    """Whether this is how SentencePiece spells a single byte: `<0xE2>`."""
    return _BYTE_TOKEN.fullmatch(token) is not None


def raw_tokens(vocabulary: dict[str, int], added: dict[int, str], spec: dict[str, Any]) -> dict[int, bytes]:
    """For every id, the bytes that the token stands for.

    Args:
        vocabulary: all tokens, added ones included.
        added: the added tokens (special or not); they are plain text in every kind of vocabulary.
        spec: the parsed tokenizer.json; its `decoder` and `model` define how tokens are spelled.
    """
    decoders = decoder_types(spec.get("decoder"))
    prefix = spec["model"].get("continuing_subword_prefix") or "##"
    raw: dict[int, bytes] = {}
    for token, i in vocabulary.items():
        if i in added:
            raw[i] = added[i].encode("utf-8")
        elif "ByteLevel" in decoders:
            raw[i] = unspell(token)
        elif "ByteFallback" in decoders and (match := _BYTE_TOKEN.fullmatch(token)):
            raw[i] = bytes([int(match[1], 16)])
        elif "WordPiece" in decoders:
            raw[i] = token.removeprefix(prefix).encode("utf-8")
        elif "Metaspace" in decoders or "Replace" in decoders:
            raw[i] = token.replace("\u2581", " ").encode("utf-8")
        else:
            raw[i] = token.encode("utf-8")
    return raw


def decoder_types(decoder: dict[str, Any] | None) -> set[str]:
    """The names of all parts of a `decoder` in tokenizer.json."""
    if not decoder:
        return set()
    return {decoder["type"]}.union(*(decoder_types(part) for part in decoder.get("decoders", [])))


def display(raw: bytes) -> str:
    """Bytes as something to put on a screen: printable text and spaces of every width as they are, controls escaped,
    partial UTF-8 as `\\xNN`.

    >>> display(b"to be\\n"), display(b"\\xe2\\x82"), display("oui\xa0!".encode()) == "oui\xa0!"
    ('to be\\\\n', '\\\\xe2\\\\x82', True)
    """
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


# what turns the direction of writing: a text with them could make a page show something else than it holds
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def legible(text: str) -> str:
    r"""Text as a page may hold it: controls, halves of surrogate pairs, unassigned code points and what turns the
    direction of writing become U+FFFD; every kind of space, joiners and soft hyphens stay.

    >>> legible("oui\xa0!\x00") == "oui\xa0!\ufffd"
    True
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or _is_legible(c) else "\ufffd" for c in text)


def _is_legible(c: str) -> bool:
    return c not in _TURNING and unicodedata.category(c) not in ("Cc", "Cs", "Cn", "Co")
