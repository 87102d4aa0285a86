"""Keeping typed text from becoming a special token, also where the model itself would match it.

The `tokenizers` library leaves special tokens in the text alone (`encode_special_tokens`). But a Unigram vocabulary
holds `</s>` among the very pieces that text is cut into, so it can come out after all. Then it is spelled instead.
"""

from __future__ import annotations

from collections.abc import Sequence


def spellings(vocabulary: dict[str, int], special_tokens: dict[str, int], unknown: str | None) -> dict[int, list[int]]:
    """For the id of every special token, the ids that spell its text one character at a time.

    The unknown token is left out: text that nothing covers becomes it, and it gives no orders. A character without an
    id of its own becomes its bytes, or unknown, or is dropped where there is not even that.
    """
    unknowns = {i for token, i in special_tokens.items() if token == unknown or "unk" in token.lower()}
    secret = set(special_tokens.values()) - unknowns
    spelled: dict[int, list[int]] = {}
    for token, i in special_tokens.items():
        if i in secret:
            ids = (c for character in token for c in _spell(character, vocabulary, min(unknowns, default=None)))
            spelled[i] = [c for c in ids if c not in secret]
    return spelled


def _spell(character: str, vocabulary: dict[str, int], unknown: int | None) -> list[int]:
    if character in vocabulary:
        return [vocabulary[character]]
    names = [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
    if all(name in vocabulary for name in names):
        return [vocabulary[name] for name in names]
    return [] if unknown is None else [unknown]


def without_specials(ids: Sequence[int], spelled: dict[int, list[int]]) -> list[int]:
    """`ids` with every special one spelled."""
    if not spelled or spelled.keys().isdisjoint(ids):
        return list(ids)
    return [plain for i in ids for plain in spelled.get(i, [i])]
