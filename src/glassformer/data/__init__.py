"""From published texts and your own files to batches of token ids.

    corpora, readers, hub     where text comes from
    splits                    which of it validates
    prepare                   text -> token store
    token_store, token_writer the store on disk
    batches                   token store -> (inputs, targets)
    prefetch                  the same, made ahead for a GPU

    examples, example_sets    where pairs and labelled texts come from
    english_french, packaged_examples    how the named ones are read out of their packages
    encoding                  labels, and tokenizers learned from examples
    example_batches           examples as ids -> batches, sorted by length

The names below are imported when first used: preparing and listing need no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from glassformer.renamed import keep_old_names

_MODULES = {
    "batches": "TokenBatches fixed_batches windows",
    "corpora": "CORPORA Corpus",
    "encoding": "label_names tokenizer_from",
    "example_batches": "ExampleBatches in_order length_order",
    "example_sets": "EXAMPLE_SETS ExampleSet",
    "examples": "Example load_examples references",
    "prefetch": "Prefetched prefetched",
    "prepare": "SourceInfo describe",
    "readers": "Piece TextSource open_source read_documents",
    "token_store": "TokenStore TokenView",
    "token_writer": "TokenStoreWriter",
    "vocabulary": "tokenizer_for",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"glassformer.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'glassformer.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


keep_old_names(__name__)
