"""Packing: several short examples in one training sequence, so that little of it is padding.

    chats      aaaa  bb  ccccccc  d                  sequences of 8      cccccccd   aaaabb..
    documents                                                            00000001   000011..

First fit, the longest first (Johnson 1973): at most 11/9 of the fewest sequences, and one. A document mask keeps
attention inside each example, so that the losses are those of the examples by themselves (`NextToken.loss`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassformer.data.example_batches import ExampleBatches

PADDING = -1
"""The document of padding."""
Pair = tuple[np.ndarray, np.ndarray]


def pack(examples: Sequence[Pair], T: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(inputs, targets) pairs, each of at most T tokens -> (inputs, documents, targets) of at most T tokens; documents
    are counted from 0 in each sequence. The same examples are always packed in the same way."""
    lengths = np.array([len(inputs) for inputs, _ in examples])
    free = np.zeros(len(examples), dtype=np.int64)  # tokens that are free in each sequence
    bins: list[list[int]] = []
    for i in np.argsort(-lengths, kind="stable").tolist():
        place = int(np.argmax(free[: len(bins)] >= lengths[i])) if bins else 0
        if not bins or free[place] < lengths[i]:
            place = len(bins)
            bins.append([])
            free[place] = T
        bins[place].append(i)
        free[place] -= lengths[i]
    return [
        (
            np.concatenate([examples[i][0] for i in chosen]),
            np.repeat(np.arange(len(chosen)), lengths[chosen]),
            np.concatenate([examples[i][1] for i in chosen]),
        )
        for chosen in bins
    ]


def padding(examples: Sequence[tuple[np.ndarray, ...]], batch_size: int, seed: int) -> int:
    """Tokens of padding in the steps of the first pass over examples, as `ExampleBatches` makes them."""
    batches = ExampleBatches(examples, lambda rows, _: (), batch_size=batch_size, seed=seed)
    lengths = np.array([len(example[0]) for example in examples])[batches._order(0)]
    steps = np.array_split(lengths, range(batch_size, len(lengths), batch_size))
    return int(sum(step.max() * len(step) - step.sum() for step in steps))
