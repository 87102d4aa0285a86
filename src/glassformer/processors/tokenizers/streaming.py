"""Turning a stream of token ids into a stream of text that only ever shows whole characters.

A byte-level token may end inside a character, so a decoder holds bytes back until they are whole. And the text of a
token may depend on what stands before it (SentencePiece drops the space of a word at the start of a text), so a
continuation is decoded behind its prompt. The contract, for every kind of vocabulary and any ids:

    decoder = tokenizer.stream_decoder(after=prompt)
    decoder.before + "".join(decoder.push(i) for i in new) + decoder.finish() == tokenizer.decode(prompt + new)

`decoder.before` is `decode(prompt)` without a character that the prompt leaves unfinished.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from functools import cached_property

CONTEXT = 8
"""Tokens of the prompt that a window begins with: enough for whatever a token's text depends on."""


class ByteStreamDecoder:
    """For vocabularies whose tokens are bytes: an incremental UTF-8 decoder.

    Args:
        after: ids that the text begins with; their text is `before` and comes out of no push.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], after: Sequence[int] = ()):
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.before: str = self._utf8.decode(b"".join(map(token_bytes, after)))

    def push(self, token_id: int) -> str:
        """The text that became whole with this token; empty while a character is still open."""
        return self._utf8.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """What was held back: an unfinished character comes out as U+FFFD."""
        return self._utf8.decode(b"", final=True)


class WindowStreamDecoder:
    """For vocabularies where a token's text depends on its neighbours (WordPiece, SentencePiece).

    Decodes a short window without and with the newest tokens and returns the difference. The window starts where text
    was last given out, so a push does not cost more in a longer text.

    Args:
        after: as of `ByteStreamDecoder`.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        token_bytes: Callable[[int], bytes],
        after: Sequence[int] = (),
    ):
        self._decode, self._token_bytes = decode, token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # only asked whether a character is open
        whole = max((n for n, token in enumerate(after, 1) if self._closes(token)), default=0)
        self._before = list(after[:whole])
        start = max(0, whole - CONTEXT)
        self._window = list(after[start:])  # tokens already shown, for context, then tokens not yet shown
        self._shown = whole - start

    @cached_property
    def before(self) -> str:
        """The text of `after`, less a character that it leaves open."""
        return self._decode(self._before)

    def push(self, token_id: int) -> str:
        """The text that became whole with this token; empty while a character is still open."""
        self._window.append(token_id)
        if not self._closes(token_id):
            return ""
        piece = self._new_text()
        if piece:
            self._window = self._window[self._shown :]
            self._shown = len(self._window)
        return piece

    def finish(self) -> str:
        """What was held back."""
        piece = self._new_text()
        self._window, self._shown = [], 0
        return piece

    def _closes(self, token_id: int) -> bool:
        """Whether no character is open behind this token."""
        self._utf8.decode(self._token_bytes(token_id))
        return not self._utf8.getstate()[0]

    def _new_text(self) -> str:
        before = self._decode(self._window[: self._shown])
        return self._decode(self._window)[len(before) :]
