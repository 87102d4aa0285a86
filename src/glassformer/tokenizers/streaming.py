"""Turning a stream of token ids into a stream of text that only ever shows whole characters.

A byte-level token may end in the middle of a character ("é" is two bytes, an emoji four, and BPE cuts where it likes).
Printing each token by itself would show replacement marks; so a decoder holds bytes back until they are whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class ByteStreamDecoder:
    """For vocabularies whose tokens are bytes: an incremental UTF-8 decoder.

    What all the pushes and `finish` returned, put together, equals `decode` of all the ids.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]):
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that became whole with this token; empty while a character is still open."""
        return self._utf8.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """What was held back: an unfinished character comes out as U+FFFD."""
        return self._utf8.decode(b"", final=True)


class WindowStreamDecoder:
    """For vocabularies where a token's text depends on its neighbours (WordPiece, SentencePiece).

    Decodes a short window twice, without and with the newest tokens, and returns the difference; the window starts at
    the last place where text was given out, so the cost of a push does not grow with the length of the text.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode = decode
        self._window: list[int] = []  # tokens already shown, for context, then tokens not yet shown
        self._shown = 0

    def push(self, token_id: int) -> str:
        """The text that became whole with this token; empty while a character is still open."""
        self._window.append(token_id)
        piece = self._new_text()
        if piece and not piece.endswith("\ufffd"):
            self._window = self._window[self._shown :]
            self._shown = len(self._window)
            return piece
        return ""

    def finish(self) -> str:
        """What was held back."""
        piece = self._new_text()
        self._window, self._shown = [], 0
        return piece

    def _new_text(self) -> str:
        before = self._decode(self._window[: self._shown])
        return self._decode(self._window)[len(before) :]
