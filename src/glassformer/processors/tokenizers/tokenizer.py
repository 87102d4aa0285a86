"""The one tokenizer class: text to ids and back, whatever the vocabulary.

    >>> from glassformer.processors.tokenizers import TOKENIZERS
    >>> tokenizer = TOKENIZERS["characters"](["hello"])
    >>> tokenizer.encode("hole"), tokenizer.decode([1, 0, 2, 3])
    ([1, 3, 2, 0], 'helo')

It holds a `tokenizers.Tokenizer` (the library of Hugging Face's own tools), so that other programs load what is saved,
and adds three promises: text never becomes a special token, any string can be encoded, and bulk text is encoded fast.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from glassformer.errors import GlassformerWarning, TokenizerError, UsageError, plural
from glassformer.files import write_json, write_text
from glassformer.processors.tokenizers import bulk, kinds
from glassformer.processors.tokenizers.alphabet import (
    decoder_types,
    display,
    is_byte_token,
    raw_tokens,
    whole_characters,
)
from glassformer.processors.tokenizers.chat import ChatTemplate
from glassformer.processors.tokenizers.files import library_errors
from glassformer.processors.tokenizers.special_token_encoder import SpecialTokenEncoder
from glassformer.processors.tokenizers.special_tokens import spellings, without_specials
from glassformer.processors.tokenizers.streaming import ByteStreamDecoder, WindowStreamDecoder

if TYPE_CHECKING:
    import torch

_CANNOT = "this tokenizer fails at this text: its file is damaged or made to fail"


class UnknownCharacterWarning(GlassformerWarning):
    """A character tokenizer met characters that it has no id for and put another one in their place."""


MAX_UNUSED_IDS = 1 << 20
"""Of a vocabulary, below its largest id."""


class Tokenizer:
    """Text to ids and back.

    Attributes:
        kind: read off the structure; `kinds.py` has the list.
        vocab_size: the largest id plus one: how many logits a model needs.
        special_tokens: id of every special token by its text. `encode` never produces these.
        end_of_text: id of the token that ends a document, or None (characters have none).
        further_ends: other tokens that end a text, from a model folder's generation_config.json.
        chat_template: the Jinja template of a chat model, or None.
        settings: what else `tokenizer_config.json` has (names of special tokens, model_max_length).
    """

    def __init__(
        self,
        library: tokenizers.Tokenizer,
        *,
        end_of_text: str | None = None,
        chat_template: str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        library.encode_special_tokens = True  # "<|endoftext|>" in a text is text
        library.no_truncation()
        library.no_padding()
        self._library = library
        self._vocabulary: dict[str, int] = library.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(self._vocabulary.values()) + 1
        if self.vocab_size - len(self._vocabulary) > MAX_UNUSED_IDS:  # the library spells out every unused id
            n, largest = len(self._vocabulary), self.vocab_size - 1
            raise TokenizerError(f"the vocabulary has {n:,} tokens and ids up to {largest:,}; is it damaged?")
        spec = self._spec()
        self.kind: str = kinds.recognise(spec)
        self.special_tokens: dict[str, int] = {t["content"]: t["id"] for t in spec["added_tokens"] if t["special"]}
        self.end_of_text: int | None = self._vocabulary.get(end_of_text) if end_of_text else None
        self.further_ends: frozenset[int] = frozenset()
        self.chat_template = chat_template
        self.settings = dict(settings or {})
        self._unknown: str | None = spec["model"].get("unk_token")
        self._chat: ChatTemplate | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what decides the ids: equal for tokenizers that are equal, whatever file they come from."""
        return kinds.canonical_hash(self._spec())

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of a text: no token is added before or after it, and nothing in it becomes a special token.

        What a vocabulary lacks becomes bytes or its unknown token; a character tokenizer puts its replacement (a space)
        there and issues one `UnknownCharacterWarning` that names the characters.
        """
        if self.kind in ("characters", "bytes"):
            return self._bulk([text])[0].tolist()
        with library_errors(_CANNOT):
            ids = self._library.encode(whole_characters(text), add_special_tokens=False).ids
        return without_specials(ids, self._spellings)

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of a text with special tokens: of `parts`, strings are text as in `encode`, integers are ids of special
        tokens. It is encoded as one text, so a special token acts on what stands beside it.

        Raises:
            UsageError: an integer is not the id of a special token.
        """
        if unknown := set(self.unknown_characters("".join(part for part in parts if isinstance(part, str)))):
            self._warn(unknown, stacklevel=3)
        with library_errors(_CANNOT):
            return self._parts.encode(parts, self._spellings)

    def encode_batch(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids of several texts as a LongTensor (B, T).

        Raises:
            UsageError: the texts do not all have the same number of tokens, or there are none.
        """
        import torch

        rows = [self.encode(text) for text in texts] if self.kind not in ("characters", "bytes") else self._bulk(texts)
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1:
            raise UsageError(f"encode_batch needs texts of equal length, not {lengths}; cut them, or encode one by one")
        return torch.from_numpy(np.stack([np.asarray(row, dtype=np.int64) for row in rows]))  # (B, T)

    def encode_to_array(self, text: str | bytes) -> np.ndarray:
        """Ids of a long text as an array of uint16 (up to 65,536 ids) or uint32; the same ids as `encode`.

        `bytes` are taken as UTF-8; only a byte tokenizer keeps bytes that are not.
        """
        return self._bulk([text])[0]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode_to_array` of many texts, on all threads."""
        return self._bulk(texts)

    @property
    def starts_with(self) -> int | None:
        """The token that a language model expects before any text (Llama 2, Gemma), or None; `encode` does not add
        it."""
        before, after = self.frame
        return before[0] if len(before) == 1 and set(after) <= {self.end_of_text} else None

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The tokens before and behind every text, such as `[CLS]` and `[SEP]` of BERT; `encode` does not add them."""
        for text in ("a", "0", " "):  # a small vocabulary may lack one of them
            with library_errors(_CANNOT):
                bare, framed = (self._library.encode(text, add_special_tokens=more).ids for more in (False, True))
            for n in range(len(framed) - len(bare) + 1):
                if bare and framed[n : n + len(bare)] == bare:
                    return framed[:n], framed[n + len(bare) :]
        return [], []

    @cached_property
    def n_text_ids(self) -> int:
        """One more than the largest id that is no added token: rows that a model needs to read any text."""
        added = {token["id"] for token in self._spec()["added_tokens"]}
        return max((i for i in self._vocabulary.values() if i not in added), default=-1) + 1

    @cached_property
    def missing_ids(self) -> list[int]:
        """Ids below `vocab_size` that no token has; a model has a row for them, and nothing can be written with it."""
        return sorted(set(range(self.vocab_size)).difference(self._vocabulary.values()))

    def unknown_characters(self, text: str) -> str:
        """The characters, sorted, that a character tokenizer has no id for; empty for every other kind."""
        if self.kind != "characters":
            return ""
        return "".join(sorted(set(whole_characters(text)) - self._vocabulary.keys()))

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text: `end_of_text` and `further_ends`."""
        return self.further_ends if self.end_of_text is None else self.further_ends | {self.end_of_text}

    # Ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a list, array or one-dimensional tensor of ids, special tokens included.

        Raises:
            UsageError: an id is not in the vocabulary.
        """
        ids = _as_list(ids)
        if self.kind in kinds.BYTE_KINDS:
            return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")
        for i in ids:
            self.token_bytes(i)  # for its error
        with library_errors(_CANNOT):
            if self._fallback_bytes.isdisjoint(ids):
                return self._library.decode(ids, skip_special_tokens=False)
            return self._library.decoder.decode(self._with_whole_bytes(ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; a byte-level token may be a part of a character.

        Raises:
            UsageError: there is no such id.
        """
        try:
            return self._raw[token_id]
        except KeyError:
            known = f"0 to {self.vocab_size - 1}"
            raise UsageError(
                f"token id {token_id} is not in the vocabulary ({known}); is it another model's?"
            ) from None

    def token_text(self, token_id: int) -> str:
        """A token as something to show: a newline is `\\n`, a part of a character `\\xe2\\x82`."""
        return display(self.token_bytes(token_id))

    def text_ids(self, ids: Iterable[int]) -> list[int]:
        """Those of the ids that are text, special tokens left out."""
        special = set(self.special_tokens.values())
        return [i for i in _as_list(ids) if i not in special]

    def stream_decoder(self, after: Iterable[int] = ()) -> ByteStreamDecoder | WindowStreamDecoder:
        """An object whose `push(id) -> str` returns whole characters only, and whose `finish()` returns the rest.

        Args:
            after: ids that come first, such as those of a prompt; their own text is the object's `before`.
        """
        if self.kind in kinds.BYTE_KINDS:
            return ByteStreamDecoder(self.token_bytes, _as_list(after))
        return WindowStreamDecoder(self.decode, self.token_bytes, _as_list(after))

    # Chats

    @property
    def chat(self) -> ChatTemplate:
        """The chat template at work: `chat.render(messages)`, `chat.encode(messages)`, `chat.turn_ends`.

        Raises:
            UsageError: there is none.
        """
        if self.chat_template is None:
            raise UsageError("this tokenizer has no chat template: its model continues texts; use generate")
        if self._chat is None or self._chat.source != self.chat_template:
            self._chat = ChatTemplate(self.chat_template, self)
        return self._chat

    # As a file and as a value

    def save(self, folder: str | os.PathLike[str], *, model_max_length: int | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers.AutoTokenizer` loads as they are.

        Args:
            folder: made if it is not there.
            model_max_length: the model's block_size (transformers warns beyond it).

        Raises:
            GlassformerError: the folder cannot be written.
        """
        # The generic class: the ones named after a model rebuild the tokenizer and change the ids.
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings}
        config["clean_up_tokenization_spaces"] = False
        if self.end_of_text is not None:
            config.setdefault("eos_token", self._library.id_to_token(self.end_of_text))
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
            config.pop("split_special_tokens", None)  # else transformers takes the template's own markers for text
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        config["glassformer"] = {"kind": self.kind, "hash": self.hash}
        write_text(Path(folder) / "tokenizer.json", self._library.to_str(pretty=True))
        write_json(Path(folder) / "tokenizer_config.json", dict(sorted(config.items())))

    def to_json(self) -> str:
        """What `save` writes into `tokenizer.json`."""
        return self._library.to_str()

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        end = "" if self.end_of_text is None else f", end_of_text={self.end_of_text}"
        return f"Tokenizer({self.kind}, vocab_size={self.vocab_size:,}{end}, {self.hash[:8]})"

    # Inside

    def _spec(self) -> dict[str, Any]:
        return json.loads(self._library.to_str())

    @cached_property
    def _raw(self) -> dict[int, bytes]:
        added = {i: token.content for i, token in self._library.get_added_tokens_decoder().items()}
        return raw_tokens(self._vocabulary, added, self._spec())

    @cached_property
    def _fallback_bytes(self) -> frozenset[int]:
        """The ids that stand for one byte each, `<0xE2>`, where the decoder puts such bytes together."""
        if "ByteFallback" not in decoder_types(self._spec().get("decoder")):
            return frozenset()
        return frozenset(i for token, i in self._vocabulary.items() if is_byte_token(token))

    def _with_whole_bytes(self, ids: list[int]) -> list[str]:
        """Tokens for the library's decoder, with U+FFFD for bytes that are no character; the library itself would
        also replace the characters beside them."""
        tokens: list[str] = []
        for of_bytes, run in groupby(ids, self._fallback_bytes.__contains__):
            if not of_bytes:
                tokens += [self._library.id_to_token(i) or "" for i in run]
                continue
            for character in b"".join(map(self.token_bytes, run)).decode("utf-8", "replace"):
                spelled = [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
                tokens += [character] if character == "\ufffd" else spelled
        return tokens

    @cached_property
    def _bulk_encoder(self) -> bulk.Encode:
        return bulk.bulk_encoder(self.kind, self._library, self._spec())

    @cached_property
    def _parts(self) -> SpecialTokenEncoder:
        return SpecialTokenEncoder(self._library.to_str(), self._vocabulary)

    def _bulk(self, texts: Sequence[str | bytes]) -> list[np.ndarray]:
        """Ids of every text; called by public methods only: the warning points at their caller."""
        with library_errors(_CANNOT):
            arrays, unknown = self._bulk_encoder(texts)
        if unknown:
            self._warn(unknown)
        if self._spellings:
            arrays = [np.array(without_specials(a.tolist(), self._spellings), dtype=a.dtype) for a in arrays]
        return arrays

    def _warn(self, unknown: set[str], stacklevel: int = 4) -> None:
        shown = ", ".join(map(ascii, sorted(unknown)[:20])) + (", ..." if len(unknown) > 20 else "")
        message = f"{plural(len(unknown), 'character')} not in the vocabulary became {self._unknown!r}: {shown}"
        warnings.warn(message, UnknownCharacterWarning, stacklevel=stacklevel)

    @cached_property
    def _spellings(self) -> dict[int, list[int]]:
        if self.kind in kinds.BYTE_KINDS:
            return {}  # their special tokens are not among the pieces that text is cut into
        return spellings(self._vocabulary, self.special_tokens, self._unknown)


def _as_list(ids: Any) -> list[int]:
    """A list from a list, an array or a tensor, without importing torch to find out which."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    ids = [ids] if isinstance(ids, int) else list(ids)
    if ids and isinstance(ids[0], list):
        raise UsageError("decode takes the ids of one text; pick a row of the batch, for example ids[0]")
    return [int(i) for i in ids]
