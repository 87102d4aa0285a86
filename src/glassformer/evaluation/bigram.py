"""The loss of the simplest trained model: a table of counts of which token follows which.

A Transformer that does not pass this line has learned nothing that needs more than the last token.
"""

from __future__ import annotations

import numpy as np

from glassformer.data.token_store import TokenView
from glassformer.errors import DataError

ENOUGH = 100  # training pairs for each cell of the V x V table: with so many, adding one to each changes nothing


def bigram_loss(train: TokenView, held_out: TokenView, vocab_size: int, *, max_tokens: int = 10_000_000) -> float:
    """Mean loss, nats a token, of counted pairs on every target of the held-out split.

    p(b | a), with c(a, b) how often b followed a in `train`:

        (c(a, b) + 1) / (c(a) + V)                            with 100 training pairs or more a cell of the table
        (max(c(a, b) - D, 0) + D n(a) q(b)) / c(a)            otherwise: interpolated Kneser-Ney

    D = n1 / (n1 + 2 n2), where n1 and n2 pairs were seen once and twice; n(a) different tokens followed a; q(b) grows
    with the number of different tokens that b followed, plus one. (Kneser and Ney 1995; Chen and Goodman 1998, "An
    empirical study of smoothing techniques for language modeling", section 2.7.) Only pairs that occur are kept, so V
    may be anything. The result is comparable with `evaluate_loss`, however the split is cut into windows.

    Args:
        max_tokens: of each split at most so many are read from the start: 10 million are about a second and 400 MB.

    Raises:
        DataError: a split has no pair.
    """
    V = vocab_size
    if min(len(train), len(held_out)) < 2:
        raise DataError("counting pairs needs two tokens in each split; give more text")
    learned = train.read(0, min(len(train), max_tokens))
    pairs, counts = np.unique(learned[:-1] * V + learned[1:], return_counts=True)  # (P,) a * V + b, ascending
    total = np.bincount(pairs // V, weights=counts, minlength=V)  # (V,) c(a)
    asked = held_out.read(0, min(len(held_out), max_tokens))
    before, after = asked[:-1], asked[1:]  # (N,) each
    key = before * V + after
    place = np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)
    seen = np.where(pairs[place] == key, counts[place], 0)  # (N,) c(a, b)
    if len(learned) >= ENOUGH * V * V:
        probability = (seen + 1) / (total[before] + V)
        return float(-np.log(probability).mean())
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5  # a text without single pairs is too regular to estimate it
    followers = np.bincount(pairs // V, minlength=V)  # (V,) n(a)
    leaders = np.bincount(pairs % V, minlength=V)  # (V,) how many different tokens b followed
    q = (leaders + 1) / (len(pairs) + V)
    known = np.maximum(seen - discount, 0) + discount * followers[before] * q[after]
    probability = np.where(total[before] > 0, known / np.maximum(total[before], 1), q[after])
    return float(-np.log(probability).mean())
