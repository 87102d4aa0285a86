"""Special tokens: what they are called here, and what keeps typed text from becoming one.

    <pad>            fills up shorter rows
    <s>  </s>        where a target sentence starts and ends; what a classifier reads first
    <mask>           stands for a token that was hidden
    <extra_id_0> ... stand for removed spans, as in T5

The `tokenizers` library takes special tokens in a text for text (`encode_special_tokens`). But a Unigram vocabulary
has `</s>` among its pieces, so it can come out after all. Then it is spelled instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from glassformer.errors import UsageError

PAD, START, END, MASK, UNKNOWN = "<pad>", "<s>", "</s>", "<mask>", "<unk>"
SENTENCE_SPECIALS = (PAD, START, END)
"""What a translator needs."""
MASKED_SPECIALS = (*SENTENCE_SPECIALS, MASK)
"""What an encoder that fills in masked tokens needs."""


def span_specials(sentinels: int = 100) -> tuple[str, ...]:
    """What a model that fills in removed spans needs: a translator's, and at least one sentinel.

    >>> span_specials(2)
    ('<pad>', '<s>', '</s>', '<extra_id_0>', '<extra_id_1>')
    """
    if sentinels < 1:
        raise UsageError(f"sentinels={sentinels} is less than 1; T5 has 100")
    return (*SENTENCE_SPECIALS, *(f"<extra_id_{i}>" for i in range(sentinels)))


def named_specials(specials: Sequence[str]) -> dict[str, object]:
    """Their entries of `tokenizer_config.json`, by the ecosystem's names for their parts."""
    parts = {"pad_token": PAD, "bos_token": START, "eos_token": END, "mask_token": MASK, "unk_token": UNKNOWN}
    named: dict[str, object] = {part: token for part, token in parts.items() if token in specials}
    if others := [token for token in specials if token.startswith("<extra_id_")]:
        named["additional_special_tokens"] = others
    return named


def spellings(vocabulary: dict[str, int], special_tokens: dict[str, int], unknown: str | None) -> dict[int, list[int]]:
    """For the id of every special token but the unknown one, the ids that spell its text character by character.

    A character without an id of its own becomes its bytes, or unknown, or is dropped where there is neither.
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
